# shellcheck shell=bash
# template_rows.sh - sourced by bench.sh, after scripts/lib.sh: rows per second over a template of 300 tokens with rows
# of 30 tokens and replies of 4, with prefix snapshots and without.

# template_rows MODEL CLIENTS ROWS: prints one line of JSON. MODEL is a checkpoint folder with a tokenizer. Each client
# works through ROWS rows; three runs with snapshots and three without take turns, and their medians count.
template_rows() {
    local model=$1 clients=$2 rows=$3 size with=() without=()
    start_server "$OUT/template_server" "minimax_m1.model = '$model'" "minimax_m1.max_requests = 16" \
        "minimax_m1.default_thinking_budget = 0" "minimax_m1.prefix_cache_size = 0" "minimax_m1.max_context = 2048"
    psql -X -q -c 'CREATE EXTENSION minimax_m1'
    wait_for_model
    psql -X -q > /dev/null <<'SQL'
-- words of which the tokenizer is known to make a token each, as near as can be to the wanted numbers of tokens
CREATE FUNCTION words(n int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    words text := '';
BEGIN
    WHILE minimax_m1.count_tokens(words) < n LOOP
        words := words || (ARRAY['The', 'customer', 'wants', 'a', 'refund', 'of', 'the', 'parcel', 'and', 'box'])[1 + length(words) % 10] || ' ';
    END LOOP;
    RETURN words;
END $$;
CREATE TABLE template AS SELECT words(300) AS instruction;
CREATE TABLE data AS SELECT i, i || ' ' || words(26) || i AS body FROM generate_series(1, 1000) i;
SQL
    for _ in 1 2 3; do
        for size in 0 256; do
            set_prefix_cache "$size"
            psql -X -q -c 'SELECT minimax_m1.stats_reset()' > /dev/null
            if [ "$size" = 0 ]; then
                without+=("$(time_template_rows "$clients" "$rows")")
            else
                with+=("$(time_template_rows "$clients" "$rows")")
            fi
        done
    done
    psql -XAtq -c "SELECT json_build_object('model', name, 'clients', $clients, 'rows', $clients * $rows,
        'tokens_per_prompt', prompt_tokens / ($clients * $rows), 'cached_per_prompt', cached_tokens / ($clients * $rows),
        'rows_per_s_with', (ARRAY[$(sorted "${with[@]}")])[2], 'rows_per_s_without', (ARRAY[$(sorted "${without[@]}")])[2])
        FROM minimax_m1.stats, minimax_m1.model"
    stop_server
}

# set_prefix_cache MB: restarts the engine with it.
set_prefix_cache() {
    local before
    before=$(psql -XAtq -c 'SELECT engine_pid FROM minimax_m1.model')
    [ "$(psql -XAtq -c "SELECT setting FROM pg_settings WHERE name = 'minimax_m1.prefix_cache_size'")" != "$1" ] || return 0
    psql -X -q -c "ALTER SYSTEM SET minimax_m1.prefix_cache_size = '$1MB'" -c 'SELECT pg_reload_conf()' > /dev/null
    until [ "$(psql -XAtq -c 'SELECT engine_pid FROM minimax_m1.model')" != "$before" ]; do sleep 0.05; done
    wait_for_model
}

# time_template_rows CLIENTS ROWS: prints rows per second.
time_template_rows() {
    local start end client
    start=$(date +%s.%N)
    for client in $(seq "$1"); do
        psql -X -q -At -c "SELECT count(minimax_m1.summarize(body, instruction, 4)) FROM template, data
            WHERE i > ($client - 1) * $2 AND i <= $client * $2" > /dev/null &
    done
    wait
    end=$(date +%s.%N)
    awk -v n="$(($1 * $2))" -v s="$start" -v e="$end" 'BEGIN { printf "%.2f", n / (e - s) }'
}

# sorted NUMBER...: in order, with commas between.
sorted() {
    printf '%s\n' "$@" | sort -g | paste -sd,
}
