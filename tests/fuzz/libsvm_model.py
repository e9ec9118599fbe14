"""LIBSVM's text models: keys, counts, labels and features that svm-train would not write."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz.model_file import use as use_model
from fuzz.mutation import EXTREMES, mutate, splice
from gpusvm.io.libsvm import is_libsvm_model, read_libsvm_model, write_libsvm_model
from gpusvm.sparse import same_rows

_TWO = b"""svm_type c_svc
kernel_type rbf
gamma 0.25
nr_class 2
total_sv 3
rho 0.5
label 1 -1
probA -2
probB 0.5
nr_sv 2 1
SV
1 1:0.5 3:1 \n0.5 2:1 \n-1.5 1:-1 2:2 \n"""
_THREE = b"""svm_type nu_svc
kernel_type polynomial
degree 3
gamma 0.5
coef0 1
nr_class 3
total_sv 4
rho 0.25 -0.5 1e-3
label 3 1 2
nr_sv 2 1 1
SV
1 0 1:0.5 4:1 \n0.5 1 2:1 \n-1 0.25 1:-1 2:2 \n-1 -0.5 3:17 \n"""
_PRECOMPUTED = b"""svm_type c_svc
kernel_type precomputed
nr_class 2
total_sv 2
rho 0
label 0 1
nr_sv 1 1
SV
1 0:3 \n-1 0:7 \n"""
_REGRESSION = b"""svm_type epsilon_svr
kernel_type sigmoid
gamma 0.5
coef0 -1
nr_class 2
total_sv 2
rho -1.5
probA 0.25
SV
1 1:0.5 4:1 \n-0.5 2:1 \n"""
_ONE_CLASS = b"""svm_type one_class
kernel_type linear
nr_class 2
total_sv 2
rho 0.5
SV
1 1:0.5 \n0.5 2:1 \n"""
_SEEDS = (_TWO, _THREE, _PRECOMPUTED, _REGRESSION, _ONE_CLASS)
_WORDS = (
    b"", b"nan", b"inf", b"-inf", b"1e400", b"1e38", b"1e-400", b"0x10", b"1_0", b"1.5", b"-1", b"0", b"1", b"2",
    b"0:1", b"1:1", b"1:", b":1", b":", b"1:1:1", b"-1:1", b"16777216:1", b"2147483647:1", b"99999999999:1", b"1:nan",
    b"9" * 400, b"9" * 5000 + b":1", b"c_svc", b"one_class", b"epsilon_svr", b"linear", b"sigmoid", b"precomputed",
    b"rbf", b"SV", b"label", b"total_sv", b"nr_class", b"gamma", b"\xff", b"\x00", b"\xd9\xa3", b"\x1b[31m",
    *(b"%d" % value for value in EXTREMES),
)  # fmt: skip


def generate(rng: Random) -> tuple[str, bytes]:
    content = rng.choice(_SEEDS)
    if (kind := rng.random()) < 0.3:
        return "m.model", mutate(rng, content)
    if kind < 0.4:
        return "m.model", splice(rng, content, rng.choice(_SEEDS))
    lines = [line.split(b" ") for line in content.split(b"\n")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, lines)
    end = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r"))
    return "m.model", end.join(b" ".join(words) for words in lines)


def _change(rng: Random, lines: list[list[bytes]]) -> None:
    """A word replaced, added or taken out, or a line dropped, doubled or moved."""
    i = rng.randrange(len(lines))
    words, kind = lines[i], rng.random()
    if kind < 0.5:
        words[rng.randrange(len(words))] = rng.choice(_WORDS)
    elif kind < 0.65:
        words.insert(rng.randint(0, len(words)), rng.choice(_WORDS))
    elif kind < 0.75 and len(words) > 1:
        del words[rng.randrange(len(words))]
    elif kind < 0.85 and len(lines) > 1:
        lines.pop(i)
    else:
        lines.insert(rng.randrange(len(lines)), list(words))


def read(path: Path) -> Any:
    return read_libsvm_model(path)


def use(result: Any) -> None:
    """What other models are used for; and written, it is read again as the same."""
    use_model(result)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.model")
        write_libsvm_model(result, path)
        assert is_libsvm_model(path)
        again = read_libsvm_model(path, n_features=result.n_features)
    for name in ("classes", "dual_coef", "intercept", "n_support"):
        assert np.array_equal(getattr(again, name), getattr(result, name)), name
    assert same_rows(again.support_vectors, result.support_vectors)
    assert again.kernel == result.kernel or again.kernel.name in ("linear", "rbf", "sigmoid", "precomputed")
