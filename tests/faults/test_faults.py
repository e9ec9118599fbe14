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
import resources

SCENES = ["train, native-cpu", "checkpoint, native-cpu", "fetch", "export, onnx"]


@pytest.fixture
def run(seed):
    """The function that runs such faults, which ends with what they printed: the seed first."""

    def run_script(*arguments: str, expected: int = 0) -> str:
        # In a process of its own: forks of this one, which may have threads, could hang.
        script = Path(__file__).with_name("run.py")
        command = [sys.executable, str(script), "--seed", str(seed), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout

    return run_script


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


def test_interrupted_commands_leave_the_old_file_or_the_new_one(run):
    run("--trials", "2", *SCENES)


def test_writing_in_place_would_be_seen(run):
    found = run("--trials", "10", "--write-in-place", "fetch", expected=1)
    assert "is neither the old file nor the new one" in found


def test_an_interrupted_benchmark_keeps_its_rows(run):
    run("--trials", "2", "bench")


def test_little_memory_is_one_line(tmp_path):
    found = resources.little_memory(tmp_path, (60,))
    assert found == ["refused: not enough memory"] * 2


def test_a_file_too_large_leaves_the_old_one(tmp_path):
    assert resources.limited_files(tmp_path) == ["refused: cannot write"]


def test_a_full_disk_stops_a_download_a_benchmark_and_a_checkpoint(run):
    assert "0 violations" in run("full disk, resumable")


def test_nothing_is_written_but_outputs_and_caches(tmp_path):
    assert resources.own_places(tmp_path) == ["done"] * 3
