"""Running one worker: what it is given, what it answers, and every way in which it can fail to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gpusvm.bench.spec import Spec

END_WITH_THE_COMMAND = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
"""
"""How a worker begins, before it imports gpusvm, which takes seconds: Linux then kills it with the
process that started it, whose number is its argument, also inside a library that holds the GIL. A
parent that died before that sends no signal, but is the parent no more."""

WORKER = (sys.executable, "-c", f"{END_WITH_THE_COMMAND}from gpusvm.bench.worker import main; main()")

_STDERR_LINES = 20
_STDERR_BYTES = 8192
_ANSWER_BYTES = 2**24


def run_worker(spec: Spec, timeout_s: float, command: Sequence[str] = WORKER) -> dict[str, Any]:
    """Take one measurement in a process of its own.

    Parameters
    ----------
    spec : Spec
    timeout_s : float
        Seconds allowed to the whole process; then its process group is killed.
    command : sequence of str
        The worker; the number of this process follows as its last argument.

    Returns
    -------
    dict
        What the worker answered; or a ``status`` of failed or timeout, a ``reason``, and the last
        lines that it wrote to standard error.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C; the worker is gone by then.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            # No shell, and no part of the command comes from a file: the spec goes through the
            # pipe.
            process = subprocess.Popen(  # nosec B603
                [*command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            return {"status": "failed", "reason": f"the worker does not start: {error.strerror}"}
        try:
            _send(process, spec)
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return _trouble("timeout", f"took longer than {timeout_s:g} s", errors)
        finally:
            _end(process)
        return _answer(process.returncode, output, errors)


def _send(process: subprocess.Popen[bytes], spec: Spec) -> None:
    """Write the spec, and leave the pipe open.

    Its closing tells the worker that nobody waits for it.
    """
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(spec.to_line())
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that nothing of the worker is left running."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _answer(returncode: int, output: IO[bytes], errors: IO[bytes]) -> dict[str, Any]:
    if returncode != 0:
        return _trouble("failed", _cause(returncode), errors)
    output.seek(0)
    try:
        answer = json.loads(output.read(_ANSWER_BYTES))
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "status" not in answer:
        return _trouble("failed", "the worker gave no answer", errors)
    if answer["status"] == "failed":
        return answer | _trouble("failed", str(answer.get("reason", "")), errors)
    return answer


def _cause(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "killed by SIGKILL, as the system does where memory runs out"
    if returncode < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def _trouble(status: str, reason: str, errors: IO[bytes]) -> dict[str, Any]:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _STDERR_BYTES))
    text = _without_places(errors.read().decode("utf-8", errors="replace"))
    lines = [line for line in text.splitlines() if line.strip()][-_STDERR_LINES:]
    if lines and reason.startswith("ended with"):
        reason = f"{reason}: {lines[-1].strip()}"
    return {"status": status, "reason": " ".join(_without_places(reason).split()), "stderr": lines}


def _without_places(text: str) -> str:
    """The text without this machine's folders, since records are made to be shown."""
    for place, name in ((sys.prefix, "<python>"), (str(Path.cwd()), "."), (str(Path.home()), "~")):
        if len(place) > 1:
            text = text.replace(place, name)
    return text
