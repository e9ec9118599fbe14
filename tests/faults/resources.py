"""Too little memory, a full disk, folders that cannot be written: a result, or one line that says
what to do."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import interruption
import numpy as np
from commands import Command, made, unfinished

OLD = b"what stood here before"
_NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Python leaves bytecode cut off where a limit on files is in its way."""
LEFT_MB = (30, 60, 90, 120, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1500, 3000)
"""Address space left to a command beyond what Python and the libraries take when they are
loaded."""


_SEVERAL = """
import json, sys
from gpusvm.cli.main import run
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        run()
    except SystemExit as end:
        if end.code:
            raise
"""


def in_a_fresh_process(commands: list[list[object]], cwd: Path, environment: dict[str, str]) -> str:
    """Run commands in a process that looks for its places anew, one after the other."""
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", _SEVERAL, arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    return outcome(done)


def gpusvm(
    *arguments: object, cwd: Path, limits: dict[int, int] | None = None, before: Callable[[], None] = lambda: None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a fork of this process under resource limits (bytes)."""

    def limited() -> None:
        before()
        if limits:
            sys.dont_write_bytecode = True
            os.environ |= _NO_BYTECODE
        for which, value in (limits or {}).items():
            resource.setrlimit(which, (value, value))

    command = Command(arguments, cwd, limited).start()
    return subprocess.CompletedProcess(["", "", "", *map(str, arguments)], command.wait(), "", command.output)


def outcome(done: subprocess.CompletedProcess[str], *expected: str) -> str:
    """``done``, the first of the `expected` texts that its one line of error has, or a
    violation."""
    if done.returncode == 0:
        return "done"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr:
        for text in expected:
            if text in lines[0]:
                return f"refused: {text}"
    return f"VIOLATION {done.args[3:]}: exit code {done.returncode}: {done.stderr[-500:]}"


def write_images(folder: Path, n: int = 3000) -> Path:
    """Sparse images of four classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    images = (rng.integers(0, 256, (n, 28, 28)) * (rng.random((n, 28, 28)) < 0.2)).astype(np.uint8)
    images[np.arange(n), 0, labels * 3] = 255
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder / "images.npz"


def little_memory(folder: Path, left_mb: tuple[int, ...] = LEFT_MB) -> list[str]:
    """Train with ``ulimit -v``: it ends well, or says how much is needed."""
    import_module("gpusvm.cli.train")  # beyond which memory is counted
    images, loaded = write_images(folder), _loaded_bytes()
    return [
        outcome(
            gpusvm("train", images, "--backend", backend, cwd=folder, limits={resource.RLIMIT_AS: loaded + mb * 2**20}),
            "not enough memory",
        )
        for backend in ("sklearn", "native-cpu")
        for mb in left_mb
    ]


def _loaded_bytes() -> int:
    """Address space of this process, with which its forks begin."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def full_disk(folder: Path) -> list[str]:
    """Write each result where it does not fit: a small file system where we may mount one, else a
    limit on files."""
    images = write_images(folder, 1500)
    model = folder / "m.svm"
    made = gpusvm("train", images, "--backend", "sklearn", "--gamma", 0.1, "--out", model, cwd=folder)
    if made.returncode != 0:
        return [outcome(made)]
    commands: dict[str, list[object]] = {
        "out.svm": ["train", images, "--backend", "sklearn", "--gamma", 0.1, "--out"],
        "out.onnx": ["export", model, "--to", "onnx", "--out"],
        "out.joblib": ["export", model, "--to", "sklearn", "--out"],
        "out.csv": ["predict", model, images, "--out"],
        "out.json": ["evaluate", model, images, "--json"],
    }
    found = []
    with _small_disk(folder / "small") as limits:
        for name, arguments in commands.items():
            target = folder / "small" / name
            target.write_bytes(OLD)
            done = gpusvm(*arguments, target, cwd=folder, limits=limits)
            found.append(outcome(done, "cannot write"))
            if done.returncode == 0:
                found[-1] = f"VIOLATION {name}: fits"
            elif target.read_bytes() != OLD:
                found[-1] = f"VIOLATION {name}: the old file is gone"
            target.unlink()
            if list((folder / "small").glob(".*.part")):
                found[-1] = f"VIOLATION {name}: a temporary file is left"
    return found


@contextmanager
def _small_disk(folder: Path, free_bytes: int = 4096) -> Iterator[dict[int, int]]:
    """A folder on a disk that is all but full, or the limits that stand for it."""
    folder.mkdir()
    size = f"size={free_bytes + 12288}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder], capture_output=True)
    if mounted.returncode != 0:
        yield {resource.RLIMIT_FSIZE: min(1024, free_bytes)}
        return
    try:
        (folder / "filling").write_bytes(bytes(12288))
        yield {}
    finally:
        subprocess.run(["umount", folder], check=True)


def full_disk_resumable(folder: Path) -> list[str]:
    """The disk fills while files are fetched, measurements are taken, and pairs are kept: what was
    there stays."""
    return [_full_while_fetching(folder), _full_while_measuring(folder), _full_while_training(folder)]


def _full_while_fetching(folder: Path) -> str:
    scene = interruption.fetch_scene(made(folder / "served"))
    with _small_disk(folder / "data", free_bytes=5 * 4096) as limits:
        scene.prepare(folder / "data")
        done = gpusvm(*scene.arguments(folder / "data"), cwd=made(folder / "work"), limits=limits, before=scene.before)
        found = outcome(done, "cannot write")
        if scene.check(folder / "data") != "old" or unfinished(folder / "data"):
            return f"VIOLATION fetch: {scene.check(folder / 'data')}, {unfinished(folder / 'data')}: {found}"
    return found


def _full_while_measuring(folder: Path) -> str:
    from gpusvm.bench.runner import new_run
    from gpusvm.bench.suite_file import load_suite

    (folder / "small.toml").write_text(interruption.SUITE)
    run = new_run(load_suite(str(folder / "small.toml")), folder)
    run.record.save(folder / "run.json")
    content = (folder / "run.json").read_bytes()
    with _small_disk(folder / "results", free_bytes=-(-len(content) // 4096) * 4096) as limits:
        path = folder / "results" / "run.json"
        path.write_bytes(content)
        found = outcome(gpusvm("bench", "--resume", path, cwd=folder, limits=limits), "cannot write")
        if path.read_bytes() != content or unfinished(path.parent):
            return f"VIOLATION bench: the record is not what it was: {found}"
    return found


def _full_while_training(folder: Path) -> str:
    images = write_images(folder, 1500)
    with _small_disk(folder / "pairs") as limits:
        checkpoint = folder / "pairs" / "checkpoint"
        done = gpusvm(
            "train", images, "--backend", "sklearn", "--gamma", 0.1, "--checkpoint", checkpoint, "--out", "m.svm",
            cwd=folder, limits=limits,
        )  # fmt: skip
        found = outcome(done, "cannot write")
        if done.returncode == 0 or unfinished(folder / "pairs") or (folder / "m.svm").exists():
            return f"VIOLATION train --checkpoint: {found}"
    return found


def limited_files(folder: Path) -> list[str]:
    """The same with a limit on the size of files alone, which needs no rights."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return _with_limit(Path(place))


def _with_limit(folder: Path) -> list[str]:
    images = write_images(folder, 400)
    target = folder / "out.svm"
    target.write_bytes(OLD)
    done = gpusvm(
        "train", images, "--backend", "sklearn", "--out", target, cwd=folder, limits={resource.RLIMIT_FSIZE: 4096}
    )
    found = outcome(done, "cannot write")
    if done.returncode == 0 or target.read_bytes() != OLD or list(folder.glob(".*.part")):
        found = f"VIOLATION {sorted(path.name for path in folder.iterdir())}: {found}"
    return [found]


def own_places(folder: Path, backend: str = "sklearn") -> list[str]:
    """Train, evaluate and predict with every place of their own: only outputs and caches
    appear."""
    places = {name: folder / name for name in ("home", "work", "temporary", "cache", "compiled")}
    for place in places.values():
        place.mkdir()
    environment = {
        "HOME": str(places["home"]), "TMPDIR": str(places["temporary"]), "XDG_CACHE_HOME": str(places["cache"]),
        "GPUSVM_CACHE_DIR": str(places["cache"]), "NUMBA_CACHE_DIR": str(places["compiled"]),
        **_NO_BYTECODE,
    }  # fmt: skip
    images = write_images(folder, 400)
    commands: list[list[object]] = [
        ["train", images, "--backend", backend, "--out", "m.svm", "--json", "m.json"],
        ["evaluate", "m.svm", images, "--json", "e.json", "--report", "report"],
        ["predict", "m.svm", images, "--out", "p.csv"],
    ]
    found = [in_a_fresh_process(commands, places["work"], environment)]
    appeared = {path.relative_to(folder).parts[:2] for path in folder.rglob("*") if path.is_file()}
    appeared.discard(("images.npz",))
    expected = {("work", name) for name in ("m.svm", "m.json", "e.json", "p.csv", "report")}
    strange = {parts for parts in appeared - expected if parts[0] not in ("cache", "compiled")}
    if strange or expected - appeared:
        found.append(f"VIOLATION files: {sorted(appeared)}")
    return found


def no_home(folder: Path) -> list[str]:
    """The same commands where no home folder can be made."""
    environment = {"HOME": str(folder / "images.npz" / "home"), "XDG_CACHE_HOME": "", "GPUSVM_CACHE_DIR": ""}
    images = write_images(folder, 400)
    commands: list[list[object]] = [
        ["info"],
        ["data", "list"],
        *(["train", images, "--backend", backend, "--out", "m.svm"] for backend in ("sklearn", "native-cpu")),
        ["evaluate", "m.svm", images],
        ["predict", "m.svm", images, "--out", "p.csv"],
    ]
    return [in_a_fresh_process([command], folder, environment) for command in commands]


KINDS: dict[str, Callable[[Path], list[str]]] = {
    "little memory": little_memory,
    "full disk": full_disk,
    "full disk, resumable": full_disk_resumable,
    "limited files": limited_files,
    "own places": own_places,
    "no home": no_home,
}
