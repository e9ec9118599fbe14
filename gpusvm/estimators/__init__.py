"""What people import: estimators with scikit-learn's parameters, that hold a fitted SVMModel."""

from gpusvm.estimators.one_class import OneClassSVM
from gpusvm.estimators.search import SVCSearchCV
from gpusvm.estimators.svc import SVC
from gpusvm.estimators.svr import SVR

__all__ = ["SVC", "SVR", "OneClassSVM", "SVCSearchCV"]
