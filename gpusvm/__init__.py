"""Exact kernel support vector machines for image-sized data, on a GPU where there is one.

>>> from gpusvm import SVC
>>> svc = SVC(C=10, gamma=0.02)        # doctest: +SKIP
>>> svc.fit(X, y).save("digits.svm")   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpusvm.lazy import lazily
from gpusvm.version import __version__

if TYPE_CHECKING:
    from gpusvm.certificate import Certificate, certify
    from gpusvm.errors import (
        BackendUnavailableError,
        DataError,
        GpuSvmError,
        ModelFileError,
        OutputError,
        TrainingError,
        UsageError,
    )
    from gpusvm.estimators import SVC, SVR, OneClassSVM, SVCSearchCV
    from gpusvm.io.libsvm import read_libsvm_model, write_libsvm_model
    from gpusvm.io.model_file import load_model, save_model, to_onnx, to_sklearn
    from gpusvm.model import SVMModel
    from gpusvm.params import Problem, Resources, Stopping
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "certificate": ("Certificate", "certify"),
            "errors": (
                "BackendUnavailableError",
                "DataError",
                "GpuSvmError",
                "ModelFileError",
                "OutputError",
                "TrainingError",
                "UsageError",
            ),
            "estimators": ("SVC", "SVR", "OneClassSVM", "SVCSearchCV"),
            "io.libsvm": ("read_libsvm_model", "write_libsvm_model"),
            "io.model_file": ("load_model", "save_model", "to_onnx", "to_sklearn"),
            "model": ("SVMModel",),
            "params": ("Problem", "Resources", "Stopping"),
        },
    )

__all__ = [
    "SVC",
    "SVR",
    "BackendUnavailableError",
    "Certificate",
    "DataError",
    "GpuSvmError",
    "ModelFileError",
    "OneClassSVM",
    "OutputError",
    "Problem",
    "Resources",
    "SVCSearchCV",
    "SVMModel",
    "Stopping",
    "TrainingError",
    "UsageError",
    "__version__",
    "certify",
    "load_model",
    "read_libsvm_model",
    "save_model",
    "to_onnx",
    "to_sklearn",
    "write_libsvm_model",
]
