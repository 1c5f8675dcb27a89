#!/usr/bin/env bash
# run.sh [PART...] - runs the tests, all parts by default, and ends with the line "N passed, M failed".
#
#   rooms       the layout of src, and that scripts/rooms.py notices what breaks it
#   unit        cmocka programs over the engine's code
#   unit-san    the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   fuzz        readers of files, texts and frames: inputs that are kept, and some made of them, sanitized
#   golden      every checkpoint's golden numbers and greedy cases, through the command line; on an emulated GPU, too;
#               and trainings
#   bundle      what a machine with a GPU is given: that it runs from an empty folder, the GPU emulated
#   proxy       servers elsewhere, which also misbehave: every dialect and fault, without a server of PostgreSQL
#   schemas     1,000 random JSON schemas: the bundled model's answers before another one's validator
#   regress     pg_regress: the SQL interface
#   readme      the examples of the README and of docs/, all links, and what docs/ says of the code
#   demo        the demo comes to its end, and its training learns the rule
#   setup       which packages set-up asks for, and a clone that only root can enter
#   isolation   several sessions at once
#   tap         servers that are stopped, killed, overloaded and misconfigured; TAP=test/t/005_overload.pl runs only
#               that, each file for at most TAP_SECONDS
#
# A part is one or several jobs: programs, each with a log of its own that says what passed. There are two lanes, and in
# each run as many jobs side by side as there are processors, long ones first. Jobs that start servers mostly wait; what
# they need is built first. The others compute, and leave the processors to servers when these have something to do; what
# they need is built beside the first jobs. A part is told of when its last job has ended, with the seconds that its jobs
# took together.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/lib.sh

PGXS_TEST=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
SLOTS=$(nproc)
LANES=(serve compute)
NICE=10 # of what computes

# One locale wherever the tests run. A container has none, and servers would take another encoding there.
unset "${!LC_@}" LANGUAGE
export LANG=C.UTF-8

# Of each part: its results so far, its jobs that have not ended, and in the end a line of the summary.
declare -A PASSED FAILED SKIPPED TOOK LEFT SUMMARY

# Of each case that failed: where, and its name.
FAILURES=()

# Of each job: what it belongs to, and how it is run.
JOB_PART=() JOB_KIND=() JOB_NAME=() JOB_COMMAND=()

# Of each lane: the jobs to come, in their order, and how many run.
QUEUE_serve=() QUEUE_compute=()
declare -A BUSY=([serve]=0 [compute]=0)

# Process ids of what runs, each with the job's number, or with "build".
declare -A RUNNING=()

# One run at a time: it removes what another one here has in build, its servers included.
mkdir -p "$BUILD"
exec {LOCK}<> "$BUILD/test.lock"
if ! flock --nonblock "$LOCK"; then
    echo "Other tests run in this checkout, as process $(cat "$BUILD/test.lock"): wait for them, or take another clone." >&2
    exit 2
fi
echo $$ > "$BUILD/test.lock"

# However this script ends, nothing that it started goes on.
leave() {
    trap '' INT TERM HUP
    if [ ${#RUNNING[@]} -gt 0 ]; then
        kill -TERM "${!RUNNING[@]}" 2> /dev/null
        wait "${!RUNNING[@]}"
        # a server that was just being started gets as far as its pid file
        sleep 1
    fi
    stop_servers_below "$BUILD/regress" "$BUILD/readme" "$BUILD/demo" "$BUILD/setup" "$BUILD/isolation" "$BUILD/tap"
    remove_temporary
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# limited SECONDS COMMAND...: starts it in the background, because bash heeds a signal only between foreground commands;
# timeout gives it a process group of its own and passes signals on to all of it. A background command would ignore
# SIGINT, and so would the servers that it starts, hence env. What outlives this script holds no lock.
limited() {
    env --default-signal=INT,QUIT timeout -k 30 "$@" < /dev/null {LOCK}>&- &
}

# ---- building ----

# What make is asked for, by part. Those that need the staged installation start servers.
declare -A NEEDS=(
    [rooms]=""
    [unit]="unit"
    [unit-san]="unit-san"
    [fuzz]="unit-san"
    [golden]="all build/minimax_m1_engine_emulated build/million/million"
    [bundle]="build/minimax_m1_engine_emulated build/gpu/bench_emulated unit"
    [schemas]="schemas"
    [proxy]="all"
    [regress]="stage"
    [readme]="stage"
    [demo]="stage"
    [setup]="stage"
    [isolation]="stage"
    [tap]="stage"
)

lane_of() {
    [ "${NEEDS[$1]}" = stage ] && echo serve || echo compute
}

# made OPTION_OR_TARGET...: whether make makes them; 124 or 137 when that takes longer than BUILD_SECONDS. Jobs go on meanwhile.
made() {
    [ $# -gt 0 ] || return 0
    limited "${BUILD_SECONDS:-1200}" nice -n "$NICE" scripts/quietly.sh make --no-print-directory -j "$SLOTS" "$@"
    RUNNING[$!]=build
    BUILD_STATUS=
    while [ -z "$BUILD_STATUS" ]; do
        start_jobs
        await
    done
    return "$BUILD_STATUS"
}

# prepare LANE PART...: builds what these parts of the lane need, all at once and as far as that goes, and queues their jobs.
# What does not build fails the parts that need it, and no others: each of these tries what is missing, and shows why.
prepare() {
    local lane=$1 all targets=()
    local -n queue=QUEUE_$lane
    shift
    for PART in "$@"; do
        read -ra targets <<< "${targets[*]} ${NEEDS[$PART]}"
    done
    made ${targets[0]+--keep-going} "${targets[@]}" 2> /dev/null
    all=$?
    [ $all -lt 124 ] || echo "make was not done after ${BUILD_SECONDS:-1200} s"
    for PART in "$@"; do
        # shellcheck disable=SC2086 # words are targets
        if [ $all = 0 ] || { [ $all -lt 124 ] && made ${NEEDS[$PART]}; }; then
            "jobs_of_${PART//-/_}"
        else
            echo "$PART was not built"
            FAILED[$PART]=1
            FAILURES+=("$PART: was not built")
            finish_part "$PART"
        fi
    done
    mapfile -t queue < <(order "$lane")
}

# ---- jobs ----

# About how many seconds the long ones take, as build/durations tells. They begin first, so that no processor is idle at
# the end.
declare -A EXPECTED=(
    [san/unit/test_cuda_engine]=150 [san/unit/test_cuda]=80 [san/unit/test_prefix]=60 [san/unit/test_cuda_sample]=60
    [san/unit/test_cuda_group]=50 [san/unit/test_constraint]=30 [san/unit/test_answers]=30 [san/unit/test_engine]=20
    [unit/test_cuda_engine]=60 [unit/test_cuda]=30 [unit/test_cuda_sample]=28
    [unit/test_cuda_group]=14 [golden]=60 [golden-cuda]=60 [golden-cuda-2]=30 [schemas]=20 [fuzz]=20 [proxy]=90 [proxy-faults]=200 [readme]=20 [demo]=70
    [bundle]=90
    [tap/009_slow_client]=60 [tap/014_reload]=40 [tap/030_jobs]=30 [tap/020_batch]=25 [tap/033_clients]=25
    [tap/041_clients]=25 [tap/005_overload]=20 [tap/017_shutdown_moments]=20 [tap/031_drain]=20 [tap/035_update]=20
    [tap/060_mcp]=25 [tap/061_openai]=30
    [tap/062_gateway_http]=35 [tap/063_gateway_clients]=70 [tap/050_hostile]=40 [tap/051_kills]=20
    [san/unit/test_train]=55 [san/unit/test_train_adapter]=70 [san/unit/test_train_batch]=55 [regress]=60
    [tap/037_memory]=25 [tap/043_slow_rows]=40 [tap/056_training]=45 [tap/058_spam]=55 [tap/059_training_kills]=40
    [tap/070_elsewhere]=25)

# job LIMIT KIND NAME COMMAND...: a job of PART, which takes at most LIMIT seconds. Its log is NAME.log in build; KIND
# says how that is read.
job() {
    local manners=()
    [ "$(lane_of "$PART")" = serve ] || manners=(nice -n "$NICE")
    JOB_PART+=("$PART")
    JOB_KIND+=("$2")
    JOB_NAME+=("$3")
    JOB_COMMAND+=("$(printf '%q ' "$1" "${manners[@]}" "${@:4}")")
    LEFT[$PART]=$((LEFT[$PART] + 1))
}

# programs FOLDER: each test program of the folder below build.
programs() {
    local source name
    for source in test/unit/test_*.c; do
        name=$(basename "$source" .c)
        job 600 cmocka "$1/$name" "$BUILD/$1/$name"
    done
}

jobs_of_rooms() {
    job 120 lines rooms python3 test/rooms/check.py
}

jobs_of_unit() {
    programs unit
}

jobs_of_unit_san() {
    programs san/unit
}

jobs_of_fuzz() {
    local source name
    for source in test/fuzz/*.c; do
        name=$(basename "$source" .c)
        job 120 lines "san/fuzz/$name" "$BUILD/san/fuzz/$name" "${FUZZ_EXECUTIONS:-500}" test/fuzz/inputs/"$name"/*
    done
    job 120 lines fuzz test/fuzz/test.sh
}

jobs_of_golden() {
    job 900 lines golden python3 test/golden/golden.py "$BUILD/minimax_m1_engine"
    job 900 lines golden-adapters python3 test/golden/adapters.py "$BUILD/minimax_m1_engine"
    job 900 lines golden-cuda python3 test/golden/cuda.py "$BUILD/minimax_m1_engine_emulated" 34
    job 600 lines golden-million test/million/run.sh "$BUILD/million/million" "$BUILD/million/m1-nano" 20000
    job 300 lines golden-claims /usr/bin/python3 test/bench/claims.py "$BUILD/minimax_m1_engine" "$BUILD/claims" 1000
    job 300 lines golden-gradients python3 test/golden/gradients.py "$BUILD/minimax_m1_engine"
    job 300 lines golden-gradients-cuda python3 test/golden/gradients.py "$BUILD/minimax_m1_engine_emulated" cuda ce_aux
    job 300 lines training python3 test/golden/training.py "$BUILD/minimax_m1_engine"
    job 900 lines nano python3 test/golden/nano.py "$BUILD/minimax_m1_engine"
    job 300 lines learning python3 test/golden/learning.py "$BUILD/minimax_m1_engine"
    job 900 lines golden-cuda-2 python3 test/golden/cuda.py "$BUILD/minimax_m1_engine_emulated" 34 2
}

jobs_of_bundle() {
    job 600 lines bundle test/gpu/test.sh
}

jobs_of_schemas() {
    job 900 lines schemas python3 test/schemas/schemas.py "$BUILD/schemas/answers"
}

jobs_of_proxy() {
    job 600 lines proxy python3 test/proxy/proxy.py "$BUILD/minimax_m1_engine"
    job 600 lines proxy-faults python3 test/proxy/faults.py "$BUILD/minimax_m1_engine"
    job 600 lines proxy-table python3 test/proxy/table.py "$BUILD/minimax_m1_engine"
}

# regress_like RUNNER ARGUMENTS...: pg_regress and pg_isolation_regress start a server and print the same lines.
regress_like() {
    local out=$BUILD/$PART
    own_folder "$out"
    own_folder "$out/sock"
    { staged_settings; cat test/regress.conf; } > "$out.conf"
    socket_folder "$out/sock"
    job 1200 regress "$PART" env "PG_REGRESS_SOCK_DIR=$SOCKET_FOLDER" "${AS_USER[@]}" "$1" --bindir="$PG_BIN" \
        --temp-instance="$out/instance" --temp-config="$out.conf" --outputdir="$out" --load-extension=minimax_m1 \
        "${@:2}"
}

jobs_of_regress() {
    regress_like "$PGXS_TEST/regress/pg_regress" --inputdir=. basic errors privileges annotate conversations agents \
        operators limits jobs annotators rewards corrections trainings training_control training_tasks
}

jobs_of_isolation() {
    local specs=(test/isolation/specs/*.spec)
    specs=("${specs[@]##*/}")
    regress_like "$PGXS_TEST/isolation/pg_isolation_regress" --inputdir=test/isolation "${specs[@]%.spec}"
}

jobs_of_readme() {
    job 600 lines readme test/readme/run.sh
}

jobs_of_demo() {
    job 900 lines demo test/demo/run.sh
}

jobs_of_setup() {
    job 600 lines setup test/setup/run.sh
}

jobs_of_tap() {
    local file settings
    own_folder "$BUILD/tap"
    own_folder "$BUILD/tap/tmp"
    # packages of npm stay from one run to the next
    mkdir -p "$BUILD/npm"
    [ "$(id -u)" != 0 ] || chown "$PG_USER" "$BUILD/npm"
    socket_folder "$BUILD/tap/tmp"
    settings=$(staged_settings)
    for file in ${TAP:-test/t/*.pl}; do
        # PostgreSQL 14 and 15 read TESTDIR, later versions the two that follow it. A session in the background lives as
        # long as its timeout, which begins with it.
        job "${TAP_SECONDS:-600}" tap "tap/$(basename "$file" .pl)" \
            env "M1_ROOT=$ROOT" "M1_SETTINGS=$settings" "M1_ENGINE=$STAGE$PG_LIB/minimax_m1_engine" \
            "PG_REGRESS=$PGXS_TEST/regress/pg_regress" "TESTDIR=$BUILD/tap" "TESTDATADIR=$BUILD/tap/data" \
            "TESTLOGDIR=$BUILD/tap/log" "TMPDIR=$SOCKET_FOLDER" "HOME=$BUILD/tap" "PATH=$PG_BIN:$PATH" \
            PG_TEST_TIMEOUT_DEFAULT=900 \
            "${AS_USER[@]}" prove -I "$PGXS_TEST/perl" -I test/t --timer --verbose "$file"
    done
}

# ---- results ----

lines() {
    grep -cE "$1" "$2"
}

# count_KIND LOG: sets passed and skipped.
count_cmocka() {
    passed=$(lines '^\[       OK \]' "$1")
    skipped=$(lines '^\[  SKIPPED \] [A-Za-z_0-9]+$' "$1")
}

count_lines() {
    passed=$(lines '^ok ' "$1")
    skipped=$(lines '^skip ' "$1")
}

# "test NAME ... ok", or since PostgreSQL 16 "ok 1 - NAME"
count_regress() {
    passed=$(lines '^(test .* ok |ok )' "$1")
    skipped=0
}

# A file that is skipped as a whole has planned 1..0, of which prove says "skipped".
count_tap() {
    skipped=$(lines '^ok [0-9]+.*# *(skip|SKIP)' "$1")
    passed=$(($(lines '^ok [0-9]+' "$1") - skipped))
    skipped=$((skipped + $(lines '^1\.\.0 # *(skip|SKIP)|\.\. skipped: ' "$1")))
}

# cases_KIND LOG: the names of those that failed, a line each.
# A failure is told where it happens and again at the end, if the program has come there.
cases_cmocka() {
    sed -nE 's/^\[  FAILED  \] ([A-Za-z_0-9]+)$/\1/p' "$1" | sort -u
}

cases_lines() {
    sed -n 's/^not ok //p' "$1"
}

cases_regress() {
    sed -nE 's/^(test (.*) FAILED.*|not ok(.*))$/\2\3/p' "$1"
}

cases_tap() {
    sed -nE 's/^not ok ([0-9]+)( - )?/\1 /p' "$1"
}

# show_KIND LOG: what to see of a job that failed.
show_cmocka() {
    grep -vE '^\[( RUN|       OK|=|-)' "$1" | tail -n 40
}

show_lines() {
    grep -vE '^(ok|skip) |^done$' "$1"
}

show_regress() {
    local diffs=${1%.log}/regression.diffs
    cat "$1"
    [ ! -f "$diffs" ] || head -n 200 "$diffs"
}

show_tap() {
    grep -E '^(not ok|# |.*(Dubious|Failed|Wstat))' "$1" | head -n 80
}

# remember_failures NAME [CASE...]: what the last lines say of it, which may be all that somebody has of this run.
remember_failures() {
    local case
    for case in "${@:2:10}"; do
        FAILURES+=("$1: $case")
    done
}

# finish_job NUMBER STATUS SECONDS: adds its cases to those of its part. A job that ended badly, or in which nothing
# ran, has failed even if none of its cases did: a program that crashes has not come to name what failed.
finish_job() {
    local part=${JOB_PART[$1]} kind=${JOB_KIND[$1]} name=${JOB_NAME[$1]} passed failed skipped cases
    local log=$BUILD/$name.log
    "count_$kind" "$log"
    mapfile -t cases < <("cases_$kind" "$log")
    failed=${#cases[@]}
    if [ "$failed" = 0 ] && { [ "$2" != 0 ] || [ $((passed + skipped)) = 0 ]; }; then
        failed=1
        cases=("ended with status $2")
        echo "$name ended with status $2 after $passed cases that passed"
    elif [ "$2" != 0 ]; then
        echo "$name failed:"
    fi
    if [ "$2" != 0 ] || [ "$failed" != 0 ]; then
        "show_$kind" "$log"
        remember_failures "$name" "${cases[@]}"
    fi
    echo "$3 $name" >> "$BUILD/durations"
    PASSED[$part]=$((PASSED[$part] + passed))
    FAILED[$part]=$((FAILED[$part] + failed))
    SKIPPED[$part]=$((SKIPPED[$part] + skipped))
    TOOK[$part]=$((TOOK[$part] + $3))
    LEFT[$part]=$((LEFT[$part] - 1))
    [ "${LEFT[$part]}" != 0 ] || finish_part "$part"
}

finish_part() {
    SUMMARY[$1]=$(printf '%-10s %4d passed, %d failed' "$1" "${PASSED[$1]}" "${FAILED[$1]}")
    [ "${SKIPPED[$1]}" = 0 ] || SUMMARY[$1]+=", ${SKIPPED[$1]} skipped"
    SUMMARY[$1]+=" (${TOOK[$1]} s)"
    echo "--- ${SUMMARY[$1]}"
}

# ---- running ----

# start_job NUMBER
start_job() {
    local command lane
    eval "command=(${JOB_COMMAND[$1]})"
    lane=$(lane_of "${JOB_PART[$1]}")
    limited "${command[@]}" > "$BUILD/${JOB_NAME[$1]}.log" 2>&1
    RUNNING[$!]=$1
    STARTED[$1]=$SECONDS
    BUSY[$lane]=$((BUSY[$lane] + 1))
}

# Starts what there is room for.
start_jobs() {
    local lane
    for lane in "${LANES[@]}"; do
        local -n jobs_to_come=QUEUE_$lane
        while [ "${BUSY[$lane]}" -lt "$SLOTS" ] && [ ${#jobs_to_come[@]} -gt 0 ]; do
            start_job "${jobs_to_come[0]}"
            jobs_to_come=("${jobs_to_come[@]:1}")
        done
    done
}

# Waits until something that runs has ended.
await() {
    local pid status what lane
    wait -n -p pid "${!RUNNING[@]}"
    status=$?
    what=${RUNNING[$pid]}
    unset "RUNNING[$pid]"
    if [ "$what" = build ]; then
        BUILD_STATUS=$status
        echo "--- built after $SECONDS s"
        return
    fi
    lane=$(lane_of "${JOB_PART[what]}")
    BUSY[$lane]=$((BUSY[$lane] - 1))
    finish_job "$what" $status $((SECONDS - STARTED[what]))
}

# order LANE: the numbers of its jobs, long ones first.
order() {
    local number
    for number in "${!JOB_NAME[@]}"; do
        [ "$(lane_of "${JOB_PART[number]}")" != "$1" ] || echo "${EXPECTED[${JOB_NAME[number]}]:-5} $number"
    done | sort -k1,1nr -k2,2n | cut -d ' ' -f 2
}

[ $# -gt 0 ] || set -- rooms unit unit-san fuzz golden bundle schemas proxy regress readme demo setup isolation tap
for PART in "$@"; do
    if [ ! -v "NEEDS[$PART]" ]; then
        echo "There is no part \"$PART\"." >&2
        exit 2
    fi
    PASSED[$PART]=0 FAILED[$PART]=0 SKIPPED[$PART]=0 TOOK[$PART]=0 LEFT[$PART]=0
done

STARTED=()
: > "$BUILD/durations"
for lane in "${LANES[@]}"; do
    parts=()
    for PART in "$@"; do
        [ "$(lane_of "$PART")" != "$lane" ] || parts+=("$PART")
    done
    prepare "$lane" "${parts[@]}"
done
while start_jobs && [ ${#RUNNING[@]} -gt 0 ]; do
    await
done

echo
passed=0 failed=0 skipped=0
for PART in "$@"; do
    echo "${SUMMARY[$PART]}"
    passed=$((passed + PASSED[$PART]))
    failed=$((failed + FAILED[$PART]))
    skipped=$((skipped + SKIPPED[$PART]))
done
if [ ${#FAILURES[@]} -gt 0 ]; then
    printf '\nfailed:\n'
    printf '  %s\n' "${FAILURES[@]}"
fi
TOTAL="$passed passed, $failed failed"
[ $skipped = 0 ] || TOTAL+=", $skipped skipped"
echo
echo "$TOTAL" | tee "$BUILD/total"
[ $failed = 0 ] && [ $passed -gt 0 ]
