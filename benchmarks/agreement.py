"""Do the backends of a recorded run on full MNIST agree, and within the bounds of the CPU solver?

    python benchmarks/agreement.py RESULT.json

Prints a line for each contender and case. Ends with status 1 where one did not run, or where
accuracy, support vectors, KKT gap, dual objective or device memory are out of bounds. The bounds
are those of RBF, C=10, gamma=0.02.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LARGEST_GPU_MB = 30 * 1024

OBJECTIVE = 13134.796
"""LIBSVM's dual objective."""


def faults(row: dict[str, Any], objective: float) -> list[str]:
    """What is wrong with a row, against the dual objective of LIBSVM."""
    if row["fit_seconds"] is None:
        return [f"did not run: {row['reason']}"]
    found = []
    if not 0.9852 <= row["accuracy"] <= 0.9854:
        found.append(f"accuracy {row['accuracy']}")
    if abs(row["n_support_vectors"] - 13_370) > 20:
        found.append(f"{row['n_support_vectors']} support vectors")
    if row["certificate"]["kkt_gap"] > 2e-3:
        found.append(f"gap {row['certificate']['kkt_gap']:.1e}")
    if abs(row["certificate"]["dual_objective"] / objective - 1) > 1e-4:
        found.append(f"dual objective {row['certificate']['dual_objective']}")
    if (row["peak_gpu_mb"] or 0) > LARGEST_GPU_MB:
        found.append(f"{row['peak_gpu_mb']:.0f} MB of device memory")
    return found


def main() -> None:
    rows = json.loads(Path(sys.argv[1]).read_text())["rows"]
    wrong = 0
    for row in rows:
        if row["fit_seconds"] and not row["certificate"]:
            continue  # no SVM
        found = faults(row, OBJECTIVE)
        wrong += bool(found)
        if row["fit_seconds"]:
            print(
                f"{row['contender']}: fit {row['fit_seconds']['median']:.3f} s, "
                f"predict {row['predict_seconds']['median']:.3f} s, accuracy {row['accuracy']:.4f}, "
                f"{row['n_support_vectors']} support vectors, gap {row['certificate']['kkt_gap']:.1e}, "
                f"objective {row['certificate']['dual_objective']:.3f}, GPU {row['peak_gpu_mb'] or 0:.0f} MB"
            )
        print(f"    {row['contender']}: {'; '.join(found) or 'within bounds'}")
    seconds = {row["contender"]: row["fit_seconds"]["median"] for row in rows if row["fit_seconds"]}
    if {"native-cuda", "cuml"} <= seconds.keys():
        print(f"native-cuda fits {seconds['cuml'] / seconds['native-cuda']:.1f} times as fast as cuml")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
