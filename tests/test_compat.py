"""Private names of other libraries: each is there, and as it was when it was looked at."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest

from gpusvm import compat
from gpusvm.packages import package_versions

PACKAGE = Path(compat.__file__).parent
_LIBRARIES = "sklearn|numba|joblib|llvmlite|scipy|typer|rich|cupy|cuml"
PRIVATE_IMPORT = re.compile(rf"^\s*(from|import) ({_LIBRARIES})\S*(\._|(?<!typer)\.core\b|.* import .*\b_[a-z])")


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@pytest.mark.parametrize("library", compat.SEEN)
def test_the_installed_version_is_one_that_was_looked_at_or_a_warning_says_so(library: str) -> None:
    oldest, newest = compat.SEEN[library]
    installed = package_versions([library])[library]
    users = [f"{name} ({borrowed.why})" for name, borrowed in compat.BORROWED.items() if borrowed.library == library]
    assert number(oldest) <= number(installed)
    if number(installed) > number(newest):  # no fault by itself: the tests below look at the names
        warnings.warn(
            f"{library} {installed} is newer than {newest}, the newest in which its private names were looked at. Read "
            f"its release notes for {'; '.join(users)}; then set SEEN in gpusvm/compat.py",
            stacklevel=1,
        )


@pytest.mark.parametrize("name", compat.BORROWED)
def test_what_is_borrowed_is_there_and_takes_what_it_is_given(name: str) -> None:
    borrowed = compat.BORROWED[name]
    check = f"{borrowed.path} of {borrowed.library} has changed; find another way to what it is for: {borrowed.why}"
    try:
        found = getattr(compat, name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{check} ({error})")
    if borrowed.parameters:
        taken = inspect.signature(found).parameters
        assert set(borrowed.parameters) <= set(taken), f"{check} (it takes {list(taken)})"
        needed = {key for key, parameter in taken.items() if parameter.default is parameter.empty}
        optional = {key for key in needed if taken[key].kind in (taken[key].VAR_KEYWORD, taken[key].VAR_POSITIONAL)}
        assert needed - optional <= set(borrowed.parameters), f"{check} (it needs {sorted(needed)})"
    gone = [attribute for attribute in borrowed.attributes if not hasattr(found, attribute)]
    assert not gone, f"{check} (without {gone})"


@pytest.mark.parametrize("kind", ["SVC", "SVR", "OneClassSVM"])
def test_scikit_learns_own_estimators_keep_what_ours_set(kind: str) -> None:
    from sklearn import svm

    fitted = getattr(svm, kind)().fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])
    gone = [attribute for attribute in compat.LIBSVM_ATTRIBUTES.values() if attribute not in vars(fitted)]
    added = [key for key in vars(fitted) if key.startswith("_") and key not in compat.LIBSVM_ATTRIBUTES.values()]
    assert (gone, added) == ([], []), (
        f"a fitted {kind} of scikit-learn keeps other attributes: {gone} are gone, {added} are new. See what its "
        "predict reads (sklearn/svm/_base.py), and mend LIBSVM_ATTRIBUTES and to_sklearn"
    )


@pytest.mark.parametrize("attribute", compat.ESTIMATOR_ATTRIBUTES)
def test_scikit_learns_estimators_check_their_parameters_as_ours_do(attribute: str) -> None:
    from sklearn.model_selection import GridSearchCV

    assert hasattr(GridSearchCV, attribute), (
        f"GridSearchCV.{attribute} is gone; see how sklearn/base.py checks parameters now, then gpusvm/estimators"
    )


def test_no_other_module_imports_a_private_name() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        if file.name != "compat.py"
        for line in file.read_text(encoding="utf-8").splitlines()
        if PRIVATE_IMPORT.search(line)
    ]
    assert found == [], "take it from gpusvm.compat, where its library's versions are noted"
