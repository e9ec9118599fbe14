"""Running a worker: whatever becomes of it, there is an answer, and nothing of it is left
running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpusvm.bench.process import END_WITH_THE_COMMAND, WORKER, run_worker
from gpusvm.bench.spec import Spec
from gpusvm.bench.suite import Case

SPEC = Spec(contender="sklearn", case=Case("rbf", C=10.0), dataset="digits", n_train=200)


needs_death_signal = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can end a process with the one that started it (PR_SET_PDEATHSIG)"
)


def run_script(script: str, timeout_s: float = 300.0) -> dict:
    return run_worker(SPEC, timeout_s, (sys.executable, "-c", script))


def wait_until_gone(pid: int) -> bool:
    """A minute is enough on a busy machine, and far less than what these processes would sleep
    for."""
    for _ in range(1200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_worker_is_given_the_spec() -> None:
    answer = run_script('print(input().replace(\'"contender"\', \'"status": "ok", "contender"\'))')
    assert answer["contender"] == "sklearn"
    assert answer["case"]["C"] == 10.0


def test_a_spec_survives_its_line() -> None:
    assert Spec.from_line(SPEC.to_line()) == SPEC


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('no luck')", "ended with exit code 1: no luck"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL, as the system does where memory runs out"),
        ("print('hello')", "the worker gave no answer"),
        ("print('[1, 2]')", "the worker gave no answer"),
        ("pass", "the worker gave no answer"),
        ("""print('{"status": "failed", "reason": "two\\\\nlines"}')""", "two lines"),
    ],
)
def test_every_failure_is_an_answer(script: str, reason: str) -> None:
    answer = run_script(script)
    assert answer["status"] == "failed"
    assert answer["reason"] == reason


def test_standard_error_is_kept_without_this_machines_folders() -> None:
    answer = run_script("import os, sys; sys.exit(f'cannot read {os.getcwd()}/x and {sys.prefix}/y')")
    assert answer["reason"].endswith("cannot read ./x and <python>/y")
    assert answer["stderr"] == ["cannot read ./x and <python>/y"]


def test_a_worker_that_does_not_start() -> None:
    answer = run_worker(SPEC, 5, ("/nonexistent/python",))
    assert answer["status"] == "failed"
    assert answer["reason"].startswith("the worker does not start: ")


def test_a_timeout_ends_the_worker_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}.')\n"
        "time.sleep(600)"
    )
    timeout_s = 1.0
    while not (pids.exists() and pids.read_text().endswith(".")):  # until both have started
        timeout_s *= 2
        answer = run_script(script, timeout_s)
        assert answer["status"] == "timeout"
        assert answer["reason"] == f"took longer than {timeout_s:g} s"
    assert all(wait_until_gone(int(pid)) for pid in pids.read_text().rstrip(".").split())


def test_the_worker_does_not_outlive_the_command_that_asked_for_it() -> None:
    worker = subprocess.Popen(
        [*WORKER, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert worker.stdin is not None
    # An hour's work at least; closing the pipe is what the end of the asking process does.
    worker.stdin.write(Spec("libsvm", Case("hard", C=1e6, gamma=1e-4, tol=1e-12), "digits", 1437).to_line())
    worker.stdin.flush()
    worker.stdin.close()
    assert worker.wait(300) == 1


@needs_death_signal
def test_kill_9_of_the_command_ends_a_worker_whose_library_holds_the_gil(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    worker = (
        f"{END_WITH_THE_COMMAND}import os, pathlib, gpusvm.bench.worker as worker\n"
        "def measure(spec):\n"
        f"    pathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}}.')\n"
        "    ctypes.PyDLL(None).sleep(600)\n"
        "worker.measure = measure\n"
        "worker.main()"
    )
    command = (
        "import sys\n"
        "from gpusvm.bench.process import run_worker\n"
        "from gpusvm.bench.spec import Spec\n"
        f"run_worker(Spec.from_line({SPEC.to_line()!r}), 600.0, (sys.executable, '-c', {worker!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", command]) as process:
        while not (pid.exists() and pid.read_text().endswith(".")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert wait_until_gone(int(pid.read_text().rstrip(".")))


@needs_death_signal
def test_a_worker_whose_command_had_died_before_it_began_ends_at_once() -> None:
    """Without this it would wait for its spec as long as anybody holds the other end of the
    pipe."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    with subprocess.Popen([*WORKER, str(gone.pid)], stdin=subprocess.PIPE) as worker:
        assert worker.wait(300) == 1


@needs_death_signal
def test_kill_9_of_the_command_ends_a_worker_that_is_still_importing(tmp_path: Path) -> None:
    """A stand-in for gpusvm whose import takes ten minutes, found in the folder that the command
    runs in."""
    (tmp_path / "gpusvm").mkdir()
    (tmp_path / "gpusvm" / "__init__.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(f'{os.getpid()}.')\ntime.sleep(600)"
    )
    command = f"import os, subprocess; subprocess.run([*{list(WORKER)!r}, str(os.getpid())])"
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path) as process:
        while not (pid.exists() and pid.read_text().endswith(".")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert wait_until_gone(int(pid.read_text().rstrip(".")))
