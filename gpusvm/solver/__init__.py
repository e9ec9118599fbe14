"""Exact solvers for `gpusvm.problem`: functions of arrays; no files, data sets or command line."""

from gpusvm.solver.cpu import solve

__all__ = ["solve"]
