"""Exact solvers for `gpusvm.problem`: functions of arrays, without files, data sets or a command line."""

from gpusvm.solver.cpu import solve

__all__ = ["solve"]
