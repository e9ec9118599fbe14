"""A few of each fault; ``make faults`` takes many."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("needs /proc and resource limits", allow_module_level=True)

import interruption

SCENES = ["train, native-cpu", "checkpoint, native-cpu", "fetch", "export, onnx", "bench"]


KINDS = ["little memory", "limited files", "full disk, resumable", "own places"]


def make_faults(seed: int, *arguments: str) -> list[str]:
    """Lines that `run.py` prints; the last tells how often a promise was not kept."""
    # In a process of its own: forks of this one, which may have threads, could hang.
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), "--seed", str(seed), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith(" violations\n"), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def found(seed):
    """What was found of every fault: one process makes all, and imports what they need once."""
    return make_faults(seed, "--trials", "2", "--left-mb", "60", *KINDS, *SCENES)


class Lasting:
    """A command that takes a second, without the wait."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds = min(seconds, 1.0)

    def is_over(self) -> bool:
        return self.seconds >= 1.0


@pytest.mark.parametrize("estimate", [0.01, 1.0, 100.0])
def test_interrupts_come_in_time_whatever_the_first_run_took(estimate):
    chance, moment, ends = random.Random(0), interruption.Moment(estimate), []
    for _ in range(300):
        command = Lasting()
        moment.wait(command, chance)
        ends.append(command.seconds)
    in_time = [seconds for seconds in ends[100:] if seconds < 1]
    assert len(in_time) > 140
    assert min(in_time) < 0.1
    assert max(in_time) > 0.9
    assert sum(seconds < 1 for seconds in ends[:60]) >= 3  # the fewest trials asked for, in their most attempts


@pytest.mark.parametrize("scene", SCENES)
def test_interrupted_commands_leave_the_old_file_or_the_new_one(found, scene):
    """A benchmark its rows; and what was asked for was tried."""
    lines = [line for line in found if line.startswith(f"{scene}, ")]
    assert len(lines) == 2, lines
    assert not any("VIOLATION" in line for line in lines), lines


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("little memory", "2 runs: 2 refused: not enough memory"),
        ("limited files", "1 runs: 1 refused: cannot write"),
        ("full disk, resumable", "3 runs: 3 refused: cannot write"),
        ("own places", "1 runs: 1 done"),
    ],
)
def test_what_is_not_there_is_one_line_and_what_stood_there_stays(found, kind, outcomes):
    assert f"{kind}: {outcomes}" in found


def test_writing_in_place_would_be_seen(seed):
    found = make_faults(seed, "--trials", "5", "--write-in-place", "fetch")
    assert found[-1] != "0 violations"
    assert "is neither the old file nor the new one" in "".join(found)
