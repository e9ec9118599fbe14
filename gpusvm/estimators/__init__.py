"""What people import: estimators with scikit-learn's parameters, that hold a fitted SVMModel."""

from gpusvm.estimators.svc import SVC

__all__ = ["SVC"]
