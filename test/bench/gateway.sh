#!/usr/bin/env bash
# gateway.sh - what the gateway adds: the same statements through it and through libpq, in turns, on one server. Prints a
# table and writes build/bench/gateway.json. PAIRS and STREAMS are how many of each.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

OUT=$BUILD/bench
mkdir -p "$OUT"
GATEWAY_PID=
leave() {
    [ -z "$GATEWAY_PID" ] || kill "$GATEWAY_PID" 2> /dev/null || true
    stop_server
}
trap leave EXIT

start_server "$OUT/server" "minimax_m1.temperature = 0"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
"${AS_USER[@]}" "$STAGE$PG_LIB/minimax_m1_gateway" http "host=$PGHOST dbname=postgres user=postgres" --auth fixed --listen 127.0.0.1:0 \
    > "$OUT/gateway.log" 2>&1 &
GATEWAY_PID=$!
for _ in $(seq 100); do
    grep -q 'listening on port' "$OUT/gateway.log" && break
    sleep 0.1
done
PORT=$(sed -n 's/.*listening on port //p' "$OUT/gateway.log")
python3 test/bench/gateway.py "host=$PGHOST dbname=postgres user=postgres" "$PORT" "$GATEWAY_PID" "$OUT/gateway.json" "${PAIRS:-1000}" "${STREAMS:-30}"
