"""Run every reader on hostile inputs: `make fuzz`, or `PYTHONPATH=tests python -m fuzz --help`.

Inputs follow from the seed, the reader and their number. One that goes wrong is kept, with the
command that reads it again.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from fuzz.examine import READERS, Defect, examine, generate

ADDRESS_SPACE_BYTES = 4 << 30
MOST_DEFECTS = 10
"""Shown of one reader before the next one's turn."""


def main() -> int:
    options = _options()
    # What a reader allocates by mistake fails here, and does not take the machine with it.
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    warnings.simplefilter("ignore")
    if options.file:
        return _replay(options.reader, options.file)
    seed = time.time_ns() % 10**9 if options.seed is None else options.seed
    print(f"seed {seed}, {options.count:,} inputs a reader", flush=True)
    print(f"{'reader':10}{'inputs':>10}{'refused':>10}{'accepted':>10}{'seconds':>9}{'defects':>9}", flush=True)
    return int(sum(_run(reader, seed, options.start, options.count) for reader in options.reader or READERS) > 0)


def _run(reader: str, seed: int, start: int, count: int) -> int:
    """Examine `count` inputs, print a row of the table, and say how many were defects."""
    accepted = defects = done = 0
    began = time.perf_counter()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        for number in range(start, start + count):
            name, content = generate(reader, seed, number)
            path = Path(folder, name)
            path.write_bytes(content)
            done += 1
            try:
                accepted += examine(reader, path)
            except Defect as defect:
                defects += 1
                _keep(reader, seed, number, path, defect)
                if defects == MOST_DEFECTS:
                    break
    seconds = time.perf_counter() - began
    refused = done - accepted - defects
    print(f"{reader:10}{done:10,}{refused:10,}{accepted:10,}{seconds:9.0f}{defects:9,}", flush=True)
    return defects


def _keep(reader: str, seed: int, number: int, path: Path, defect: Defect) -> None:
    kept = Path("fuzz-defects", f"{reader}-{seed}-{number}", path.name)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, kept)
    print(f"{reader}, input {number}: {defect}", file=sys.stderr)
    print(f"again: PYTHONPATH=tests {sys.executable} -m fuzz --reader {reader} --file {kept}", file=sys.stderr)


def _replay(readers: list[str] | None, file: Path) -> int:
    if not readers:
        raise SystemExit("--file needs --reader")
    try:
        print("accepted" if examine(readers[0], file) else "refused")
    except Defect as defect:
        print(defect)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="Run every reader on hostile inputs.")
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one; may be repeated")
    parser.add_argument("--count", type=int, default=200_000, help="inputs a reader (200,000)")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, help="by default a new one, which is printed")
    parser.add_argument("--file", type=Path, help="read this file with --reader instead")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
