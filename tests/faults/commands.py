"""gpusvm commands run in forks of this process, so that a fault falls into their work and not into
their imports."""

from __future__ import annotations

import fcntl
import os
import select
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
_MOST_OUTPUT = 2**20
"""Bytes that a command may print: nobody reads before its end. A file is under its limits."""


@dataclass
class Command:
    """A gpusvm command under way in `folder`."""

    arguments: Sequence[object]
    folder: Path
    before: Callable[[], None] = lambda: None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    code: int | None = None
    output: str = ""

    def start(self) -> Command:
        """Begin, and wait until the command itself has begun: what comes before is not
        gpusvm's."""
        reader, writer = os.pipe()
        self._printed, output = os.pipe()
        fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _MOST_OUTPUT)
        os.set_blocking(self._printed, False)
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_command(writer, output)
        os.close(writer)
        os.close(output)
        self._end = os.pidfd_open(self.pid)
        os.read(reader, 1)
        os.close(reader)
        return self

    def _be_the_command(self, begun: int, output: int) -> None:
        code = 1
        try:
            os.chdir(self.folder)
            os.dup2(output, 1)
            os.dup2(output, 2)
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
        self.sleep(timeout_s)
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.sleep(timeout_s)
            raise TimeoutError(f"{self.arguments}: still running after {timeout_s:g} s")
        return self.code

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it ends."""
        if self.code is None:
            select.select([self._end], [], [], seconds)
            self.is_over()

    def wait_for_writing(self, timeout_s: float = 60.0) -> None:
        """Wait until a file is being written in its folder, or until it ends."""
        end = time.monotonic() + timeout_s
        folders = [folder for folder, *_ in os.walk(self.folder)]
        while time.monotonic() < end and self.code is None and not any(map(_is_written_in, folders)):
            self.sleep(_POLL_SECONDS)

    def is_over(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.output = self._read()
                os.close(self._end)
        return self.code is not None

    def _read(self) -> str:
        """What it printed; a process that it left behind may print more."""
        try:
            return os.read(self._printed, _MOST_OUTPUT).decode(errors="replace")
        except BlockingIOError:
            return ""
        finally:
            os.close(self._printed)

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


def _is_written_in(folder: str) -> bool:
    """As `unfinished`, without folders below it, and in a tenth of the time."""
    with os.scandir(folder) as entries:
        return any(entry.name.startswith(".") and entry.name.endswith(".part") for entry in entries)


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
