#!/usr/bin/env bash
# run.sh SECONDS [TARGET...] - runs each fuzz target (all by default) with libFuzzer for so many seconds, 0 for no limit,
# one after the other, and tells how many executions there were. What one of them finds is in build/fuzz/found: it belongs
# into test/fuzz/inputs/TARGET once it is mended. What covers something new stays in build/fuzz/corpus for the next run.
#
# EXECUTIONS=N: until all targets together had so many. Each is tried for TRIAL seconds, and what is then left is divided by
# their speeds: the cheap ones take more of it, and all of them as long. With fewer executions in the end the run has failed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

FUZZ=${FUZZ:-build/fuzz}
LIMIT=$1
EXECUTIONS=${EXECUTIONS:-0}
TRIAL=${TRIAL:-10}
# For one input. By the clock, which goes on while a busy machine has other things to do.
TIMEOUT=120
shift
if [ $# = 0 ]; then
    set -- test/fuzz/*.c
    set -- "${@##*/}"
    set -- "${@%.c}"
fi
if [[ ! $EXECUTIONS =~ ^[0-9]+$ ]]; then
    echo "EXECUTIONS=$EXECUTIONS is not a number" >&2
    exit 2
fi

# Of each target.
declare -A EXECUTED=() TOOK=() FAULTY=()
TOTAL=0 FAULTS=0

# stat LOG NAME: a number of libFuzzer's final statistics; 0 when it did not come to print them.
stat() {
    local value
    value=$(sed -n "s/^stat::$2: *//p" "$1")
    echo "${value:-0}"
}

# fuzz TARGET SECONDS RUNS: until one of both is over; 0 and -1 are no limits.
fuzz() {
    local log=$FUZZ/log/$1 dict=test/fuzz/dict/$1 began=$EPOCHREALTIME executions
    mkdir -p "$FUZZ/corpus/$1" "test/fuzz/inputs/$1"
    "$FUZZ/fuzz/$1" -max_total_time="$2" -runs="$3" -max_len=4096 -timeout="$TIMEOUT" \
        -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix="$FUZZ/found/$1-" \
        ${dict:+$([ ! -f "$dict" ] || echo "-dict=$dict")} \
        "$FUZZ/corpus/$1" "test/fuzz/inputs/$1" > "$log" 2>&1 < /dev/null || found "$1" "$log"
    executions=$(stat "$log" number_of_executed_units)
    TOTAL=$((TOTAL + executions))
    EXECUTED[$1]=$((${EXECUTED[$1]:-0} + executions))
    TOOK[$1]=$((${TOOK[$1]:-0} + (${EPOCHREALTIME/[.,]/} - ${began/[.,]/}) / 1000))
}

# found TARGET LOG
found() {
    FAULTS=$((FAULTS + 1))
    FAULTY[$1]=yes
    echo "$1 found something:"
    grep -m 3 -E '^(test/fuzz|.*ERROR|.*runtime error|Test unit|artifact)' "$2"
    grep 'Test unit written' "$2"
}

# speed TARGET: executions a second so far.
speed() {
    echo $((EXECUTED[$1] * 1000 / (TOOK[$1] > 0 ? TOOK[$1] : 1) + 1))
}

# fuzz_share TARGET LEFT SPEEDS: its part of what was left, where all speeds together are so large.
fuzz_share() {
    [ "$2" -le 0 ] || [ -v "FAULTY[$1]" ] || fuzz "$1" "$LIMIT" $(($2 * $(speed "$1") / $3 + 1))
}

tell() {
    printf '%-16s %12d executions, %7d a second\n' "$1" "${EXECUTED[$1]}" "$(speed "$1")"
}

mkdir -p "$FUZZ/found" "$FUZZ/log"
if [ "$EXECUTIONS" = 0 ]; then
    for target; do
        fuzz "$target" "$LIMIT" -1
        tell "$target"
    done
else
    speeds=0
    for target; do
        fuzz "$target" "$TRIAL" $((EXECUTIONS / $# + 1))
        speeds=$((speeds + $(speed "$target")))
    done
    left=$((EXECUTIONS - TOTAL))
    for target; do
        fuzz_share "$target" "$left" "$speeds"
        tell "$target"
    done
fi
printf '%-16s %12d executions, %d targets found something\n' all "$TOTAL" "$FAULTS"
[ "$TOTAL" -ge "$EXECUTIONS" ] || echo "There should have been $EXECUTIONS executions."
[ $FAULTS = 0 ] && [ "$TOTAL" -ge "$EXECUTIONS" ]
