#!/usr/bin/env bash
# bench.sh - speeds of the engine on the bundled checkpoint and on a larger random one, and rows per second through
# SQL. Prints one table and writes build/bench/results.json. Timings on a busy machine mean little: compare ratios of
# one run. BENCH_PRESET=small takes a smaller random checkpoint.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
trap stop_server EXIT

PRESET=${BENCH_PRESET:-bench}
OUT=$BUILD/bench
mkdir -p "$OUT"

# Debian's Python, which sees Debian's numpy (make bench installs it).
PYTHON=/usr/bin/python3

if [ ! -f "$OUT/$PRESET/config.json" ]; then
    echo "Making the random checkpoint \"$PRESET\" ..."
    "$PYTHON" test/tools/make_checkpoint.py "$PRESET" "$OUT/$PRESET"
fi

echo "Measuring the engine ..."
"$BUILD/minimax_m1_engine" bench --model models/m1-nano --prefill 512,4096,32768 --batch 1,4,16,64 --tokens 200 \
    > "$OUT/m1-nano.json"
"$BUILD/minimax_m1_engine" bench --model "$OUT/$PRESET" --prefill 512,4096 --batch 1,4,16 --tokens 24 \
    --max-context 16384 > "$OUT/$PRESET.json"

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
. test/bench/template_rows.sh
{ template_rows "$PWD/models/m1-nano" 16 10; template_rows "$OUT/$PRESET" 4 5; } > "$OUT/template_rows.jsonl"

"$PYTHON" - "$OUT" "$PRESET" <<'PY'
import glob
import json
import os
import sys

out, preset = sys.argv[1:]


def cache_bytes():
    """The largest cache; 0 where the kernel does not tell."""
    sizes = [open(path).read().strip() for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size")]
    return max((int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] for size in sizes), default=0)


def engine(name, folder):
    """What the engine measured. Weights that stay in a cache are not read from memory: no share of its bandwidth."""
    result = json.load(open(f"{out}/{name}.json"))
    result["weight_bytes"] = sum(map(os.path.getsize, glob.glob(f"{folder}/model*.safetensors")))
    result["weights_fit_cache"] = result["weight_bytes"] <= cache_bytes()
    if result["weights_fit_cache"]:
        result["decode_share_of_bandwidth"] = None
    return result


results = {"engine": [engine("m1-nano", "models/m1-nano"), engine(preset, f"{out}/{preset}")],
           "sql": [json.loads(line) for line in open(f"{out}/sql.jsonl")],
           "template_rows": [json.loads(line) for line in open(f"{out}/template_rows.jsonl")]}
json.dump(results, open(f"{out}/results.json", "w"), indent=2)
print()
for r in results["engine"]:
    print(f"{r['model']}: {r['parameters'] / 1e6:.0f} M parameters on {r['device']}")
    for n, rate in r["prefill_tokens_per_s"].items():
        print(f"  prefill of {n:>6} tokens  {rate:10.0f} tokens/s")
    for n, rate in r["decode_tokens_per_s"].items():
        print(f"  decode at batch {n:>3}      {rate:10.0f} tokens/s")
    print(f"  read per decoded token {r['bytes_per_token'] / 1e6:10.1f} MB")
    print(f"  memory bandwidth       {r['read_bandwidth_bytes_per_s'] / 1e9:10.1f} GB/s")
    if r["weights_fit_cache"]:
        print("  share reached, batch 1        n/a (the weights stay in the CPU's cache)")
    else:
        print(f"  share reached, batch 1 {100 * r['decode_share_of_bandwidth']:10.0f} %")
    print(f"  resident at most       {r['max_resident_bytes'] / 1e6:10.0f} MB")
print("m1-nano through SQL, one summary a row:")
for r in results["sql"]:
    print(f"  {r['clients']:>3} clients            {r['rows_per_s']:10.1f} rows/s")
print("through SQL, rows of 30 tokens over a template of 300:")
for r in results["template_rows"]:
    print(f"  {r['model']:>8}, {r['clients']:>2} clients {r['rows_per_s_without']:8.1f} rows/s, with snapshots "
          f"{r['rows_per_s_with']:8.1f} ({r['rows_per_s_with'] / r['rows_per_s_without']:.1f} times)")
print("\nWritten to build/bench/results.json")
PY
