#!/usr/bin/env bash
# test.sh - that a bundle is all that run.sh needs, that no step keeps another from running, and that what each has
# found is kept. The bundle's GPU is emulated and its test programs are stand-ins: only that all runs means something. Prints
# "ok ..." and "not ok ..." lines.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
BUNDLE=$FOLDER/bundle

report() {
    local status=$?
    if [ $status = 0 ]; then echo "ok $1"; else printf 'not ok %s\n%s\n' "$1" "$(cat "$FOLDER/output")"; fi
}

# stand_in NAME COMMAND...: instead of a test program.
stand_in() {
    printf '#!/bin/sh\n%s\n' "${*:2}" > "$BUNDLE/build/gpu/$1"
    chmod 755 "$BUNDLE/build/gpu/$1"
}

# run STEP...: somewhere else, in an environment that knows nothing of the checkout.
run() {
    mkdir -p "$FOLDER/out"
    (cd / && env -i "PATH=$PATH" "OUT=$FOLDER/out" "STEP_SECONDS=${LIMIT:-250}" "$BUNDLE/gpu/run.sh" "$@") \
        > "$FOLDER/output" 2>&1
    STATUS=$?
}

says() {
    grep -qE -- "$1" "$FOLDER/output"
}

kept() {
    tar -tzf "$FOLDER/out/results.tar.gz" | grep -x -- "./$1" > /dev/null
}

test/gpu/bundle.sh "$BUNDLE" emulated
run 7
[ $STATUS = 0 ] && says '^ok graphs' && says '^1 passed, 0 failed$' && says 'step of 8: launched in .* as a graph'
report "it runs from an empty folder: launches"
for name in test_cuda_engine test_cuda_group test_cuda_learning; do
    stand_in $name 'echo "[       OK ] a case"'
done
stand_in test_cuda 'echo "[  FAILED  ] a case"; exit 1'
stand_in test_cuda_sample 'kill -SEGV $$'

run golden kernels bf16 attention
[ $STATUS = 1 ] && says '^3 passed, 1 failed$'
report "what fails does not stop the next"
says '^ok golden' && says '^    [1-9][0-9]* ok, 0 not ok$'
report "golden numbers"
says '^not ok kernels .*status 1' && says 'test_cuda: 0 cases passed, status 1' &&
    says 'test_cuda_sample: 0 cases passed, status 139' && says 'test_cuda_group: 1 cases passed, status 0'
report "every test program has its line"
says 'BF16, 2 layers: prefill' && says 'decode of 64: .*predicted' && says '80 layers, projected'
report "times with what was predicted"
says 'prefill of 32, one layer: lightning' && says 'one token after 256: lightning'
report "attention alone"
kept golden.log && kept kernels.log && kept bf16.json && kept attention.json && kept attention-peers.json &&
    cmp -s "$FOLDER/output" "$FOLDER/out/summary"
report "logs, figures and the summary are kept"

stand_in test_cuda 'echo "[       OK ] before it hangs"; sleep 60'
LIMIT=2 run kernels
says '^not ok kernels: it took longer than 2 s' && kept kernels-test_cuda.log
report "a step that hangs is ended"
run kernel
[ $STATUS = 2 ] && says 'There is no step "kernel"'
report "an unknown step is refused"
