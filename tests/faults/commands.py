"""gpusvm commands run in forks of this process, so that a fault falls into their work and not into
their imports."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpusvm.cli import main

_MARK = "GPUSVM_FAULT_TRIAL"
_POLL_SECONDS = 0.0005


@dataclass
class Command:
    """A gpusvm command under way in `folder`; its output is kept beside that folder."""

    arguments: Sequence[object]
    folder: Path
    before: Callable[[], None] = lambda: None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    code: int | None = None

    def start(self) -> Command:
        """Begin, and wait until the command itself has begun: what comes before is not
        gpusvm's."""
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_command(writer)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return self

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def _be_the_command(self, begun: int) -> None:
        code = 1
        try:
            os.chdir(self.folder)
            log = os.open(self.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ[_MARK] = self.mark
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.before()
            sys.argv = ["gpusvm", *map(str, self.arguments)]
            main.app = _bounded(main.app, begun)
            main.run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            # An interrupt from here on must not unwind the fork of whoever started it, whose
            # folders that would remove.
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def wait(self, timeout_s: float = 300.0) -> int:
        """Its exit code, negative for a signal. Raises TimeoutError, and kills it, if it hangs."""
        end = time.monotonic() + timeout_s
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"{self.arguments}: still running after {timeout_s:g} s")
            else:
                time.sleep(_POLL_SECONDS)
        return self.code

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_over():
            time.sleep(_POLL_SECONDS)

    def wait_for_writing(self, timeout_s: float = 60.0) -> None:
        """Wait until a file is being written in its folder, or until it ends."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not self.is_over() and not unfinished(self.folder):
            time.sleep(_POLL_SECONDS)

    def is_over(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def send(self, number: int) -> None:
        if not self.is_over():
            os.kill(self.pid, number)

    def leaves_processes(self, grace_s: float = 30.0) -> bool:
        """Whether a process that it started still runs so long after its end."""
        end = time.monotonic() + grace_s
        while processes_with(f"{_MARK}={self.mark}"):
            if time.monotonic() > end:
                return True
            time.sleep(0.05)
        return False


def _bounded(app: Callable[[], None], begun: int) -> Callable[[], None]:
    """The command line between the moments from and until which `gpusvm.cli.main.run` answers for
    interrupts.

    What comes before and after is Python's start and end, where Ctrl-C has nothing to spoil.
    """

    def run() -> None:
        os.write(begun, b".")
        try:
            app()
        finally:
            signal.signal(signal.SIGINT, lambda *_: None)  # SIG_IGN would print that it ignores one that is pending

    return run


def made(folder: Path) -> Path:
    """The folder, there if it was not."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unfinished(folder: Path) -> list[Path]:
    """The temporary files of `gpusvm.io.output.replacing` below `folder`."""
    return list(folder.rglob(".*.part"))


def processes_with(variable: str) -> list[int]:
    """Processes with that ``NAME=value`` in their environment; a zombie has none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
