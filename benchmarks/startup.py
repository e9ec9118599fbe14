"""Times what should answer at once, each in a fresh process.

    python benchmarks/startup.py [--repeats N]

`--help`, `--version` and `data list` are to take less than 0.4 s, the help of a command less than
0.6 s, and each import from gpusvm at most 0.2 s more than its peer from scikit-learn.

A peer does the least that ours must do, and is timed in turn with it: starting Python, importing
scikit-learn's SVMs, unpacking the same files, reading the same CSV with pandas.
"""

from __future__ import annotations

import argparse
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from gpusvm.data import find_local
from gpusvm.jobs import effective_jobs

IMPORTS = "import sklearn.svm"
GUNZIP = IMPORTS + "; import gzip, pathlib, numpy; [numpy.frombuffer(gzip.open(p).read(), 'u1') for p in {files}]"
N_CSV_ROWS = 10_000


def rows(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """For each row of the table: arguments to Python, and those of the peer."""

    def code(text: str) -> list[str]:
        return ["-c", text]

    def command(*arguments: str) -> list[str]:
        return ["-m", "gpusvm.cli.main", *arguments]

    found = {
        "import gpusvm": (code("import gpusvm"), code("import sklearn")),
        "from gpusvm import SVC": (code("from gpusvm import SVC"), code("from sklearn.svm import SVC")),
        "gpusvm --version": (command("--version"), code("pass")),
        "gpusvm --help": (command("--help"), code("pass")),
        "gpusvm train --help": (command("train", "--help"), code("pass")),
        "gpusvm data list": (command("data", "list"), code("pass")),
        "gpusvm info": (command("info"), code(IMPORTS)),
        f"read a CSV of {N_CSV_ROWS:,} x 784": (
            code(f"from gpusvm.data import csv; from pathlib import Path; csv.read(Path({write_csv(folder)!r}))"),
            code(f"{IMPORTS}; import pandas; pandas.read_csv({write_csv(folder)!r})"),
        ),
    }
    if (mnist := find_local("mnist")) is None:
        print("MNIST is not on this machine: its row is left out", file=sys.stderr)
        return found
    files = [str(path) for path in mnist.glob("train-*.gz")]
    read = code("from gpusvm.data import load_dataset; load_dataset('mnist')")
    return {**found, "read MNIST's 60,000 images": (read, code(GUNZIP.format(files=files)))}


def write_csv(folder: Path) -> str:
    path = folder / "kaggle.csv"
    if not path.exists():
        images = np.random.default_rng(0).integers(0, 256, (N_CSV_ROWS, 784))
        header = ",".join(["label", *(f"pixel{k}" for k in range(784))])
        table = np.column_stack([np.arange(N_CSV_ROWS) % 10, images])
        np.savetxt(path, table, fmt="%d", delimiter=",", header=header, comments="")
    return str(path)


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def seconds_after_ctrl_c(backend: str) -> float:
    """From Ctrl-C, a second into the training of 20,000 images, to the end of the command."""
    arguments = ["-u", "-m", "gpusvm.cli.main", "train", "mnist", "--limit", "20000", "--backend", backend]
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while not process.stdout.readline().startswith(b"Backend:"):
            pass
        time.sleep(1)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        if process.wait() != 130:
            raise SystemExit(f"{backend}: the training was over before Ctrl-C")
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(f"Python {platform.python_version()}, {effective_jobs(None)} cores, median of {repeats}, seconds\n")
    print("| what | gpusvm | peer | difference |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for name, (ours, peer) in rows(Path(folder)).items():
            times = [(seconds(ours), seconds(peer)) for _ in range(repeats + 1)][1:]  # the first fills the disk's cache
            mine, theirs = (median(column) for column in zip(*times, strict=True))
            more = median(one - other for one, other in times)  # of two that ran in turn, whatever else ran beside
            print(f"| {name} | {mine:.2f} | {theirs:.2f} | {more:.2f} |", flush=True)
    for backend in ("sklearn", "native-cpu") if find_local("mnist") else ():
        after = median(seconds_after_ctrl_c(backend) for _ in range(repeats))
        print(f"| end of a training after Ctrl-C, {backend} | {after:.2f} | | |", flush=True)


if __name__ == "__main__":
    main()
