"""Self-contained HTML pages: of an evaluation, of a search."""
