"""Do the packages of an extra, cuda12 or cuda13, work together, so far as can be told without GPU?

tools/gpu_extras.sh makes an environment of its own for each and runs this in it:

    python tools/gpu_extras.py cuda13
"""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import distributions

from gpusvm.backends.cuml import OLDEST
from gpusvm.device import query_driver
from gpusvm.solver.cuda_kernels import source


def main(extra: str) -> None:
    major = extra.removeprefix("cuda")
    names = {(found.metadata["Name"] or "").lower().replace("_", "-") for found in distributions()}
    cupys = {name for name in names if name.startswith("cupy")}
    assert cupys == {f"cupy-cuda{major}x"}, f"CuPy is installed as {sorted(cupys)}"

    import cupy
    from cuda.pathfinder import find_nvidia_header_directory, load_nvidia_dynamic_lib
    from cupy_backends.cuda.libs import nvrtc

    built_for, compiler = cupy.cuda.runtime.runtimeGetVersion(), nvrtc.getVersion()
    assert built_for // 1000 == compiler[0] == int(major), (built_for, compiler)
    for library in ("cublas", "nvrtc"):
        print(f"{library}: {load_nvidia_dynamic_lib(library).abs_path.rpartition('/')[2]}")
    assert find_nvidia_header_directory("cudart"), "CUDA's headers are not there"
    compile_sources()

    import cuml  # ten seconds
    from cuml.svm import SVC, SVR

    assert tuple(map(int, cuml.__version__.split(".")[:2])) >= OLDEST, cuml.__version__
    for kind in (SVC, SVR):
        inspect.signature(kind).bind(
            C=1.0, kernel="rbf", gamma=1.0, degree=3, coef0=0.0, tol=1e-3, max_iter=-1, cache_size=1.0
        )
        inspect.signature(kind.fit).bind(None, None, None, sample_weight=None)
    inspect.signature(SVR).bind(epsilon=0.1)
    print(f"{extra}: CuPy {cupy.__version__} (CUDA {built_for}), NVRTC {compiler}, cuML {cuml.__version__}")
    if query_driver().status is None:
        from gpusvm.backends import get_backend

        for name in ("native-cuda", "cuml"):
            assert "no NVIDIA driver" in get_backend(name).probe().reason


def compile_sources() -> None:
    """Compile the solver's kernels by the very NVRTC that CuPy finds."""
    from cupy_backends.cuda.libs import nvrtc

    from gpusvm.solver import cuda_kernels, cuda_rows

    for name, options in (
        ("pairs.cu", cuda_kernels.options()),
        ("pairs.cu", cuda_kernels.options("float32")),
        ("rows.cu", cuda_rows.options("float32", "float32")),
    ):
        program = nvrtc.createProgram(source(name), name, (), ())
        try:
            nvrtc.compileProgram(program, (*options, "-arch=sm_80"))
        except Exception as error:
            raise AssertionError(f"{name}: {nvrtc.getProgramLog(program)}") from error
        finally:
            nvrtc.destroyProgram(program)


if __name__ == "__main__":
    main(sys.argv[1])
