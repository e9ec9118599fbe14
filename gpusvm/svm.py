"""The estimators, under the path that they have in scikit-learn.

Write `from gpusvm.svm import SVC` for `from sklearn.svm import SVC`.
"""

from gpusvm.estimators import SVC, SVR, OneClassSVM

__all__ = ["SVC", "SVR", "OneClassSVM"]
