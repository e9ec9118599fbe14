"""kill -9 and Ctrl-C at random moments: whatever stands at an output is the old file or the new
one, whole.

A scene imports what its command needs, once for all forks of it.
"""

from __future__ import annotations

import atexit
import gzip
import hashlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from commands import Command, unfinished

from gpusvm.data import CATALOGUE, catalogue, idx
from gpusvm.io import output

if TYPE_CHECKING:
    from gpusvm.bench.record import Record

OLD = b"what stood here before"
TOO_LATE = " (had ended before)"
DROPPED = " (Python dropped it inside a callback)"
"""See the limits in docs/reliability.md; like an interrupt that comes too late it tests
nothing."""

_TRAINING = ("gpusvm.cli.train", "sklearn.svm", "safetensors.numpy")
_MODULES = {
    "sklearn": _TRAINING,
    "native-cpu": (*_TRAINING, "gpusvm.backends.native", "gpusvm.solver.cpu"),
    "joblib": ("gpusvm.cli.export", *_TRAINING),
    "onnx": ("gpusvm.cli.export", *_TRAINING, "gpusvm.io.onnx_graph", "onnx"),
    "fetch": ("gpusvm.cli.data", "gpusvm.data.download", "requests"),
    "bench": ("gpusvm.cli.bench", "gpusvm.bench.runner"),
}
"""What commands import."""

_LONG_SECONDS = 600.0
"""For commands that nobody interrupts: the first may compile the solver, on a machine that is slow
and busy."""


class Violation(Exception):
    """A promise that was not kept."""


class Moment:
    """When interrupts come: so long after a trigger, at random up to a limit that follows what
    came in time.

    A limit that is taken once from one run suits no other machine, nor this one at another hour:
    too long, and most interrupts find the command ended. Each that does shortens it, and each
    other lengthens it by less, so that about a fifth come too late and no part of the command is
    spared.
    """

    SHORTER, LONGER = 0.7, 1.1

    def __init__(self, seconds: float, most_seconds: float = math.inf) -> None:
        self.limit_seconds, self.most_seconds = seconds, most_seconds

    def wait(self, command: Command, chance: random.Random) -> None:
        if command.is_over():
            return  # it was over before the trigger was seen, which says nothing of the limit
        command.sleep(chance.uniform(0, self.limit_seconds))
        self.limit_seconds *= self.SHORTER if command.is_over() else self.LONGER
        self.limit_seconds = min(self.limit_seconds, self.most_seconds)


class Moments:
    """Of half of the interrupts any time of the command, of the others while an output is being
    written."""

    def __init__(self, command_seconds: float) -> None:
        self.any_time = Moment(command_seconds)
        self.writing = Moment(0.02, most_seconds=0.02)

    def wait(self, command: Command, chance: random.Random) -> None:
        if chance.random() < 0.5:
            command.wait_for_writing()
            self.writing.wait(command, chance)
        else:
            self.any_time.wait(command, chance)


@dataclass(frozen=True)
class Scene:
    """A command to interrupt: `prepare` makes its folder, `check` says whether its outputs are
    old, new or mixed."""

    arguments: Callable[[Path], list[object]]
    prepare: Callable[[Path], None]
    check: Callable[[Path], str]
    before: Callable[[], None] = lambda: None
    seconds: float | None = None
    """How long it takes, about; timed, where none are given."""


def _import(modules: str) -> None:
    for name in _MODULES[modules]:
        import_module(name)
    if modules == "native-cpu":
        import numba

        numba.njit(lambda: None)()  # it imports half of itself when it first compiles


def _seconds_of(command: Command, failure: str) -> float:
    """How long it takes when nobody interrupts it."""
    start = time.monotonic()
    if command.start().wait(_LONG_SECONDS) != 0:
        raise Violation(f"{failure}: {command.output}")
    return time.monotonic() - start


def interrupt(scene: Scene, folder: Path, number: int, chance: random.Random, moments: Moments) -> str:
    """One trial; what was found afterwards."""
    for path in unfinished(folder):
        path.unlink()
    scene.prepare(folder)
    command = Command(scene.arguments(folder), folder, scene.before).start()
    moments.wait(command, chance)
    command.send(number)
    try:
        code = command.wait()
    except TimeoutError as error:
        raise Violation(str(error)) from error
    if command.leaves_processes():
        raise Violation(f"{command.arguments}: a process outlives it")
    found = scene.check(folder)
    if number == signal.SIGINT:
        if code not in (0, 130):
            raise Violation(f"{command.arguments}: exit code {code} after Ctrl-C: {command.output[-500:]}")
        if code == 0 and "Exception ignored in" in command.output and "KeyboardInterrupt" in command.output:
            return found + DROPPED
        if "Traceback" in command.output:
            raise Violation(f"{command.arguments}: a traceback after Ctrl-C: {command.output[-500:]}")
        if unfinished(folder):
            raise Violation(f"{command.arguments}: a temporary file is left after Ctrl-C")
    elif code not in (0, -signal.SIGKILL):
        raise Violation(f"{command.arguments}: exit code {code} before kill -9: {command.output[-500:]}")
    elif unfinished(folder):
        found += ", temporary file left"
    return found if code != 0 else found + TOO_LATE


def write_in_place() -> None:
    """Break the promise in this process: results are written where the old ones stand. The trials
    must see it."""
    original = output.replacing

    @contextmanager
    def in_place(path: str | os.PathLike[str]) -> Iterator[Path]:
        begun = Path(path).with_name(f".{Path(path).name}.part")
        Path(path).write_bytes(b"")  # as opening it for writing does
        begun.touch()  # which the trials wait for
        yield Path(path)
        begun.unlink()

    for module in list(sys.modules.values()):
        if getattr(module, "replacing", None) is original:
            module.replacing = in_place


def duration(scene: Scene, folder: Path) -> float:
    """Seconds that the command takes when nobody interrupts it."""
    if scene.seconds is not None:
        return scene.seconds
    scene.prepare(folder)
    return _seconds_of(Command(scene.arguments(folder), folder, scene.before), "cannot do it without interrupts")


def train_scene(folder: Path, backend: str) -> Scene:
    """Training whose model takes some megabytes."""
    from gpusvm import load_model

    _import(backend)
    images = _write_images(folder)

    def prepare(place: Path) -> None:
        for name in ("m.svm", "m.json"):
            (place / name).write_bytes(OLD)

    def check(place: Path) -> str:
        model_is_old = (place / "m.svm").read_bytes() == OLD
        if not model_is_old and load_model(place / "m.svm").n_support_vectors < 300:
            raise Violation("the model lacks support vectors")
        if (place / "m.json").read_bytes() != OLD:
            json.loads((place / "m.json").read_text())
            if model_is_old:
                raise Violation("metrics of a model that was not written")
        return "old" if model_is_old else "new"

    command = [
        "train",
        images,
        "--backend",
        backend,
        "--gamma",
        0.1,
        "--out",
        "m.svm",
        "--json",
        "m.json",
    ]
    return Scene(lambda _: command, prepare, check)


def _write_images(folder: Path, n_classes: int = 2) -> Path:
    """Noise, of which every sample becomes a support vector."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (800, 28, 28), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(800) % n_classes)
    return folder / "images.npz"


def checkpoint_scene(folder: Path, backend: str) -> Scene:
    """A training that goes on from its checkpoint again and again, to the model of one that nobody
    interrupted."""
    from gpusvm import load_model

    _import(backend)
    command = ["train", _write_images(folder, 8), "--backend", backend, "--gamma", 0.1, "--out"]
    train = Command([*command, folder / "whole.svm"], folder)
    seconds = _seconds_of(train, "cannot make the model to compare with")
    whole = load_model(folder / "whole.svm")

    def prepare(place: Path) -> None:
        if (place / "m.svm").exists():
            (place / "m.svm").unlink()
            (place / "pairs").unlink(missing_ok=True)

    def check(place: Path) -> str:
        if not (place / "m.svm").exists():
            return "pairs kept" if (place / "pairs").exists() else "nothing yet"
        found = load_model(place / "m.svm")
        for name in ("support_vectors", "support_indices", "dual_coef", "intercept", "n_iter"):
            if not np.array_equal(getattr(found, name), getattr(whole, name)):
                raise Violation(f"{name} is not that of a training without interrupts")
        return "the same model"

    return Scene(lambda _: [*command, "m.svm", "--checkpoint", "pairs"], prepare, check, seconds=seconds)


def export_scene(folder: Path, target: str) -> Scene:
    """An export, whose bytes are known from one that nobody interrupted."""
    model, suffix = folder / "m.svm", {"sklearn": "joblib", "onnx": "onnx"}[target]
    _import(suffix)
    options: list[object] = ["--to", target, "--out", f"m.{suffix}"]
    train = Command(["train", _write_images(folder), "--backend", "sklearn", "--gamma", 0.1, "--out", model], folder)
    _seconds_of(train, "cannot make the model to export")
    seconds = _seconds_of(Command(["export", model, *options], folder), "cannot export it")
    new = (folder / f"m.{suffix}").read_bytes()

    def check(place: Path) -> str:
        found = (place / f"m.{suffix}").read_bytes()
        if found not in (OLD, new):
            raise Violation(f"m.{suffix} is neither the old file nor the new one ({len(found)} bytes)")
        return "old" if found == OLD else "new"

    def prepare(place: Path) -> None:
        (place / f"m.{suffix}").write_bytes(OLD)

    return Scene(lambda _: ["export", model, *options], prepare, check, seconds=seconds)


def fetch_scene(folder: Path) -> Scene:
    """A download of four files from a slow server in a process of its own, over damaged copies of
    them."""
    _import("fetch")
    rng = np.random.default_rng(0)
    arrays = (
        rng.integers(0, 256, (2000, 28, 28)),
        np.arange(2000) % 10,
        rng.integers(0, 256, (500, 28, 28)),
        np.arange(500) % 10,
    )
    entry, sent = CATALOGUE["mnist"], {}
    files = []
    for file, array in zip(entry.files, arrays, strict=True):
        idx.write(folder / file.name, array)
        content = (folder / file.name).read_bytes()
        (folder / file.name).unlink()
        sent[f"{file.name}.gz"] = gzip.compress(content, mtime=0)
        files.append(catalogue.CatalogueFile(file.name, "sha256:" + hashlib.sha256(content).hexdigest(), len(content)))
    address = _serve(sent)
    small = replace(entry, files=tuple(files), mirrors=(address,))

    def before() -> None:
        os.environ["NO_PROXY"] = "*"
        CATALOGUE["mnist"] = small

    def prepare(place: Path) -> None:
        (place / "mnist").mkdir(exist_ok=True)
        for name in sent:
            (place / "mnist" / name).write_bytes(OLD)

    def check(place: Path) -> str:
        states = set()
        for name, content in sent.items():
            found = (place / "mnist" / name).read_bytes()
            if found not in (OLD, content):
                raise Violation(f"{name} is neither the old file nor the new one")
            states.add("old" if found == OLD else "new")
        return "some new" if len(states) == 2 else states.pop()

    return Scene(lambda place: ["data", "fetch", "mnist", "--data-dir", place], prepare, check, before)


def _serve(files: dict[str, bytes]) -> str:
    """Start a server that ends with this process; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files[self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), 1 << 16):
                time.sleep(0.002)
                self.wfile.write(content[start : start + (1 << 16)])

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    parent = os.getpid()
    server_process = os.fork()
    if server_process == 0:
        server.timeout = 0.5
        while os.getppid() == parent:
            server.handle_request()
        os._exit(0)
    # It would hold our output open until it has seen that we ended.
    atexit.register(os.kill, server_process, signal.SIGKILL)
    return f"http://127.0.0.1:{server.server_address[1]}/"


SUITE = """
name = "small"
dataset = "digits"
sizes = [100]
n_test = 50
backends = ["sklearn"]
peers = ["knn"]
repeats = 3
warmup = 50
[[cases]]
kernel = "rbf"
"""


def bench_scene(folder: Path) -> Scene:
    """A run of six measurements, begun or resumed; no row that was there is lost."""
    _import("bench")
    from gpusvm.bench.record import load_record

    (folder / "small.toml").write_text(SUITE)
    rows: list[dict] = []

    def records(place: Path) -> list[Path]:
        return sorted(place.glob("small-*.json"))

    def prepare(place: Path) -> None:
        rows.clear()
        for path in records(place):
            record = load_record(path)
            if record.finished:
                path.unlink()
                path.with_suffix(".md").unlink(missing_ok=True)
            else:
                rows.extend(record.measurements)

    def arguments(place: Path) -> list[object]:
        unended = records(place)
        return ["bench", "--resume", unended[0]] if unended else ["bench", folder / "small.toml", "--out", place]

    def check(place: Path) -> str:
        if not records(place):
            return "nothing yet"
        (path,) = records(place)
        record = load_record(path)
        if record.measurements[: len(rows)] != rows:
            raise Violation(f"rows were lost: {len(rows)} before, {len(record.measurements)} after")
        if any(row["status"] != "ok" for row in record.measurements[len(rows) :]):
            raise Violation(f"a row is not ok: {record.measurements[-1]}")
        _check_tables(record, path.with_suffix(".md"))
        return "finished" if record.finished else "resumed" if rows else "rows kept"

    return Scene(arguments, prepare, check, seconds=6.0)


def _check_tables(record: Record, path: Path) -> None:
    """The Markdown beside the JSON is written after it: it shows this state or one before."""
    from gpusvm.bench.result_tables import to_markdown

    if not path.exists():
        return
    n = len(record.measurements)
    states = [
        replace(record, measurements=record.measurements[:k], finished=finished)
        for k in range(n, -1, -1)
        for finished in {record.finished, None}
    ]
    if path.read_text() not in [to_markdown(state.to_dict()) for state in states]:
        raise Violation(f"{path.name} is not whole")


SCENES: dict[str, Callable[[Path], Scene]] = {
    "train, sklearn": partial(train_scene, backend="sklearn"),
    "train, native-cpu": partial(train_scene, backend="native-cpu"),
    "checkpoint, sklearn": partial(checkpoint_scene, backend="sklearn"),
    "checkpoint, native-cpu": partial(checkpoint_scene, backend="native-cpu"),
    "fetch": fetch_scene,
    "export, sklearn": partial(export_scene, target="sklearn"),
    "export, onnx": partial(export_scene, target="onnx"),
    "bench": bench_scene,
}
