"""What people import: estimators with scikit-learn's parameters, that hold a fitted SVMModel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily

if TYPE_CHECKING:
    from gpusvm.estimators.one_class import OneClassSVM
    from gpusvm.estimators.search import SVCSearchCV
    from gpusvm.estimators.svc import SVC
    from gpusvm.estimators.svr import SVR
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "one_class": ("OneClassSVM",),
            "search": ("SVCSearchCV",),
            "svc": ("SVC",),
            "svr": ("SVR",),
        },
    )

__all__ = ["SVC", "SVR", "OneClassSVM", "SVCSearchCV"]
