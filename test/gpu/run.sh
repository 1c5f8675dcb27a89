#!/usr/bin/env bash
# run.sh STEP... - what only a GPU can show, step by step: numbers or names as in the table below, or "first" and "rest",
# which are what two short calls should ask for; all by default. "list" prints the table.
#
# Steps are independent: one that fails or takes longer than its limit does not stop the next. Each says what it found
# as soon as it knows, and leaves its log and its JSON in build/gpu/results; where OUT names a folder, one archive of
# them and the summary are there every 20 s. WITHIN=SECONDS: all of it takes no longer; what has no time left is skipped.
# Ends with the line "N passed, M failed". Runs in a checkout, after "make gpu-check" has built what it needs or beside
# the parts that "make gpu-bundle" packs, or in the folder that it makes; a file "emulated" among the parts means that
# the GPU is not one, and that steps are to be short.
# shellcheck disable=SC2317 # steps are called by their names
set -uo pipefail
SELF=$(readlink -f "$0")
cd "${SELF%/*}/../.." || exit 1
. test/gpu/libraries.sh

ENGINE=$BUILT/minimax_m1_engine_cuda
PROGRAMS=$BUILT/gpu
RESULTS=$GPU/results
TESTS=(test_cuda test_cuda_learning test_cuda_sample test_cuda_engine test_cuda_group)
EMULATED=
[ -z "$PARTS" ] || [ ! -e "$PARTS/emulated" ] || EMULATED=yes
PEERS_SECONDS=${PEERS_SECONDS:-100}
TRY_SECONDS=15
export PYTHONUNBUFFERED=1

# Of each step: its limit in seconds, and about how many it should take on an H100; then what it is expected to show.
# Predicted milliseconds are beside the measured ones, from the card's own copy bandwidth and product rate (report.py).
STEPS=(golden kernels bf16 types attention sql graphs memcheck profile racecheck gradients)
# The limits of each are less than what one call may take, the most telling steps first.
FIRST=(golden kernels bf16 sql)
REST=(attention types graphs profile gradients memcheck racecheck)
declare -A LIMIT=([golden]=60 [kernels]=80 [bf16]=60 [types]=70 [attention]=140 [sql]=90 [graphs]=30
    [memcheck]=150 [profile]=70 [racecheck]=70 [gradients]=40)
declare -A TAKES=([golden]=25 [kernels]=30 [bf16]=25 [types]=45 [attention]=75 [sql]=45 [graphs]=15
    [memcheck]=90 [profile]=40 [racecheck]=60 [gradients]=25)
declare -A EXPECT=(
    [golden]="logits within 3 % of their size where weights are BF16, within 2e-4 in fp32; greedy replies as they are"
    [kernels]="every kernel within its twin's tolerance, or the same bits"
    [bf16]="decode of one at 80 % of the copy bandwidth, of 64 at 70 %; prefill at 65 % of the product rate"
    [types]="decode at 75 % of the copy bandwidth over the smaller bytes"
    [attention]="lightning flat per token to a million; softmax decode at 128k at 80 % of the bandwidth"
    [sql]="replies as they are; a cancel within 1 s, a killed engine back within 20 s; 64 clients; SQL adds at most 3 %"
    [graphs]="a recorded step is launched in less than 0.1 ms, whatever its batch"
    [memcheck]="no error"
    [racecheck]="no hazard"
    [gradients]="gradients within 1e-4 of their norm, losses within 2e-6; m1-nano learns about 100,000 tokens/s"
    [profile]="products of few rows and of many above 75 % of the memory's or the tensor cores' rate"
)

# CUDA's tools and the driver's are often not among the programs that a shell finds.
GPU_TOOLS=${GPU_TOOLS:-/usr/local/cuda/bin /opt/nvidia/nsight-compute/* /usr/local/nvidia/bin}
for folder in $GPU_TOOLS; do
    [ ! -d "$folder" ] || PATH=$PATH:$folder
done

# ---- steps: each runs in a process of its own, with its output in its log, and run.sh's standard output as 3 ----
# What they start does not have that: a process that is left would keep whoever reads the summary waiting.

# say LINE...: to the log and to whoever waits.
say() {
    printf '%s\n' "$@"
    printf '    %s\n' "$@" >&3
}

# said COMMAND...: what it prints is said, line by line.
said() {
    local line
    "$@" 3>&- | while IFS= read -r line; do say "$line"; done
}

# watched COMMAND...: a test that prints "ok", "not ok" and, after "#", figures: these and what is not ok are said at
# once, and how many were ok in the end.
watched() {
    local lines=$RESULTS/$STEP.lines line status
    "$@" 3>&- | tee -a "$lines" | while IFS= read -r line; do
        case $line in
            '# '*) say "${line#\# }" ;;
            'not ok '*) say "$line" ;;
            *) echo "$line" ;;
        esac
    done
    status=$?
    say "$(grep -c '^ok ' "$lines") ok, $(grep -c '^not ok ' "$lines") not ok"
    [ $status = 0 ] && grep -q '^ok ' "$lines" && ! grep -q '^not ok ' "$lines"
}

# bench PART...: each is reported as soon as its figures are there.
bench() {
    local part
    "$PROGRAMS/bench" "$RESULTS/$STEP.json" ${EMULATED:+small} "$@" 3>&- | while IFS= read -r part; do
        said python3 test/gpu/report.py "$RESULTS/$STEP.json" "$part"
    done
}

# gpus: how many there are; none where one is emulated.
gpus() {
    { [ -n "$EMULATED" ] || nvidia-smi -L; } | wc -l
}

step_golden() {
    watched python3 test/golden/cuda.py "$ENGINE" ${EMULATED:+8} || return 1
    [ "$(gpus)" -lt 2 ] || watched python3 test/golden/cuda.py "$ENGINE" 0 2
}

# test_program NAME COMMAND...: one, before which COMMAND stands; says how it ended.
test_program() {
    local log=$RESULTS/$STEP-$1.log status
    timeout --foreground -k 3 $((STEP_LIMIT * 9 / 10)) "${@:2}" "$PROGRAMS/$1" > "$log" 2>&1 3>&-
    status=$?
    say "$1: $(grep -c '^\[       OK \]' "$log") cases passed, status $status"
    [ $status = 0 ] || said grep -m 20 -E '^\[  FAILED|instead of|off by|ERROR SUMMARY|Invalid|hazard' "$log"
    return $status
}

# on_tests "NAME..." COMMAND...: all at once, each within the step's limit; false if one failed.
on_tests() {
    local name pid pids=() failed=0
    for name in $1; do
        test_program "$name" "${@:2}" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    return $failed
}

step_kernels() {
    on_tests "${TESTS[*]}"
}

# checked TOOL: by compute-sanitizer, under which tests take long: first those that have most kernels. What CUDA's own
# libraries ask and are refused is no error.
checked() {
    local failed=0
    on_tests "${TESTS[*]:0:2}" compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 1 || failed=1
    on_tests "${TESTS[*]:2}" compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 1 || failed=1
    return $failed
}

step_bf16() {
    bench BF16
}

step_types() {
    bench Q8_0 F8_E4M3 Q4_0
}

# What others take, too, if it can be told: they are not what is tested.
step_attention() {
    local peers=$RESULTS/attention-peers.json status
    rm -f "$peers" # of another run
    bench attention contexts
    status=$?
    PYTHONPATH=$BUILT/python${PYTHONPATH:+:$PYTHONPATH} timeout --foreground -k 3 $PEERS_SECONDS \
        python3 test/gpu/peers.py "$peers" ${EMULATED:+small} 3>&-
    said python3 test/gpu/report.py "$RESULTS/attention.json" peers "$peers"
    return $status
}

step_sql() {
    watched test/gpu/sql.sh "$ENGINE" cuda
}

step_graphs() {
    bench graphs
}

step_memcheck() {
    checked memcheck
}

step_racecheck() {
    checked racecheck
}

# All of it is in fp32, on the device as on the CPU. How fast m1-nano learns, of which every kernel is a small one.
step_gradients() {
    watched python3 test/golden/gradients.py "$ENGINE" cuda ${EMULATED:+ce_aux} || return 1
    [ -n "$EMULATED" ] || said "$ENGINE" bench-train --device cuda --model models/m1-nano --tokens 256 --sequences 16
}

# Of one prefill and one decode step. The clocks are left as they are. A kernel is run again for each group of counters,
# over what memory held before.
step_profile() {
    ncu --clock-control none --launch-count 400 --section SpeedOfLight --section LaunchStats \
        --export "$RESULTS/profile" --force-overwrite \
        "$PROGRAMS/bench" "$RESULTS/profile.json" ${EMULATED:+small} profile 3>&- || return 1
    ncu --import "$RESULTS/profile.ncu-rep" --csv --page raw > "$RESULTS/profile.csv" || return 1
    said python3 test/gpu/report.py "$RESULTS/profile.csv"
    gzip -c "$RESULTS/profile.ncu-rep" > "$RESULTS/profile.new" && mv "$RESULTS/profile.new" "$RESULTS/profile.ncu-rep.gz"
}

# What a step needs that a machine may lack, or not allow: where it is shared, counters and debugging may be closed.
declare -A TOOL=([memcheck]=compute-sanitizer [racecheck]=compute-sanitizer [profile]=ncu)
declare -A TRY=([compute-sanitizer]="--tool memcheck --report-api-errors no --error-exitcode 1"
    [ncu]="--section SpeedOfLight")

# why_not TOOL: prints why it is of no use, and nothing where it can look at a single launch.
why_not() {
    local log=$RESULTS/tried-$1.log
    command -v "$1" > /dev/null || { echo "is not installed"; return; }
    # shellcheck disable=SC2086 # words are options
    timeout -k 2 "$TRY_SECONDS" "$1" ${TRY[$1]} "$PROGRAMS/bench" "$RESULTS/tried.json" ${EMULATED:+small} launch \
        > "$log" 2>&1 < /dev/null && ! grep -q '^==ERROR==' "$log" ||
        echo "cannot work here: $(grep -m 1 -iE 'error' "$log" || echo "nothing after $TRY_SECONDS s")"
}

# ---- running them ----

# --one STEP LIMIT
if [ "${1:-}" = --one ]; then
    STEP=$2
    STEP_LIMIT=$3
    # at the limit all that the step has started is told so, too, and is waited for: a server has to be stopped
    trap 'exit 143' TERM
    "step_$STEP"
    exit
fi

list() {
    local i
    for i in "${!STEPS[@]}"; do
        echo "$((i + 1)) ${STEPS[i]}: about ${TAKES[${STEPS[i]}]} s, at most ${LIMIT[${STEPS[i]}]}"
    done
    echo "first: ${FIRST[*]}"
    echo "rest: ${REST[*]}"
}

# named STEP: the names of what was given as a name, as a number, or as one of the two calls.
named() {
    local i
    case $1 in
        first) echo "${FIRST[@]}" ;;
        rest) echo "${REST[@]}" ;;
        *)
            for i in "${!STEPS[@]}"; do
                [ "$1" != "${STEPS[i]}" ] && [ "$1" != $((i + 1)) ] || echo "${STEPS[i]}"
            done
            ;;
    esac
}

# keep_results: for a machine that is gone afterwards, and may go at any time: files are there as a whole or not at all.
# The profiler's report, which is large, is a file of its own, and a smaller one.
keep_results() {
    local file
    [ -n "${OUT:-}" ] || return 0
    tar -czf "$GPU/results.tar.gz" --exclude='profile.n*' -C "$RESULTS" . 2> /dev/null
    for file in "$GPU/results.tar.gz" "$RESULTS/summary" "$RESULTS/profile.ncu-rep.gz"; do
        [ ! -e "$file" ] || { cp "$file" "$OUT/part" && mv "$OUT/part" "$OUT/${file##*/}"; }
    done
}

keep_keeping_results() {
    while sleep "${KEEP_SECONDS:-20}"; do
        keep_results
    done
}

# limit_of STEP: its own, or what is left of WITHIN.
limit_of() {
    local limit=${STEP_SECONDS:-${LIMIT[$1]}} left=$((${WITHIN:-86400} - SECONDS - 5))
    echo $((limit < left ? limit : left))
}

# run STEP LIMIT: sets status.
run() {
    local step=$1 limit=$2 began=$SECONDS
    echo "--- $step, about ${TAKES[$step]} s, at most $limit; expected: ${EXPECT[$step]}"
    rm -f "$RESULTS/$step.lines"
    # the server of sql.sh takes some seconds to stop
    timeout -k 15 "$limit" "$SELF" --one "$step" "$limit" 3>&1 > "$RESULTS/$step.log" 2>&1 < /dev/null
    status=$?
    case $status in
        0) echo "ok $step ($((SECONDS - began)) s)" ;;
        124 | 137) echo "not ok $step: it took longer than $limit s" ;;
        *) echo "not ok $step ($((SECONDS - began)) s): status $status" ;;
    esac
    [ $status = 0 ] || tail -n 15 "$RESULTS/$step.log"
}

run_all() {
    local step limit why status passed=0 failed=0
    echo "built of commit $(built_of)"
    for step; do
        why=
        [ ! -v "TOOL[$step]" ] || why=$(why_not "${TOOL[$step]}")
        limit=$(limit_of "$step")
        if [ -n "$why" ]; then
            echo "skip $step: ${TOOL[$step]} $why"
        elif [ "$limit" -lt 1 ]; then
            echo "skip $step: $WITHIN s are over"
        else
            run "$step" "$limit"
            if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        fi
    done
    echo "$passed passed, $failed failed"
    [ $failed = 0 ] && [ $passed -gt 0 ]
}

# What all steps need, told once.
prepare() {
    if [ -z "$EMULATED" ] && ! nvidia-smi -L; then
        echo "There is no GPU on this machine." >&2
        return 1
    fi
    # the driver stays loaded from one program to the next
    { exec 9< /dev/nvidia0; } 2> /dev/null
    unpack_parts || return 1
    if [ ! -e "$PROGRAMS/bench" ]; then
        echo "There is no $PROGRAMS/bench: see docs/gpu.md for what builds it." >&2
        return 1
    fi
    if ! find_libraries "$ENGINE" "$PROGRAMS"/test_* "$PROGRAMS/bench"; then
        echo "libcublasLt.so.13 is cuBLASLt of CUDA 13, by CUDA's installer or as the Python package nvidia-cublas." >&2
        return 1
    fi
    # with which programs add up over several, and which they load by themselves
    [ "$(gpus)" -lt 2 ] || find_loaded libnccl.so.2
}

[ "${1:-}" != list ] || { list; exit; }
[ $# -gt 0 ] || set -- first rest
CHOSEN=()
for step; do
    read -ra names <<< "$(named "$step")"
    if [ ${#names[@]} = 0 ]; then
        echo "There is no step \"$step\": choose of ${STEPS[*]}, 1 to ${#STEPS[@]}, first and rest." >&2
        exit 2
    fi
    CHOSEN+=("${names[@]}")
done
prepare || exit 1
mkdir -p "$RESULTS"
keep_keeping_results > /dev/null 2>&1 &
KEEPER=$!
run_all "${CHOSEN[@]}" | tee "$RESULTS/summary"
status=${PIPESTATUS[0]}
kill "$KEEPER"
wait "$KEEPER" 2> /dev/null
keep_results
exit "$status"
