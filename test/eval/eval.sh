#!/usr/bin/env bash
# eval.sh - evaluates MODEL (m1-nano by default) by the questions of questions.sql, ITEMS of each kind (all by default), on
# a private server, and prints a table. Run it by `make eval`.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
trap stop_server EXIT

settings=()
if [ -n "${MODEL:-}" ]; then
    settings+=("minimax_m1.model = '$(realpath "$MODEL")'")
fi
start_server "$BUILD/eval" "minimax_m1.temperature = 0" "minimax_m1.max_tokens = ${MAX_TOKENS:-1000}" "${settings[@]}"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
wait_for_model
psql -X -q -v ON_ERROR_STOP=1 -f test/eval/questions.sql
psql -X -q -v ON_ERROR_STOP=1 -P pager=off -v items="${ITEMS:-NULL}" -f test/eval/table.sql
