"""Hostile inputs for every reader: one module a format, each with `generate(rng)`, `read(path)`
and `use(result)`."""
