"""Suites of the benchmark: TOML that is no TOML, and values that are none of a suite's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutation import EXTREMES, mutate
from gpusvm.bench.suite_file import load_suite

_SEEDS = (
    files("gpusvm.bench").joinpath("suites/quick.toml").read_text(encoding="utf-8"),
    'name = "small"\ndataset = "digits"\nsizes = [300, 600]\nbackends = ["sklearn"]\npeers = ["knn"]\nseed = 3\n'
    '[[cases]]\nkernel = "rbf"\nC = 10\ngamma = 0.02\n[overrides.knn]\nrepeats = 1\n',
    'name = "own"\nbackends = ["sklearn"]\npeers = ["knn"]\nreference = "best-peer"\nleast_timed_s = 0.1\n'
    '[[cases]]\ndataset = "t"\nsizes = [60]\nn_test = 20\nonce = ["knn"]\ntest_on_training = true\n'
    '[tables.t]\nsource = "make_blobs"\nn_samples = 60\nn_features = 2\ncenter_box = [-1, 1]\nrandom_state = 0\n',
)
_VALUES = (
    '""', '"x"', "'../x'", '"a\\nb"', '"\\u001b"', "[]", "[[]]", "{}", "{a = 1}", "true", "nan", "-inf",
    "1e400", "0.5", "1979-05-27", "07:32:00", '["sklearn", "sklearn"]', '["knn", 1]', "[1, 2.5]", "[2, 2]",
    '"""x\n"""', "0x" + "f" * 5000, "9" * 5000, "0o7", "1_000", "[" * 500 + "]" * 500, "{a = " * 200 + "1" + "}"
    * 200, '"' + "x" * 5000 + '"', *map(str, EXTREMES),
)  # fmt: skip
_KEYS = (
    "name", "sizes", "cases", "overrides", "backends", "C", "gamma", "degree", "test_dataset", "x", '"a\\nb"',
    '""', "name.a", "cases.a", "overrides.knn.repeats", "overrides.sklearn", "title" + ".a" * 100,
    ".".join(f"k{i}" for i in range(600)),
)  # fmt: skip
_TABLES = (
    "[cases]", "[[cases]]", "[overrides]", "[overrides.knn]", '[overrides."a\\nb"]', "[[overrides.knn]]",
    "[a.b.c]", "[[", "[]",
)  # fmt: skip


def generate(rng: Random) -> tuple[str, bytes]:
    lines = rng.choice(_SEEDS).split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        kind = rng.random()
        if kind < 0.5 and "=" in lines[place]:
            lines[place] = f"{lines[place].partition('=')[0]}= {rng.choice(_VALUES)}"
        elif kind < 0.6:
            del lines[place]
            lines.append("")
        elif kind < 0.7:
            lines.insert(place, rng.choice(lines))
        elif kind < 0.8:
            lines.insert(place, rng.choice(_TABLES))
        else:
            lines.insert(place, f"{rng.choice(_KEYS)} = {rng.choice(_VALUES)}")
    content = "\n".join(lines).encode()
    return "suite.toml", mutate(rng, content) if rng.random() < 0.3 else content


def read(path: Path) -> Any:
    return load_suite(path)


def use(result: Any) -> None:
    assert result.contenders and result.cases
