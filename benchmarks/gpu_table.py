"""What benchmarks/on_gpu.sh found on full MNIST: each part's figures, and whether they agree.

    python benchmarks/gpu_table.py OUT

Reads what gpu_fits.py left in OUT (``fits-PART.json``), prints the table and writes OUT/gpu.json.
Ends with status 1 where a part of `REQUIRED` is not there, or where figures are out of the bounds
of agreement.py.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from agreement import OBJECTIVE, faults

REQUIRED = ("native-cuda", "native-cuda-device", "cuml", "cuml-pool", "cuml-own", "native-cuda-after-cuml")

LEAST_AGREEMENT = 0.9995
"""Of the labels of test samples with those of native-cuda, a part whose gap is certified."""


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The parts that ran, in the order of `REQUIRED` and then others."""
    found = {}
    for path in sorted(folder.glob("fits-*.json")):
        part = json.loads(path.read_text())
        found[part["part"]] = part
    return {name: found[name] for name in [*REQUIRED, *sorted(set(found) - set(REQUIRED))] if name in found}


def wrong(part: dict[str, Any], reference: dict[str, Any] | None) -> list[str]:
    """What is out of bounds in a part, against the known results and native-cuda's labels."""
    found = []
    if part["certificate"] is not None and part["n_train"] == 60_000:
        found += faults({**part, "fit_seconds": {"median": 1.0}}, OBJECTIVE)
    if reference is not None and part["certificate"] is not None:
        alike = [a == b for a, b in zip(part["labels"], reference["labels"], strict=True)]
        if statistics.mean(alike) < LEAST_AGREEMENT:
            found.append(f"{len(alike) - sum(alike)} labels differ from native-cuda's")
    return found


def line(part: dict[str, Any], baseline: float | None) -> str:
    """A row of the table, as Markdown."""
    fit, predict = (statistics.median(part[name]) for name in ("fit_seconds", "predict_seconds"))
    certificate = part["certificate"]
    cells = [
        part["what"],
        f"{fit:.3f} ({min(part['fit_seconds']):.3f} to {max(part['fit_seconds']):.3f})",
        f"{predict:.3f}",
        f"{part['accuracy']:.4f}",
        "-" if certificate is None else f"{certificate['kkt_gap']:.1e}",
        "-" if certificate is None else f"{certificate['dual_objective']:.3f}",
        "-" if part["peak_gpu_mb"] is None else f"{part['peak_gpu_mb']:.0f}",
        "-" if baseline is None else f"{baseline / fit:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| | fit s, median (all) | predict s | accuracy | gap | dual objective | GPU MB | times cuML |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main(folder: Path) -> int:
    parts = read(folder)
    reference = parts.get("native-cuda")
    status = 0
    for name in REQUIRED:
        if name not in parts:
            print(f"{name}: did not run; see {folder / f'fits-{name}.log'}")
            status = 1
    for name, part in parts.items():
        part["wrong"] = wrong(part, reference)
        status |= bool(part["wrong"])
        print(f"{name}: {'; '.join(part['wrong']) or 'within bounds'}")
    machine = next((part["machine"] for part in parts.values()), None)
    kept = {name: {k: v for k, v in part.items() if k not in ("labels", "machine")} for name, part in parts.items()}
    together = {"machine": machine, "parts": kept}
    if (folder / "search.json").exists():
        together["search"] = json.loads((folder / "search.json").read_text())
        status |= bool(together["search"]["wrong"])
    (folder / "gpu.json").write_text(json.dumps(together, indent=1, allow_nan=False))
    through_our_loop = parts.get("cuml")
    baseline = None if through_our_loop is None else statistics.median(through_our_loop["fit_seconds"])
    print(f"\n{(machine or {}).get('gpu', {}).get('reason', 'no machine')}\n\n{HEAD}")
    for part in parts.values():
        print(line(part, baseline))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
