#!/usr/bin/env bash
# bench.sh - speeds of the engine on the bundled checkpoint and on a larger random one, as it is stored and with 8 and 4
# bits; the same through SQL, and rows per second with and without prefix snapshots. Prints one table and writes
# build/bench/results.json. Timings on a busy machine mean little: compare ratios of one run. BENCH_PRESET=small takes a
# smaller random checkpoint.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
trap stop_server EXIT

PRESET=${BENCH_PRESET:-bench}
OUT=$BUILD/bench
mkdir -p "$OUT"

# Debian's Python, which sees Debian's numpy (make bench installs it).
PYTHON=/usr/bin/python3
ENGINE=$BUILD/minimax_m1_engine

if [ ! -f "$OUT/$PRESET/config.json" ]; then
    echo "Making the random checkpoint \"$PRESET\" ..."
    "$PYTHON" test/tools/make_checkpoint.py "$PRESET" "$OUT/$PRESET"
fi

for format in q8_0 q4; do
    [ -f "$OUT/$PRESET-$format.gguf" ] ||
        "$ENGINE" quantize "$OUT/$PRESET" "$OUT/$PRESET-$format.gguf" --weight-format "$format"
done

echo "Measuring the engine ..."
"$ENGINE" bench --model models/m1-nano --prefill 512,4096,32768 --batch 1,4,16,64 --tokens 200 > "$OUT/m1-nano.json"
"$ENGINE" bench --model "$OUT/$PRESET" --prefill 512,4096 --batch 1,4,16 --tokens 24 > "$OUT/$PRESET.json"
"$ENGINE" bench --model "$OUT/$PRESET-q8_0.gguf" --prefill 512,4096,32768 --batch 1,4,16,64 --tokens 32 \
    --context 1024,8192,65536 > "$OUT/$PRESET-q8_0.json"
"$ENGINE" bench --model "$OUT/$PRESET-q4.gguf" --prefill 512,4096 --batch 1,4,16 --tokens 32 > "$OUT/$PRESET-q4.json"

# How long the q8_0 file takes to be a model when no page of it is in memory, beside just reading it, in turns.
cold() {
    "$PYTHON" -c 'import os, sys; os.posix_fadvise(os.open(sys.argv[1], os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)' "$1"
}
echo "Measuring a cold start ..."
for _ in 1 2 3; do
    cold "$OUT/$PRESET-q8_0.gguf"
    start=$(date +%s%3N)
    cat "$OUT/$PRESET-q8_0.gguf" > /dev/null
    read_ms=$(($(date +%s%3N) - start))
    cold "$OUT/$PRESET-q8_0.gguf"
    echo "{\"read_ms\": $read_ms, \"engine\": $("$ENGINE" bench --model "$OUT/$PRESET-q8_0.gguf" --prefill 16 --batch 1 --tokens 1 | tr -d "\n")}"
done > "$OUT/cold.jsonl"

# rows_per_second CLIENTS ROWS: each client summarizes rows of a table, one after the other.
rows_per_second() {
    local start end
    start=$(date +%s.%N)
    for _ in $(seq "$1"); do
        psql -X -q -At -c "SELECT count(minimax_m1.summarize(body)) FROM message, generate_series(1, $2) i" > /dev/null &
    done
    wait
    end=$(date +%s.%N)
    awk -v n="$(($1 * $2))" -v s="$start" -v e="$end" 'BEGIN { printf "%.1f", n / (e - s) }'
}

echo "Measuring through SQL ..."
start_server "$OUT/server" "minimax_m1.temperature = 0" "minimax_m1.max_requests = 16"
psql -X -q <<'SQL'
CREATE EXTENSION minimax_m1;
CREATE TABLE message AS SELECT 'To whom it may concern, My air fryer was delivered to the wrong address. My order number is D-77904. I would like a refund. Best wishes, Keiko' AS body;
SQL
for clients in 1 4 16; do
    echo "{\"clients\": $clients, \"rows_per_s\": $(rows_per_second $clients 50)}"
done > "$OUT/sql.jsonl"

stop_server

# The random checkpoint speaks as m1-nano does, that is, nonsense in the same tokens.
cp models/m1-nano/tokenizer.json models/m1-nano/tokenizer_config.json "$OUT/$PRESET/"

# What SQL adds to a long reply: its time through SQL beside the engine's own in the same call, and beside the time that
# the command line tells. The two take turns at being first, as a processor's clock sinks while it works.
PROMPT="What is 47 + 35?"
REPLY_TOKENS=400
by_sql() {
    psql -XAt -c '\timing on' -c "SELECT '\"engine_ms\": ' || prefill_ms + decode_ms
        FROM minimax_m1.complete('$PROMPT', temperature => 0, max_tokens => $REPLY_TOKENS)" |
        sed -n 's/^Time: \([0-9.]*\) ms.*/, "sql_ms": \1/p; /engine_ms/p' | tr -d '\n'
}
by_command_line() {
    "$ENGINE" generate --model "$OUT/$PRESET" --weight-format q8_0 --max-context 2048 --prompt "$PROMPT" \
        --temperature 0 --max-tokens $REPLY_TOKENS --json
}
echo "Measuring SQL beside the command line ..."
start_server "$OUT/server" "minimax_m1.model = '$OUT/$PRESET'" "minimax_m1.weight_format = q8_0" \
    "minimax_m1.prefix_cache_size = 0" "minimax_m1.max_context = 2048"
psql -X -q -c 'CREATE EXTENSION minimax_m1'
wait_for_model
by_sql > /dev/null # the first call touches the memory of a sequence for the first time
for turn in 1 2 3 4 5 6; do
    [ $((turn % 2)) = 0 ] || sql=$(by_sql)
    cli=$(by_command_line)
    [ $((turn % 2)) = 1 ] || sql=$(by_sql)
    echo "{$sql, \"cli\": $cli}"
done > "$OUT/overhead.jsonl"
stop_server

. test/bench/template_rows.sh
{ template_rows "$PWD/models/m1-nano" 16 60; template_rows "$OUT/$PRESET" 4 5; } > "$OUT/template_rows.jsonl"

"$PYTHON" test/bench/report.py "$OUT" "$PRESET"
