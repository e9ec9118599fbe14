"""An exact solver for one-vs-one C-SVC: functions of arrays, without files, data sets or a command line."""

from gpusvm.solver.one_vs_one import solve_one_vs_one
from gpusvm.solver.pair import PairResult

__all__ = ["PairResult", "solve_one_vs_one"]
