#!/usr/bin/env bash
# sql.sh ENGINE [DEVICE] - the bundled model answers through SQL: a private server on a socket, the staged extension
# with ENGINE as its engine with CUDA, DEVICE (default: cuda), and what sql.py asks. Needs no network, and no PostgreSQL
# where packages.sh has collected one.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
DEVICE=${2:-cuda}
. test/gpu/server.sh
choose_server "$1" || exit 1
# a machine without PostgreSQL has no such user, and nobody is on every machine
id postgres > /dev/null 2>&1 || export M1_TEST_USER=nobody
. scripts/lib.sh
PATH=$PG_BIN:$PATH
SERVER=$GPU/server

# Whoever ends this at a limit waits for some seconds only.
end_at_once() {
    trap '' INT TERM HUP
    # a server that was just being started gets as far as its pid file
    sleep 1
    stop_servers_below "$SERVER"
    SERVER_DIR=
    exit "$1"
}
trap stop_server EXIT
trap 'end_at_once 130' INT
trap 'end_at_once 143' TERM HUP

start_server "$SERVER" "minimax_m1.device = $DEVICE" "minimax_m1.temperature = 0" &&
    psql -X -q -c 'CREATE EXTENSION minimax_m1' && wait_for_model &&
    python3 test/gpu/sql.py "$DEVICE"
