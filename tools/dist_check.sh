#!/usr/bin/env bash
# Build the sdist, and from it the wheel; install the wheel where nothing else is; run it there.
set -euo pipefail
python=${1:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m build --outdir "$folder/dist" .
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$folder"/dist/*.whl
cd "$folder"
env -u PYTHONPATH GPUSVM_CACHE_DIR="$folder/cache" venv/bin/gpusvm info
env -u PYTHONPATH GPUSVM_CACHE_DIR="$folder/cache" venv/bin/gpusvm train digits --out digits.svm
