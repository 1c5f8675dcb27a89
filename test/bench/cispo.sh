#!/usr/bin/env bash
# cispo.sh - learns TASKS by METHODS, each with SEEDS seeds and at most STEPS steps of PROMPTS rows, on a private server, and
# prints how fast and how far each came. Run it by `make bench-cispo`.
#
# What runs have led to is kept in build/cispo, a folder for each STEPS and PROMPTS: a run that is there is not made again, so
# that an interrupted one goes on with the run that it was at, and prints what there is. Remove the folder after a change of
# the code.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

TASKS=${TASKS:-voucher}
METHODS=${METHODS:-cispo dapo grpo}
STEPS=${STEPS:-16}
PROMPTS=${PROMPTS:-48}
KEPT=$BUILD/cispo/${STEPS}x$PROMPTS
REPORTED=yes

# sql STATEMENT: what it returns.
sql() { psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -c "$1"; }

# report: of all runs that there are, unless it was printed since the last one.
report() {
    [ "$REPORTED" = no ] || return 0
    REPORTED=yes
    psql -X -q -P pager=off -P null='' -P footer=off -f test/bench/cispo_report.sql
}

leave() {
    report || true
    stop_server
}
trap leave EXIT

# load, keep: what runs have led to, from the folder and into it. A run is there once kept_run has it, which comes last.
load() {
    local table
    [ -f "$KEPT/kept_run.tsv" ] || return 0
    for table in kept_step kept_run; do
        sql "\\copy $table FROM '$KEPT/$table.tsv'"
    done
    REPORTED=no
}

keep() {
    local table
    mkdir -p "$KEPT"
    for table in kept_step kept_run; do
        sql "\\copy $table TO '$KEPT/$table.new'"
        mv "$KEPT/$table.new" "$KEPT/$table.tsv"
    done
    REPORTED=no
}

# learn TASK METHOD SEED: unless that is there.
learn() {
    local of_run="(task, method, seed) = ('$1', '$2', $3)"
    if [ "$(sql "SELECT count(*) FROM kept_run WHERE $of_run")" = 1 ]; then
        return
    fi
    sql "SELECT begin_run('$1', '$2', $3, $STEPS, $PROMPTS)" > /dev/null
    sql "CALL minimax_m1.wait_for_training(run_name('$1', '$2', $3))"
    sql "SELECT keep_run('$1', '$2', $3)" > /dev/null
    keep
    sql "SELECT concat_ws(' ', task, method, seed, state, 'after', round(seconds), 's', error) FROM kept_run WHERE $of_run"
}

start_server "$BUILD/cispo/server" "minimax_m1.threads = ${THREADS:-0}"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
wait_for_model
psql -X -q -v ON_ERROR_STOP=1 -f test/bench/cispo.sql
load
for task in $TASKS; do
    check=$(sql "SELECT useful >= 0.1, concat_ws('; ', '$task: ' || advice, 'a run takes about ' || expected_time)
                 FROM check_task('$task', $STEPS, $PROMPTS)")
    echo "${check#* }"
    if [ "${check%% *}" != t ]; then
        echo "$task is left out."
        continue
    fi
    for ((seed = 1; seed <= ${SEEDS:-5}; seed++)); do
        for method in $METHODS; do
            learn "$task" "$method" "$seed"
        done
    done
    report
done
