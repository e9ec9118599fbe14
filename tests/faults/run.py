"""Faults on purpose, counted: ``python tests/faults/run.py [--trials N] [--seed N] [KIND ...]``.

Prints a line for each kind of fault, and ends with 1 if a promise of docs/reliability.md was not kept.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import interruption
import resources

SIGNALS = {"kill -9": signal.SIGKILL, "Ctrl-C": signal.SIGINT}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join((*interruption.SCENES, *resources.KINDS))}")
    parser.add_argument("--trials", type=int, default=50, help="interrupts of each command with each signal")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.trials} trials of each interruption", flush=True)
    n_violations = 0
    with tempfile.TemporaryDirectory(prefix="gpusvm-faults-") as folder:
        for name, make in interruption.SCENES.items():
            if not options.kinds or name in options.kinds:
                n_violations += _interrupt(name, make, Path(folder), options.trials, options.seed)
        for name, run in resources.KINDS.items():
            if not options.kinds or name in options.kinds:
                n_violations += _report(name, run(_made(Path(folder) / name)))
    print(f"{n_violations} violations")
    return int(n_violations > 0)


def _interrupt(name: str, make, folder: Path, trials: int, seed: int) -> int:
    scene = make(_made(folder / f"{name}, material"))
    full_seconds = interruption.duration(scene, _made(folder / f"{name}, whole"))
    n_violations = 0
    for label, number in SIGNALS.items():
        chance = random.Random(f"{seed} {name} {label}")
        place, found, start = _made(folder / f"{name}, {label}"), [], time.monotonic()
        for _ in range(trials):
            try:
                found.append(interruption.interrupt(scene, place, number, chance, full_seconds))
            except Exception as error:
                found.append(f"VIOLATION {type(error).__name__}: {error}")
        n_violations += _report(f"{name}, {label}", found, time.monotonic() - start)
    return n_violations


def _report(name: str, found: list[str], seconds: float | None = None) -> int:
    """Print how often each outcome came; the number of violations among them."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(Counter(found).items()))
    print(f"{name}: {len(found)} runs{'' if seconds is None else f' in {seconds:.0f} s'}: {counts}", flush=True)
    return sum("VIOLATION" in outcome for outcome in found)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
