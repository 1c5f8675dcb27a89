#!/usr/bin/env bash
# check.sh TEST GROUP_TEST ENGINE - everything that only a GPU can show: kernels and backend against plain arithmetic and
# the CPU, the golden numbers, the same on two GPUs where there are, and the sanitizers' view of the kernels. Ends with the
# line "N passed, M failed".
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
TEST=$1
GROUP_TEST=$2
ENGINE=$3
PASSED=0
FAILED=0

if ! nvidia-smi -L; then
    echo "There is no GPU on this machine." >&2
    exit 1
fi

# step NAME COMMAND...
step() {
    local name=$1 log
    shift
    log=build/gpu-check-$name.log
    if "$@" > "$log" 2>&1 && ! grep -q '^not ok' "$log"; then
        PASSED=$((PASSED + 1))
        echo "ok $name"
    else
        FAILED=$((FAILED + 1))
        echo "not ok $name"
        tail -n 30 "$log"
    fi
}

step kernels "$TEST"
step golden python3 test/golden/cuda.py "$ENGINE"
if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
    step group "$GROUP_TEST"
    step group-golden python3 test/golden/cuda.py "$ENGINE" 0 2
else
    echo "skip group and group-golden: there is one GPU"
fi
if command -v compute-sanitizer > /dev/null; then
    step memcheck compute-sanitizer --tool memcheck --error-exitcode 1 "$TEST"
    step racecheck compute-sanitizer --tool racecheck --error-exitcode 1 "$TEST"
else
    echo "skip memcheck and racecheck: compute-sanitizer is not installed"
fi
echo
echo "$PASSED passed, $FAILED failed"
[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
