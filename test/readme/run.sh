#!/usr/bin/env bash
# run.sh - what the documentation says: its links, what it says of the code, and its examples, on a server of its own.
# Prints a line "ok ..." or "not ok ..." per case. test/run.sh runs it, and stops the server should this script be killed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. scripts/lib.sh
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

python3 test/readme/links.py && python3 test/readme/facts.py && python3 test/readme/plans.py "$BUILD/minimax_m1_engine" || exit
start_server "$BUILD/readme" && psql -X -q -c 'CREATE EXTENSION minimax_m1' && wait_for_model &&
    python3 test/readme/check.py README.md docs/*.md
