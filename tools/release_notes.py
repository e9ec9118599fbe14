"""What changed in a version, and whether it can be released.

    python tools/release_notes.py v0.2.0 > notes.md

The tag, gpusvm/version.py, CITATION.cff and CHANGELOG.md must name the same version, and
CHANGELOG.md its day.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def written_version(file: str, pattern: str, root: Path = ROOT) -> str:
    """The version that a file of the project names, as the group of `pattern`, a line of it."""
    found = re.search(pattern, (root / file).read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{file} names no version")
    return found[1]


def versions(root: Path = ROOT) -> dict[str, str]:
    """What each file says the version is."""
    return {
        "gpusvm/version.py": written_version("gpusvm/version.py", r'^__version__ = "(.+)"$', root),
        "CITATION.cff": written_version("CITATION.cff", r"^version: (.+)$", root),
        "CHANGELOG.md": written_version("CHANGELOG.md", r"^## (\d\S*)", root),
    }


def changes(version: str, root: Path = ROOT) -> str:
    """The text under the version's heading in CHANGELOG.md.

    The heading has to bear a day, as `## 0.2.0 - 2026-12-01`.
    """
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    found = re.search(heading, text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f'CHANGELOG.md has no heading "## {version} - YEAR-MONTH-DAY"')
    return found[1].strip() + "\n"


def release_notes(tag: str, root: Path = ROOT) -> str:
    """The notes of the release that `tag` names.

    Ends the program in one line where something does not agree.
    """
    version = tag.removeprefix("v")
    for file, written in versions(root).items():
        if written != version:
            raise SystemExit(f"the tag is {tag}, but {file} says {written}")
    return changes(version, root)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.stdout.write(release_notes(sys.argv[1]))
