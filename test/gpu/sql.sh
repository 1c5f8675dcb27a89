#!/usr/bin/env bash
# sql.sh ENGINE [DEVICE] - the bundled model answers through SQL: a private server on a socket, the extension from
# build/stage with ENGINE as its engine with CUDA, DEVICE (default: cuda), and the golden greedy cases. Needs no
# network, and no PostgreSQL where packages.sh has collected one.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
DEVICE=${2:-cuda}
. test/gpu/server.sh
choose_server "$1" || exit 1
# a machine without PostgreSQL has no such user, and nobody is on every machine
id postgres > /dev/null 2>&1 || export M1_TEST_USER=nobody
. scripts/lib.sh
PATH=$PG_BIN:$PATH
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start_server "$BUILD/gpu/server" "minimax_m1.device = $DEVICE" "minimax_m1.temperature = 0" &&
    psql -X -q -c 'CREATE EXTENSION minimax_m1' && wait_for_model &&
    python3 test/gpu/sql.py "$DEVICE"
