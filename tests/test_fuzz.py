"""Hostile inputs: a sample of what `make fuzz` runs, and that what runs it would see a defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz import examine as examination
from fuzz.examine import READERS, Defect, Reader, examine, generate

from gpusvm.errors import DataError

N_INPUTS = 400


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("reader", READERS)
def test_readers_accept_or_refuse_and_nothing_else(reader: str, tmp_path: Path, seed: int) -> None:
    n_accepted = 0
    for number in range(N_INPUTS):
        name, content = generate(reader, seed, number)
        path = tmp_path / name
        path.write_bytes(content)
        try:
            n_accepted += examine(reader, path)
        except Defect as defect:
            pytest.fail(f"input {number} of {reader}, seed {seed}: {defect}")
    assert 0 < n_accepted < N_INPUTS


def _raise(error: Exception) -> None:
    raise error


def _run_out_of_memory(path: Path) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise DataError(f"{path}: is too large") from error


def _never_end(_: object) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "use", "message"),
    [
        (lambda path: _raise(ValueError("broken")), None, "ValueError: broken"),
        (lambda path: _raise(DataError("somewhere")), None, "does not begin with the path"),
        (lambda path: _raise(DataError(f"{path}{'x' * 1000}")), None, "no line of text"),
        (_run_out_of_memory, None, "no memory left"),
        (lambda path: np.ones(100 * 2**17), lambda _: None, "took 1"),
        (lambda path: path, lambda _: _raise(KeyError("used")), "KeyError: 'used'"),
        (_never_end, None, "took longer than 0.1 s"),
    ],
)
def test_a_defect_is_seen(tmp_path, monkeypatch, read, use, message) -> None:
    monkeypatch.setitem(READERS, "broken", Reader(READERS["idx"].generate, read, use))
    if read is _never_end:
        monkeypatch.setattr(examination, "HANG_SECONDS", 0.1)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(Defect, match=message):
        examine("broken", tmp_path / "file")


def test_inputs_follow_from_their_seed() -> None:
    for reader in READERS:
        assert generate(reader, 1, 7) == generate(reader, 1, 7)
    assert generate("csv", 1, 7) != generate("csv", 2, 7)
