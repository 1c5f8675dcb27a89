#!/usr/bin/env bash
# run.sh [PART...] - runs the tests, all parts by default, and ends with the line "N passed, M failed".
#
#   unit        cmocka programs over the engine's code
#   unit-san    the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   golden      every checkpoint's golden numbers and greedy cases, through the command line; on an emulated GPU, too
#   schemas     1,000 random JSON schemas: the bundled model's answers before another one's validator
#   regress     pg_regress: the SQL interface
#   readme      the examples of the README and of docs/, all links, and what docs/ says of the code
#   isolation   several sessions at once
#   tap         servers that are stopped, killed, overloaded and misconfigured; TAP=test/t/005_overload.pl runs only that,
#               for at most TAP_SECONDS
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/lib.sh

PGXS_TEST=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
PASSED=0
FAILED=0
SKIPPED=0
SUMMARY=()
CHILD=

# However this script ends, nothing that it started goes on.
leave() {
    trap '' INT TERM HUP
    if [ -n "$CHILD" ]; then
        kill -TERM "$CHILD" 2> /dev/null
        wait "$CHILD"
        # a server that was just being started gets as far as its pid file
        sleep 1
    fi
    stop_server
    stop_servers_below "$BUILD/regress" "$BUILD/isolation" "$BUILD/tap"
    remove_temporary
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# limited SECONDS COMMAND...: runs it in the background and waits, because bash heeds a signal only between foreground
# commands; timeout gives it a process group of its own and passes signals on to all of it. A background command would
# ignore SIGINT, and so would the servers that it starts, hence env.
limited() {
    local status
    env --default-signal=INT,QUIT timeout -k 30 "$@" < /dev/null &
    CHILD=$!
    wait "$CHILD"
    status=$?
    CHILD=
    return $status
}

# result STATUS PASSED FAILED [SKIPPED]: adds a part's cases to the totals. A part that ended badly, or in which nothing
# ran, has failed even if none of its cases did.
result() {
    local status=$1 passed=$2 failed=$3 skipped=${4:-0} line
    if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ $((passed + skipped)) = 0 ]; }; then
        echo "$PART ended with status $status after $passed cases that passed"
        failed=1
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    SKIPPED=$((SKIPPED + skipped))
    line=$(printf '%-10s %4d passed, %d failed' "$PART" "$passed" "$failed")
    [ "$skipped" = 0 ] || line+=", $skipped skipped"
    SUMMARY+=("$line ($((SECONDS - START)) s)")
    echo "--- ${SUMMARY[-1]}"
}

lines() {
    grep -cE "$1" "$2"
}

build() {
    limited 1200 scripts/quietly.sh make --no-print-directory -j "$(nproc)" "$@"
}

# run_programs FOLDER: runs each test program; cmocka's lines are its test cases.
run_programs() {
    local passed=0 failed=0 skipped=0 status=0 source program log bad
    for source in test/unit/test_*.c; do
        program=$1/$(basename "$source" .c)
        log=$program.log
        limited 600 "$program" > "$log" 2>&1
        bad=$?
        passed=$((passed + $(lines '^\[       OK \]' "$log")))
        skipped=$((skipped + $(lines '^\[  SKIPPED \] [A-Za-z_0-9]+$' "$log")))
        # a failure is told where it happens and again at the end
        failed=$((failed + ($(lines '^\[  FAILED  \] [A-Za-z_0-9]+$' "$log") + 1) / 2))
        if [ $bad != 0 ]; then
            status=$bad
            # a program that crashes has not come to name what failed
            [ "$(lines '^\[  FAILED  \]' "$log")" != 0 ] || failed=$((failed + 1))
            echo "$program failed:"
            grep -vE '^\[( RUN|       OK|=|-)' "$log" | tail -n 40
        fi
    done
    result $status $passed $failed $skipped
}

part_unit() {
    build unit || { result $? 0 1; return; }
    run_programs "$BUILD/unit"
}

part_unit_san() {
    build unit-san || { result $? 0 1; return; }
    run_programs "$BUILD/san/unit"
}

part_golden() {
    local log=$BUILD/golden.log status
    build all build/minimax_m1_engine_emulated || { result $? 0 1; return; }
    limited 900 python3 test/golden/golden.py "$BUILD/minimax_m1_engine" > "$log" 2>&1
    status=$?
    limited 900 python3 test/golden/cuda.py "$BUILD/minimax_m1_engine_emulated" 34 >> "$log" 2>&1 || status=$?
    limited 900 python3 test/golden/cuda.py "$BUILD/minimax_m1_engine_emulated" 34 2 >> "$log" 2>&1 || status=$?
    grep -vE '^(ok|skip) |^done$' "$log"
    result $status "$(lines '^ok ' "$log")" "$(lines '^not ok ' "$log")" "$(lines '^skip ' "$log")"
}

part_schemas() {
    local log=$BUILD/schemas.log status
    build schemas || { result $? 0 1; return; }
    limited 900 python3 test/schemas/schemas.py "$BUILD/schemas/answers" > "$log" 2>&1
    status=$?
    grep -vE '^ok |^done$' "$log"
    result $status "$(lines '^ok ' "$log")" "$(lines '^not ok ' "$log")"
}

# regress_like RUNNER FOLDER ARGUMENTS...: pg_regress and pg_isolation_regress print the same lines.
regress_like() {
    local runner=$1 out=$BUILD/$2 log=$BUILD/$2.log status
    shift 2
    own_folder "$out"
    own_folder "$out/sock"
    { staged_settings; cat test/regress.conf; } > "$out.conf"
    socket_folder "$out/sock"
    PG_REGRESS_SOCK_DIR=$SOCKET_FOLDER limited 1200 "${AS_USER[@]}" "$runner" --bindir="$PG_BIN" \
        --temp-instance="$out/instance" --temp-config="$out.conf" --outputdir="$out" --load-extension=minimax_m1 "$@" \
        > "$log" 2>&1
    status=$?
    if [ $status != 0 ]; then
        cat "$log"
        [ ! -f "$out/regression.diffs" ] || head -n 200 "$out/regression.diffs"
    fi
    stop_servers_below "$out"
    # "test NAME ... ok", or since PostgreSQL 16 "ok 1 - NAME"
    result $status "$(lines '^(test .* ok |ok )' "$log")" "$(lines '^(test .* FAILED|not ok )' "$log")"
}

part_regress() {
    build stage || { result $? 0 1; return; }
    regress_like "$PGXS_TEST/regress/pg_regress" regress --inputdir=. basic errors privileges annotate operators limits jobs annotators
}

part_isolation() {
    local specs=(test/isolation/specs/*.spec)
    specs=("${specs[@]##*/}")
    build stage || { result $? 0 1; return; }
    regress_like "$PGXS_TEST/isolation/pg_isolation_regress" isolation --inputdir=test/isolation "${specs[@]%.spec}"
}

part_readme() {
    local log=$BUILD/readme.log status
    build stage || { result $? 0 1; return; }
    python3 test/readme/links.py > "$log" 2>&1 && python3 test/readme/facts.py >> "$log" 2>&1 &&
        start_server "$BUILD/readme" && psql -X -q -c 'CREATE EXTENSION minimax_m1' && wait_for_model &&
        limited 600 python3 test/readme/check.py README.md docs/*.md >> "$log" 2>&1
    status=$?
    stop_server
    grep -vE '^ok |^done$' "$log"
    result $status "$(lines '^ok ' "$log")" "$(lines '^not ok ' "$log")"
}

part_tap() {
    local log=$BUILD/tap.log status
    build stage || { result $? 0 1; return; }
    own_folder "$BUILD/tap"
    own_folder "$BUILD/tap/tmp"
    socket_folder "$BUILD/tap/tmp"
    M1_STAGE=$STAGE M1_ROOT=$ROOT PG_REGRESS=$PGXS_TEST/regress/pg_regress TESTDIR=$BUILD/tap \
        TMPDIR=$SOCKET_FOLDER HOME=$BUILD/tap PATH=$PG_BIN:$PATH limited "${TAP_SECONDS:-1500}" "${AS_USER[@]}" \
        prove -I "$PGXS_TEST/perl" -I test/t --timer --verbose ${TAP:-test/t/*.pl} > "$log" 2>&1
    status=$?
    [ $status = 0 ] || grep -E '^(not ok|# |.*(Dubious|Failed|Wstat))' "$log" | head -n 80
    stop_servers_below "$BUILD/tap"
    # A script that dies between its cases has failed, though each of them passed.
    result $status "$(grep -E '^ok [0-9]+' "$log" | grep -ciEv '# *skip')" \
        "$(lines '^not ok [0-9]+|\(Wstat: [1-9].* Failed: 0\)$' "$log")" \
        "$(lines '^ok [0-9]+.*# *(skip|SKIP)' "$log")"
}

[ $# -gt 0 ] || set -- unit unit-san golden schemas regress readme isolation tap
for PART in "$@"; do
    START=$SECONDS
    echo "=== $PART"
    "part_${PART//-/_}"
    remove_temporary
done

TOTAL="$PASSED passed, $FAILED failed"
[ $SKIPPED = 0 ] || TOTAL+=", $SKIPPED skipped"
echo
printf '%s\n' "${SUMMARY[@]}"
echo
echo "$TOTAL" | tee "$BUILD/total"
[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
