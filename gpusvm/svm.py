"""The estimators, under the path that they have in scikit-learn: `from gpusvm.svm import SVC` for `sklearn.svm`."""

from gpusvm.estimators import SVC, SVR, OneClassSVM

__all__ = ["SVC", "SVR", "OneClassSVM"]
