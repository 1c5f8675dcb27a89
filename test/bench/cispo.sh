#!/usr/bin/env bash
# cispo.sh - learns TASKS by METHODS, each with SEEDS seeds and STEPS steps of PROMPTS rows, on a private server, and prints
# how fast and how far each came. Run it by `make bench-cispo`.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
trap stop_server EXIT

TASKS=${TASKS:-voucher extraction carry}
METHODS=${METHODS:-cispo dapo grpo}

start_server "$BUILD/cispo" "minimax_m1.threads = ${THREADS:-0}"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
wait_for_model
psql -X -q -v ON_ERROR_STOP=1 -f test/bench/cispo.sql
for task in $TASKS; do
    for ((seed = 1; seed <= ${SEEDS:-5}; seed++)); do
        for method in $METHODS; do
            run=$(psql -X -q -A -t -v ON_ERROR_STOP=1 -c "SELECT begin_run('$task', '$method', $seed, ${STEPS:-40}, ${PROMPTS:-48})")
            psql -X -q -v ON_ERROR_STOP=1 -c "CALL minimax_m1.wait_for_training('$run')"
            psql -X -q -A -t -c "SELECT name, state, step, heldout_start, heldout, coalesce(error, '')
                                 FROM minimax_m1.training WHERE name = '$run'"
        done
    done
done
psql -X -q -P pager=off -P null='' -f test/bench/cispo_report.sql
