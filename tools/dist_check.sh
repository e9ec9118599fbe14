#!/usr/bin/env bash
# Build the sdist, and from it the wheel; install the wheel where nothing else is; run it there. What passed is left in
# FOLDER: tools/dist_check.sh PYTHON [FOLDER]
set -euo pipefail
python=${1:-python3}
kept=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m build --outdir "$folder/dist" .
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$folder"/dist/*.whl
(
  cd "$folder"
  env -u PYTHONPATH GPUSVM_CACHE_DIR="$folder/cache" venv/bin/gpusvm info
  env -u PYTHONPATH GPUSVM_CACHE_DIR="$folder/cache" venv/bin/gpusvm train digits --out digits.svm
)
if [ -n "$kept" ]; then
  mkdir -p "$kept"
  cp "$folder"/dist/* "$kept"
fi
