"""The version, in the one place that packaging, provenance and the command line read."""

__version__ = "0.2.0"
