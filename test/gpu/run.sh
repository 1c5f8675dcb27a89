#!/usr/bin/env bash
# run.sh STEP... - what only a GPU can show, step by step: numbers, or names as in the table below; all by default.
#
# Steps are independent: one that fails or takes longer than its limit does not stop the next. Each says what it found
# as soon as it knows, and leaves its log and its JSON in build/gpu/results; where OUT names a folder, one archive of
# them and the summary are there after every step. Ends with the line "N passed, M failed". Runs in a checkout, after "make
# gpu-check" has built what it needs, or in the folder that "make gpu-bundle" makes; there, a file "emulated" means that
# the GPU is not one, and that steps are to be short.
# shellcheck disable=SC2317 # steps are called by their names
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 1
. test/gpu/libraries.sh

ENGINE=$PWD/build/minimax_m1_engine_cuda
PROGRAMS=$PWD/build/gpu
RESULTS=$PWD/build/gpu/results
TESTS=(test_cuda test_cuda_sample test_cuda_engine test_cuda_group test_cuda_learning)
EMULATED=
[ ! -e emulated ] || EMULATED=yes

# Of each step: its limit in seconds, and about how many it should take on an H100; then what it is expected to show.
# Predicted milliseconds are beside the measured ones, from the card's own copy bandwidth and product rate (report.py).
STEPS=(golden kernels bf16 types attention sql graphs memcheck profile racecheck gradients)
declare -A LIMIT=([golden]=120 [kernels]=150 [bf16]=120 [types]=180 [attention]=180 [sql]=180 [graphs]=90
    [memcheck]=300 [profile]=240 [racecheck]=300 [gradients]=180)
declare -A TAKES=([golden]=30 [kernels]=40 [bf16]=30 [types]=60 [attention]=60 [sql]=60 [graphs]=25
    [memcheck]=120 [profile]=90 [racecheck]=120 [gradients]=80)
declare -A EXPECT=(
    [golden]="logits within 3 % of their size where weights are BF16, within 2e-4 in fp32; greedy replies as they are"
    [kernels]="every kernel within its twin's tolerance, or the same bits"
    [bf16]="decode of one at 80 % of the copy bandwidth, of 64 at 70 %; prefill at 65 % of the product rate"
    [types]="decode at 75 % of the copy bandwidth over the smaller bytes"
    [attention]="lightning flat per token to a million; softmax decode at 128k at 80 % of the bandwidth"
    [sql]="replies as they are; a cancel within 1 s; a killed engine back within 20 s; 64 clients without an error"
    [graphs]="a recorded step is launched in less than 0.1 ms, whatever its batch"
    [memcheck]="no error"
    [racecheck]="no hazard"
    [gradients]="gradients within 1e-4 of their norm, losses within 2e-6; m1-nano learns about 100,000 tokens/s"
    [profile]="products of few rows and of many above 75 % of the memory's or the tensor cores' rate"
)

# ---- steps: each runs in a process of its own, with its output in its log, and run.sh's standard output as 3 ----

# say LINE...: to the log and to whoever waits.
say() {
    printf '%s\n' "$@"
    printf '    %s\n' "$@" >&3
}

# said COMMAND...: what it prints is said.
said() {
    local line
    "$@" | while IFS= read -r line; do say "$line"; done
}

# tell_lines LOG: how many of the lines of a Python test are ok, and which are not.
tell_lines() {
    say "$(grep -c '^ok ' "$1") ok, $(grep -c '^not ok ' "$1") not ok"
    said grep -A 1 '^not ok ' "$1"
    grep -q '^ok ' "$1" && ! grep -q '^not ok ' "$1"
}

bench() {
    "$PROGRAMS/bench" "$RESULTS/$STEP.json" ${EMULATED:+small} "$@"
}

report() {
    said python3 test/gpu/report.py "$RESULTS"/"$STEP"*.json
}

step_golden() {
    {
        python3 test/golden/cuda.py "$ENGINE" ${EMULATED:+8}
        [ -n "$EMULATED" ] || [ "$(nvidia-smi -L | wc -l)" -lt 2 ] || python3 test/golden/cuda.py "$ENGINE" 0 2
    } | tee "$RESULTS/golden.lines"
    said sed -n 's/^# //p' "$RESULTS/golden.lines"
    tell_lines "$RESULTS/golden.lines"
}

# on_each_test COMMAND...: before each test program; says how each ended, and is false if one failed.
on_each_test() {
    local name status failed=0
    for name in "${TESTS[@]}"; do
        "$@" "$PROGRAMS/$name" > "$RESULTS/$STEP-$name.log" 2>&1
        status=$?
        cat "$RESULTS/$STEP-$name.log"
        say "$name: $(grep -c '^\[       OK \]' "$RESULTS/$STEP-$name.log") cases passed, status $status"
        [ $status = 0 ] || failed=1
        [ $status = 0 ] || said grep -E '^\[  FAILED|instead of|off by|ERROR SUMMARY|Invalid' "$RESULTS/$STEP-$name.log"
    done
    return $failed
}

step_kernels() {
    on_each_test
}

step_bf16() {
    bench BF16 && report
}

step_types() {
    bench Q8_0 F8_E4M3 Q4_0
    local status=$?
    report && return $status
}

# What others take, too, if it can be told: they are not what is tested.
step_attention() {
    bench attention || return 1
    PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH} python3 test/gpu/peers.py ${EMULATED:+small} \
        > "$RESULTS/attention-peers.json"
    report
}

step_sql() {
    # nothing that outlives this keeps what run.sh writes to
    test/gpu/sql.sh "$ENGINE" cuda 3>&- | tee "$RESULTS/sql.lines"
    said sed -n 's/^# //p' "$RESULTS/sql.lines"
    tell_lines "$RESULTS/sql.lines"
}

step_graphs() {
    bench graphs && report
}

step_memcheck() {
    on_each_test compute-sanitizer --tool memcheck --error-exitcode 1
}

step_racecheck() {
    on_each_test compute-sanitizer --tool racecheck --error-exitcode 1
}

# All of it is in fp32, on the device as on the CPU. How fast m1-nano learns, of which every kernel is a small one.
step_gradients() {
    python3 test/golden/gradients.py "$ENGINE" cuda ${EMULATED:+ce_aux} | tee "$RESULTS/gradients.lines"
    said sed -n 's/^# //p' "$RESULTS/gradients.lines"
    tell_lines "$RESULTS/gradients.lines" || return 1
    [ -n "$EMULATED" ] || said "$ENGINE" bench-train --device cuda --model models/m1-nano --tokens 256 --sequences 16
}

# Of one prefill and one decode step. The clocks are left as they are.
step_profile() {
    ncu --clock-control none --section SpeedOfLight --section LaunchStats --export "$RESULTS/profile" --force-overwrite \
        "$PROGRAMS/bench" "$RESULTS/profile.json" ${EMULATED:+small} profile || return 1
    ncu --import "$RESULTS/profile.ncu-rep" --csv --page raw > "$RESULTS/profile.csv" || return 1
    said python3 test/gpu/report.py "$RESULTS/profile.csv"
}

# What a step needs that a machine may lack.
declare -A TOOL=([memcheck]=compute-sanitizer [racecheck]=compute-sanitizer [profile]=ncu)

# ---- running them ----

if [ "${1:-}" = --one ]; then
    STEP=$2
    find_libraries "$ENGINE" "$PROGRAMS"/test_* "$PROGRAMS/bench" && "step_$STEP"
    exit
fi

# named STEP: its name, whether it was given as that or as a number.
named() {
    local i
    for i in "${!STEPS[@]}"; do
        [ "$1" != "${STEPS[i]}" ] && [ "$1" != $((i + 1)) ] || echo "${STEPS[i]}"
    done
}

# keep_results: for a machine that is gone afterwards.
keep_results() {
    [ -z "${OUT:-}" ] || { cp "$RESULTS/summary" "$OUT/" && tar -czf "$OUT/results.tar.gz" -C "$RESULTS" .; }
}

# run STEP: sets status.
run() {
    local step=$1 limit=${STEP_SECONDS:-${LIMIT[$1]}} began=$SECONDS
    echo "--- $step, about ${TAKES[$step]} s, at most $limit; expected: ${EXPECT[$step]}"
    timeout -k 10 "$limit" "$0" --one "$step" 3>&1 > "$RESULTS/$step.log" 2>&1 < /dev/null
    status=$?
    case $status in
        0) echo "ok $step ($((SECONDS - began)) s)" ;;
        124 | 137) echo "not ok $step: it took longer than $limit s" ;;
        *) echo "not ok $step ($((SECONDS - began)) s): status $status" && tail -n 15 "$RESULTS/$step.log" ;;
    esac
}

run_all() {
    local step status passed=0 failed=0
    for step; do
        if [ -v "TOOL[$step]" ] && ! command -v "${TOOL[$step]}" > /dev/null; then
            echo "skip $step: ${TOOL[$step]} is not installed"
            continue
        fi
        run "$step"
        if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        keep_results
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ] && [ $passed -gt 0 ]
}

[ $# -gt 0 ] || set -- "${STEPS[@]}"
CHOSEN=()
for step; do
    name=$(named "$step")
    if [ -z "$name" ]; then
        echo "There is no step \"$step\": choose of ${STEPS[*]}, or 1 to ${#STEPS[@]}." >&2
        exit 2
    fi
    CHOSEN+=("$name")
done
if [ -z "$EMULATED" ] && ! nvidia-smi -L; then
    echo "There is no GPU on this machine." >&2
    exit 1
fi
[ -e "$PROGRAMS/bench" ] || tar -xJf programs.tar.xz -C build || exit 1
mkdir -p "$RESULTS"
run_all "${CHOSEN[@]}" | tee "$RESULTS/summary"
status=${PIPESTATUS[0]}
keep_results
exit "$status"
