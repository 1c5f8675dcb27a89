#!/usr/bin/env bash
# beside.sh - how long a request of another session takes while a training runs: SECONDS_EACH without one and as long beside
# it, in turns of ROUNDS, by CLIENTS at once. The training is that of the voucher rule, with what train() takes by default.
# Prints a line a measurement, and writes build/bench/beside.tsv. Timings on a busy machine mean little: compare ratios of
# one run.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

OUT=$BUILD/bench
mkdir -p "$OUT"
LOGS=$(as_user mktemp -d /tmp/minimax_m1_beside.XXXXXX)
leave() {
    rm -rf "$LOGS"
    stop_server
}
trap leave EXIT

start_server "$OUT/server" "minimax_m1.threads = ${THREADS:-0}"
psql -X -q -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION minimax_m1' -f test/t/mail.sql
wait_for_model
echo "SELECT minimax_m1.generate('Hello.', temperature => 0);" > "$OUT/beside.sql"

# sql STATEMENT
sql() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

# measure WHAT: how long the requests took, in ms.
measure() {
    (cd "$LOGS" && as_user pgbench -n -c "${CLIENTS:-1}" -T "${SECONDS_EACH:-20}" -l -f "$OUT/beside.sql" > pgbench.out 2>&1) || cat "$LOGS/pgbench.out"
    cat "$LOGS"/pgbench_log.* | awk '{ print $3 / 1000 }' | sort -n | awk -v what="$1" -v load="$(cut -d' ' -f1 /proc/loadavg)" '
        { t[NR] = $1; sum += $1 }
        END { printf "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%s\n", what, NR, t[int((NR - 1) * 0.5) + 1], t[int((NR - 1) * 0.99) + 1], t[NR], sum / NR, load }'
    rm -f "$LOGS"/pgbench_log.*
}

# resume: the training goes on, and is in the middle of a step.
resume() {
    sql "SELECT minimax_m1.resume_training('voucher')"
    sleep 2
}

pause() {
    sql "SELECT minimax_m1.pause_training('voucher'); "
    sql "CALL minimax_m1.wait_for_training('voucher')"
}

sql "SELECT minimax_m1.train('voucher', examples => \$\$SELECT E'Answer yes or no: the customer gets a voucher.\\n\\n' || body AS prompt, voucher
     FROM mail\$\$, reward => 'voucher_ok', steps => 1000000, max_tokens => 60)" > /dev/null
pause
{
    printf 'what\trequests\tp50_ms\tp99_ms\tmost_ms\tmean_ms\tload\n'
    for _ in $(seq "${ROUNDS:-3}"); do
        measure alone
        resume
        measure beside
        pause
    done
} | tee "$OUT/beside.tsv"
awk 'NR > 1 { n[$1]++; p50[$1] += $3; p99[$1] += $4 }
     END { printf "beside a training: p50 %.2f times, p99 %.2f times what it is alone\n",
                  p50["beside"] / p50["alone"], p99["beside"] / p99["alone"] }' "$OUT/beside.tsv"
