"""Faults on purpose, counted: ``python tests/faults/run.py [--trials N] [--seed N] [KIND ...]``.

Prints a line for each kind of fault, and ends with 1 if a promise of docs/reliability.md was not
kept.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import interruption
import resources
from commands import made

SIGNALS = {"kill -9": signal.SIGKILL, "Ctrl-C": signal.SIGINT}
MOST_ATTEMPTS = 20
"""For each trial: an interrupt that comes when the command has ended tests nothing, and is tried
again.

Enough that a slow first run, from which `interruption.Moment` has to find its limit, leaves time
for all trials."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join((*interruption.SCENES, *resources.KINDS))}")
    parser.add_argument("--trials", type=int, default=50, help="interrupts of each command with each signal")
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--left-mb", type=int, help="memory that is left, where it is little (default: many amounts)")
    parser.add_argument("--write-in-place", action="store_true", help="break a promise, to see that it is noticed")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.trials} trials of each interruption", flush=True)
    n_violations = 0
    with tempfile.TemporaryDirectory(prefix="gpusvm-faults-") as folder:
        # Resources first: what scenes have imported would take no memory of the commands.
        for name, run in _kinds(options).items():
            if not options.kinds or name in options.kinds:
                n_violations += _report(name, run(made(Path(folder) / name)))
        for name, make in interruption.SCENES.items():
            if not options.kinds or name in options.kinds:
                n_violations += _interrupt(name, make, Path(folder), options)
    print(f"{n_violations} violations")
    return int(n_violations > 0)


def _kinds(options: argparse.Namespace) -> dict[str, Callable[[Path], list[str]]]:
    if options.left_mb is None:
        return resources.KINDS
    return {**resources.KINDS, "little memory": partial(resources.little_memory, left_mb=(options.left_mb,))}


def _interrupt(name: str, make: Callable[[Path], interruption.Scene], folder: Path, options: argparse.Namespace) -> int:
    """Interrupt a command with each signal, as often as asked for before it has ended; the number
    of violations."""
    scene = make(made(folder / f"{name}, material"))
    full_seconds = interruption.duration(scene, made(folder / f"{name}, whole"))
    if options.write_in_place:
        scene = replace(scene, before=_both(scene.before, interruption.write_in_place))
    n_violations = 0
    for label, number in SIGNALS.items():
        chance = random.Random(f"{options.seed} {name} {label}")
        moments = interruption.Moments(full_seconds)
        place, found, start = made(folder / f"{name}, {label}"), [], time.monotonic()
        n_in_time = 0
        while n_in_time < options.trials and len(found) < MOST_ATTEMPTS * options.trials:
            try:
                found.append(interruption.interrupt(scene, place, number, chance, moments))
            except Exception as error:
                found.append(f"VIOLATION {type(error).__name__}: {error}")
            n_in_time += not found[-1].endswith((interruption.TOO_LATE, interruption.DROPPED))
        n_violations += _report(f"{name}, {label}", found, time.monotonic() - start)
        if n_in_time < options.trials:
            print(f"{name}, {label}: only {n_in_time} of {options.trials} interrupts came in time", flush=True)
            n_violations += 1
    return n_violations


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def _report(name: str, found: list[str], seconds: float | None = None) -> int:
    """Print how often each outcome came; the number of violations among them."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(Counter(found).items()))
    print(f"{name}: {len(found)} runs{'' if seconds is None else f' in {seconds:.0f} s'}: {counts}", flush=True)
    return sum("VIOLATION" in outcome for outcome in found)


if __name__ == "__main__":
    sys.exit(main())
