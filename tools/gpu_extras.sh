#!/usr/bin/env bash
# Resolve, install and import the extras cuda12 and cuda13, each in an environment of its own: tools/gpu_extras.sh PYTHON
# No GPU is needed; 5 GB of disk are, for a while.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# From a copy: building leaves files where it is done.
mkdir "$folder/source"
cp -r gpusvm pyproject.toml MANIFEST.in README.md LICENSE "$folder/source"
for extra in cuda13 cuda12; do
    "$python" -m venv "$folder/$extra"
    "$folder/$extra/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$folder/source[$extra]"
    "$folder/$extra/bin/python" -m pip check
    "$folder/$extra/bin/python" -P tools/gpu_extras.py "$extra"
    rm -rf "${folder:?}/$extra"
done
