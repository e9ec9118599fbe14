#!/usr/bin/env bash
# On a machine with a CUDA GPU: what works, the tests that need one, full MNIST and ordinary problems over the GPU's
# backends, and last what came out, as a table.
#
#     bash benchmarks/on_gpu.sh OUT
#
# Needs Python with gpusvm's packages (CuPy and cuML), pytest and Hypothesis, the four MNIST files in GPUSVM_DATA_DIR,
# and no network. Leaves logs and JSON in OUT, all of it together in OUT/gpu.json. Ends with status 1 where a test
# fails, a part cannot run, or backends disagree. Each part has its time limit; no part begins after eight minutes.
# native-cuda goes first: what fails in cuML then takes nothing from it.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: bash benchmarks/on_gpu.sh OUT}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
fits=(--dataset "${GPU_DATASET:-mnist}" --limit "${GPU_LIMIT:-60000}" --warmup "${GPU_WARMUP:-3000}")
limit=${GPU_SECONDS:-470}
failed=0

# run SECONDS NAME COMMAND...: into OUT/NAME.log, for so long, or for what is left of the eight minutes.
run() {
    local left=$((limit - SECONDS)) seconds=$1 name=$2
    shift 2
    if ((left < 5)); then
        echo "== $name: no time left" | tee "$out/$name.log"
        failed=1
        return
    fi
    echo "== $name"
    timeout $((seconds < left ? seconds : left)) "$@" > "$out/$name.log" 2>&1 || { failed=1; echo "failed"; }
    tail -n "${lines:-3}" "$out/$name.log"
}
part() { run "$1" "fits-$2" "$python" benchmarks/gpu_fits.py "$2" "$out/fits-$2.json" "${fits[@]}"; }

run 40 info "$python" -m gpusvm.cli.main info --json
$python -m pip list > "$out/packages.log" 2>&1
# Named, since collecting the others takes packages that such a machine need not have. Left out are two files whose cases
# are many and whose point is a CPU's as well: hard numbers, and forms of sparse samples.
tests=$(grep -rl --include='test_*.py' 'mark\.gpu' tests | grep -v -e test_numerics.py -e test_sparse_input.py)
run 70 tests-native-cuda "$python" -m pytest -q -m gpu -k "not cuml" -p no:cacheprovider $tests
if command -v compute-sanitizer > /dev/null; then
    run 40 racecheck compute-sanitizer --tool racecheck --error-exitcode 1 \
        "$python" -m gpusvm.cli.main train digits --limit 300 --backend native-cuda --out "$out/race.svm"
fi
part 60 native-cuda
part 40 native-cuda-device
run 45 search "$python" benchmarks/gpu_search.py "$out/search.json"
lines=15 run 40 profile "$python" benchmarks/profile_gpu.py "${fits[@]:0:4}"
lines=9 run 60 micro "$python" benchmarks/gpu_micro.py
run 60 tests-cuml "$python" -m pytest -q -m gpu -k cuml -p no:cacheprovider $tests
part 70 cuml
part 60 cuml-pool
part 60 cuml-own
part 40 native-cuda-after-cuml
run 120 workloads "$python" -m gpusvm.cli.main bench benchmarks/workloads.toml --backends native-cuda,cuml \
    --repeats 1 --timeout 30 --out "$out"
echo "== what came out, after $SECONDS s"
$python benchmarks/gpu_table.py "$out" || failed=1
exit $failed
