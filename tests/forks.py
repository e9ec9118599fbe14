"""Python code in forks of a process that has imported what commands need: each runs, and ends, as
a process of its own, without the second and a half that its imports would take."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

COMMAND = "from gpusvm.cli.main import run; run()"
"""The code of ``gpusvm``."""

_IMPORTED = ("gpusvm.cli.train", "gpusvm.cli.predict", "gpusvm.backends.sklearn", "sklearn.svm", "safetensors.numpy")


_MOST_SECONDS = 900
"""After which a fork that hangs is ended: less than pytest gives a test, since our end waits for
the server's, and that for the fork's."""


def run_in_a_fork(code: str, *arguments: object, stdout: Any = None) -> subprocess.CompletedProcess[str]:
    """Run the code where `sys.argv[1:]` are the arguments, in the folder and the environment that
    are this process's now.

    Its standard output goes to the file `stdout`, or is in what is returned, as all of its
    standard error is.
    """
    command = ["-c", code, *map(str, arguments)]
    if sys.platform != "linux":
        pipe = subprocess.PIPE if stdout is None else stdout
        return subprocess.run([sys.executable, *command], stdout=pipe, stderr=subprocess.PIPE, text=True)
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        request = json.dumps([command, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(_server(), [request], [(stdout or printed).fileno(), errors.fileno()])
        returned = int(_server().recv(100))
        printed.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, returned, printed.read(), errors.read())


@cache
def _server() -> socket.socket:
    """A connection to the process that forks."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(its.fileno())], pass_fds=[its.fileno()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    its.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(connection: socket.socket) -> str:
    """Fork for one request after the other; in a fork, returns the code to be run."""
    while True:
        request, files, *_ = socket.recv_fds(connection, 2**20, 2)
        if not request:
            return ""
        pid = os.fork()
        if pid == 0:
            connection.close()
            return _prepared(*json.loads(request), files)
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _prepared(command: list[str], folder: str, environment: dict[str, str], files: list[int]) -> str:
    """Make this process one that was begun with the command; returns its code."""
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    signal.alarm(_MOST_SECONDS)
    sys.argv = [command[0], *command[2:]]
    return command[1]


if __name__ == "__main__":
    sys.path[0] = ""  # as for -c
    for name in _IMPORTED:
        import_module(name)
    exec(compile(_serve(socket.socket(fileno=int(sys.argv[1]))), "<string>", "exec"), {"__name__": "__main__"})
