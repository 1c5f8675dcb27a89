#!/usr/bin/env bash
# run.sh [PART...] - runs the tests, all parts by default, and ends with the line "N passed, M failed".
#
#   unit        cmocka programs over the engine's code
#   unit-san    the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   golden      every checkpoint's golden numbers and greedy cases, through the command line
#   regress     pg_regress: the SQL interface
#   readme      the README's examples
#   isolation   several sessions at once
#   tap         servers that are stopped, killed, overloaded and misconfigured
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap stop_server EXIT

PGXS_TEST=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
PASSED=0
FAILED=0

# count PASSED FAILED: adds to the totals and tells a part's result.
count() {
    PASSED=$((PASSED + $1))
    FAILED=$((FAILED + $2))
    echo "--- $PART: $1 passed, $2 failed"
}

build() {
    scripts/quietly.sh make --no-print-directory -j "$(nproc)" "$@"
}

# run_programs FOLDER: each test program's cmocka lines are its test cases.
run_programs() {
    local passed=0 failed=0 program log ok
    for program in "$1"/test_*; do
        [ -x "$program" ] && [ ! -d "$program" ] || continue
        log=$program.log
        timeout 600 "$program" > "$log" 2>&1
        ok=$?
        passed=$((passed + $(grep -c '^\[       OK \]' "$log")))
        failed=$((failed + $(grep -c '^\[  FAILED  \] [A-Za-z_0-9]*$' "$log" | awk '{print int(($1 + 1) / 2)}')))
        if [ $ok != 0 ]; then
            [ "$(grep -c '^\[  FAILED  \]' "$log")" != 0 ] || failed=$((failed + 1))
            echo "$program failed:"
            grep -vE '^\[( RUN|       OK|=|-)' "$log" | tail -n 40
        fi
    done
    count $passed $failed
}

part_unit() {
    build unit && run_programs "$BUILD/unit" || count 0 1
}

part_unit_san() {
    build unit-san && run_programs "$BUILD/san/unit" || count 0 1
}

part_golden() {
    build all || { count 0 1; return; }
    python3 test/golden/golden.py "$BUILD/minimax_m1_engine" | tee "$BUILD/golden.log" | grep '^not ok'
    count "$(grep -c '^ok' "$BUILD/golden.log")" "$(grep -c '^not ok' "$BUILD/golden.log")"
    [ "$(tail -n 1 "$BUILD/golden.log")" = done ] || { echo "golden.py did not come to its end"; count 0 1; }
}

# regress_like RUNNER LOG ARGUMENTS...: pg_regress and pg_isolation_regress print the same lines.
regress_like() {
    local runner=$1 out=$BUILD/$2
    shift 2
    own_folder "$out"
    mkdir -p "$out/sock" && chown -R --reference="$out" "$out"
    { staged_settings; cat test/regress.conf; } > "$BUILD/regress.conf"
    PG_REGRESS_SOCK_DIR=$(socket_folder "$out/sock") timeout 1200 \
        bash -c '. scripts/lib.sh; as_user "$@"' as_user "$runner" --bindir="$PG_BIN" --temp-instance="$out/instance" \
        --temp-config="$BUILD/regress.conf" --outputdir="$out" --load-extension=minimax_m1 "$@" \
        > "$out.log" 2>&1
    if [ $? != 0 ]; then
        cat "$out.log"
        [ ! -f "$out/regression.diffs" ] || head -n 200 "$out/regression.diffs"
    fi
    if grep -qE '^(test|ok|not ok) ' "$out.log"; then
        count "$(grep -cE '^(test|ok).* ok ' "$out.log")" "$(grep -cE '^(test.*FAILED|not ok)' "$out.log")"
    else
        count 0 1
    fi
}

part_regress() {
    build stage || { count 0 1; return; }
    regress_like "$PGXS_TEST/regress/pg_regress" regress --inputdir=. basic errors privileges annotate
}

part_readme() {
    build stage || { count 0 1; return; }
    start_server "$BUILD/readme" && psql -X -q -c 'CREATE EXTENSION minimax_m1' &&
        python3 test/readme/check.py README.md > "$BUILD/readme.log" 2>&1
    stop_server
    grep -v '^ok\|^done' "$BUILD/readme.log"
    count "$(grep -c '^ok' "$BUILD/readme.log")" "$(grep -c '^not ok' "$BUILD/readme.log")"
    [ "$(tail -n 1 "$BUILD/readme.log")" = done ] || { echo "check.py did not come to its end"; count 0 1; }
}

part_isolation() {
    build stage || { count 0 1; return; }
    regress_like "$PGXS_TEST/isolation/pg_isolation_regress" isolation --inputdir=test/isolation \
        $(cd test/isolation/specs && ls *.spec | sed 's/\.spec$//')
}

part_tap() {
    local log=$BUILD/tap.log
    build stage || { count 0 1; return; }
    own_folder "$BUILD/tap"
    as_user mkdir "$BUILD/tap/tmp"
    M1_STAGE=$STAGE M1_ROOT=$ROOT PG_REGRESS=$PGXS_TEST/regress/pg_regress TESTDIR=$BUILD/tap \
        TMPDIR=$(socket_folder "$BUILD/tap/tmp") HOME=$BUILD/tap PATH=$PG_BIN:$PATH timeout 1500 \
        bash -c '. scripts/lib.sh; as_user "$@"' as_user prove -I "$PGXS_TEST/perl" -I test/t --timer --verbose \
        test/t/*.pl > "$log" 2>&1 || grep -E '^(not ok|# |.*(Dubious|Failed|Wstat))' "$log" | head -n 80
    count "$(grep -cE '^ok [0-9]+' "$log")" "$(($(grep -cE '^not ok [0-9]+' "$log") + $(grep -cE 'No plan found|Parse errors: (No|Bad)' "$log")))"
    grep -qE '^Result: (PASS|FAIL)' "$log" || { echo "prove did not come to its end"; count 0 1; }
}

[ $# -gt 0 ] || set -- unit unit-san golden regress readme isolation tap
for PART in "$@"; do
    start=$SECONDS
    echo "=== $PART"
    "part_${PART//-/_}"
    echo "    ($((SECONDS - start)) s)"
done
echo
echo "$PASSED passed, $FAILED failed"
[ $FAILED = 0 ] && [ $PASSED -gt 0 ]
