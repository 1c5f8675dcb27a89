#!/usr/bin/env bash
# run.sh SECONDS [TARGET...] - runs each fuzz target (all by default) for so many seconds with libFuzzer, or until it had
# EXECUTIONS, one after the other, and tells how many there were. What one of them finds is in build/fuzz/found: it belongs
# into test/fuzz/inputs/TARGET once it is mended. What covers something new stays in build/fuzz/corpus for the next run.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

BUILD=build/fuzz
LIMIT=$1
EXECUTIONS=${EXECUTIONS:--1}
# For one input. By the clock, which goes on while a busy machine has other things to do.
TIMEOUT=120
shift
[ $# -gt 0 ] || set -- $(cd test/fuzz && ls ./*.c | sed 's/^\.\/\(.*\)\.c$/\1/')

# stat LOG NAME: a number of libFuzzer's final statistics; 0 when it did not come to print them.
stat() {
    local value
    value=$(sed -n "s/^stat::$2: *//p" "$1")
    echo "${value:-0}"
}

mkdir -p "$BUILD/found" "$BUILD/log"
total=0 faults=0
for target in "$@"; do
    log=$BUILD/log/$target
    dict=test/fuzz/dict/$target
    mkdir -p "$BUILD/corpus/$target" "test/fuzz/inputs/$target"
    began=$(date +%s)
    "$BUILD/fuzz/$target" -max_total_time="$LIMIT" -runs="$EXECUTIONS" -max_len=4096 -timeout="$TIMEOUT" \
        -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix="$BUILD/found/$target-" \
        ${dict:+$([ ! -f "$dict" ] || echo "-dict=$dict")} \
        "$BUILD/corpus/$target" "test/fuzz/inputs/$target" > "$log" 2>&1 < /dev/null
    status=$?
    took=$(($(date +%s) - began))
    executions=$(stat "$log" number_of_executed_units)
    total=$((total + executions))
    printf '%-16s %12d executions, %7d a second\n' "$target" "$executions" $((executions / (took > 0 ? took : 1)))
    if [ $status != 0 ]; then
        faults=$((faults + 1))
        grep -m 3 -E '^(test/fuzz|.*ERROR|.*runtime error|Test unit|artifact)' "$log"
        grep 'Test unit written' "$log"
    fi
done
printf '%-16s %12d executions, %d targets found something\n' all "$total" "$faults"
[ $faults = 0 ]
