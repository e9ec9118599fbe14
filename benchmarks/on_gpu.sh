#!/usr/bin/env bash
# On a machine with a CUDA GPU: the tests that need one, then full MNIST over the GPU's backends, then what came out.
#
#     bash benchmarks/on_gpu.sh OUT
#
# Needs Python with gpusvm's packages (CuPy, numba-cuda, cuML), pytest and Hypothesis, the four MNIST files in
# GPUSVM_DATA_DIR, and no network. Leaves test logs and the suite's JSON and Markdown in OUT. Ends with status 1 where
# a test fails, a backend cannot run, or backends disagree. Each part has its time limit: eight minutes in all.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bash benchmarks/on_gpu.sh OUT}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0

$python -m gpusvm.cli.main info --json > "$out/info.json" || failed=1

echo "== tests that need a GPU"
# Named, since collecting the others takes packages that such a machine need not have.
tests=$(grep -rl --include='test_*.py' 'mark\.gpu' tests)
timeout 150 $python -m pytest -q -m gpu -p no:cacheprovider $tests > "$out/gpu-tests.log" 2>&1 || failed=1
tail -n 15 "$out/gpu-tests.log"

echo "== full MNIST"
timeout 270 $python -m gpusvm.cli.main bench benchmarks/gpu.toml --timeout 120 --out "$out" > "$out/bench.log" 2>&1 \
    || failed=1
tail -n 5 "$out/bench.log"

echo "== where native-cuda spends its time"
timeout 50 $python benchmarks/profile_gpu.py > "$out/profile.log" 2>&1 || failed=1
tail -n 15 "$out/profile.log"

echo "== agreement"
$python benchmarks/agreement.py "$(ls -t "$out"/gpu-*.json | head -n 1)" || failed=1
exit $failed
