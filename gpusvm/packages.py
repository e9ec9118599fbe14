"""Which packages are installed, asked without importing them."""

from __future__ import annotations

from collections.abc import Iterable

_DISTRIBUTIONS = {
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "cuml": ("cuml-cu13", "cuml-cu12", "cuml"),
}


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed, nothing imported.

    CuPy and cuML are published under a name for each CUDA version; here they are "cupy" and
    "cuml".
    """
    found = {package: _version(package) for package in packages}
    return {package: number for package, number in found.items() if number is not None}


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None
