"""Which backend trains, and the reasons given."""

from __future__ import annotations

import pytest

from gpusvm.backends import backend_names, choose_backend, get_backend, probe_all
from gpusvm.device import Availability, Driver
from gpusvm.errors import BackendUnavailableError, UsageError


@pytest.fixture
def cuml_says(monkeypatch):
    def say(ok: bool, reason: str, hint: str = "", driver: bool = False) -> None:
        monkeypatch.setattr("gpusvm.backends.cuml._probe", lambda: Availability(ok, reason, hint))
        monkeypatch.setattr("gpusvm.device.query_driver", lambda: Driver(0 if driver else None))

    return say


def test_auto_takes_the_gpu_where_it_works(cuml_says):
    cuml_says(True, "H200, 141 GB, cuML 26.10")
    choice = choose_backend()
    assert choice.backend.name == "cuml" and "H200" in choice.reason and choice.notice == ""


def test_auto_falls_back_with_the_reason_and_without_a_notice_where_no_gpu_is(cuml_says):
    cuml_says(False, "no NVIDIA driver (libcuda not found)")
    choice = choose_backend()
    assert choice.backend.name == "sklearn"
    assert choice.reason == "cuml cannot run: no NVIDIA driver (libcuda not found)"
    assert choice.notice == ""


def test_auto_falling_back_beside_a_gpu_names_what_is_missing_and_the_command(cuml_says):
    cuml_says(False, "CuPy is not installed", 'pip install "gpusvm[cuda13]"', driver=True)
    notice = choose_backend().notice
    assert "CuPy is not installed" in notice and 'pip install "gpusvm[cuda13]"' in notice
    assert "\n" not in notice


def test_environment_variable_sets_what_auto_means(cuml_says, monkeypatch):
    cuml_says(True, "a GPU")
    monkeypatch.setenv("GPUSVM_BACKEND", "sklearn")
    choice = choose_backend()
    assert choice.backend.name == "sklearn" and "GPUSVM_BACKEND" in choice.reason
    assert choose_backend("cuml").backend.name == "cuml", "a name given beats the variable"
    monkeypatch.setenv("GPUSVM_BACKEND", "nonsense")
    with pytest.raises(UsageError, match="'nonsense' \\(from GPUSVM_BACKEND\\)"):
        choose_backend()
    monkeypatch.setenv("GPUSVM_BACKEND", "")
    assert choose_backend().backend.name == "cuml", "an empty value says nothing"
    monkeypatch.setenv("GPUSVM_BACKEND", "sklearn")
    with pytest.raises(BackendUnavailableError, match="sklearn \\(from GPUSVM_BACKEND\\) runs on the CPU"):
        choose_backend(require_gpu=True)


def test_require_gpu_turns_a_fallback_into_an_error(cuml_says):
    cuml_says(False, "CuPy is not installed", 'pip install "gpusvm[cuda12]"', driver=True)
    with pytest.raises(BackendUnavailableError, match=r"CuPy is not installed.*cuda12") as caught:
        choose_backend(require_gpu=True)
    assert caught.value.exit_code == 3
    with pytest.raises(BackendUnavailableError, match="runs on the CPU"):
        choose_backend("sklearn", require_gpu=True)


def test_a_backend_asked_for_by_name_that_cannot_run_is_an_error(cuml_says):
    cuml_says(False, "no device")
    with pytest.raises(BackendUnavailableError, match="backend cuml cannot run here: no device"):
        choose_backend("cuml")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="sklearnex"):
        get_backend("libsvm-gpu")


def test_every_backend_answers_a_probe():
    found = probe_all()
    assert list(found) == backend_names()
    assert found["sklearn"].ok
    assert all(isinstance(a.reason, str) and a.reason for a in found.values())
