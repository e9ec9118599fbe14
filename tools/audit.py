"""Whether an installed package has a published vulnerability, by pip-audit.

Exits with 1 for a vulnerability. Where the advisories cannot be reached nothing is known, which is
said in plain words and is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    ran = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        reason = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        print(f"pip-audit: NOT AUDITED: it could not reach its source ({reason:.200})")
        return 0
    audited = [package for package in packages if "skip_reason" not in package]
    skipped = Counter(package["skip_reason"].partition(":")[0] for package in packages if "skip_reason" in package)
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        names = ", ".join(found["id"] for found in package["vulns"])
        print(f"pip-audit: {package['name']} {package['version']}: {names}")
    print(f"pip-audit: {len(audited) or 'NO'} packages audited, {len(vulnerable)} with a published vulnerability")
    for reason, count in skipped.items():
        print(f"pip-audit: {count} NOT AUDITED: {reason}")
    return int(bool(vulnerable))


if __name__ == "__main__":
    sys.exit(main())
