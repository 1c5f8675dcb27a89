#!/usr/bin/env bash
# check.sh ENGINE TEST... - everything that only a GPU can show: kernels and backend against plain arithmetic and the
# CPU, the golden numbers, the bundled model through SQL, and the sanitizers' view of the kernels. Ends with the line
# "N passed, M failed". A step that takes longer than STEP_SECONDS (600) has failed: a device may hang.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
ENGINE=$1
shift
. test/gpu/libraries.sh
PASSED=0
FAILED=0

if ! nvidia-smi -L; then
    echo "There is no GPU on this machine." >&2
    exit 1
fi

find_libraries "$ENGINE" "$@" || exit 1

# step NAME COMMAND...
step() {
    local name=$1 log
    shift
    log=build/gpu-check-$name.log
    if timeout -k 10 "${STEP_SECONDS:-600}" "$@" > "$log" 2>&1 && ! grep -q '^not ok' "$log"; then
        PASSED=$((PASSED + 1))
        echo "ok $name"
    else
        FAILED=$((FAILED + 1))
        echo "not ok $name"
        tail -n 30 "$log"
    fi
}

for test; do
    step "${test##*/}" "$test"
done
step golden python3 test/golden/cuda.py "$ENGINE"
step sql test/gpu/sql.sh "$ENGINE"
if [ "$(nvidia-smi -L | wc -l)" -gt 1 ]; then
    step group-golden python3 test/golden/cuda.py "$ENGINE" 0 2
else
    echo "skip group-golden: there is one GPU"
fi
if command -v compute-sanitizer > /dev/null; then
    for test; do
        for tool in memcheck racecheck; do
            step "$tool-${test##*/}" compute-sanitizer --tool $tool --error-exitcode 1 "$test"
        done
    done
else
    echo "skip memcheck and racecheck: compute-sanitizer is not installed"
fi
echo
echo "$PASSED passed, $FAILED failed"
[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
