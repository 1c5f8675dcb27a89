#!/usr/bin/env bash
# test.sh - how many executions test/fuzz/run.sh asks of targets, and what it makes of their ends. The targets are scripts
# here, one of which is ten times as fast as the other. Prints a line "ok ..." or "not ok ..." per case.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
export FUZZ=$FOLDER TRIAL=1

# target NAME EACH [MOST]: takes EACH seconds for 100 executions, has no more than MOST at once, and notes its options.
target() {
    mkdir -p "$FOLDER/fuzz"
    cat > "$FOLDER/fuzz/$1" << END
#!/usr/bin/env bash
echo "\$1 \$2" >> "$FOLDER/asked"
time=\${1#-max_total_time=} runs=\${2#-runs=} done=0 most=${3:-1000000000} began=\$SECONDS
while [ "\$runs" -lt 0 -o "\$done" -lt "\$runs" ] && [ "\$time" = 0 -o \$((SECONDS - began)) -lt "\$time" ]; do
    sleep $2
    done=\$((done + 100))
    [ "\$done" -lt "\$most" ] || break
done
echo "stat::number_of_executed_units: \$done"
[ "\$done" -lt "\$most" ]
END
    chmod +x "$FOLDER/fuzz/$1"
}

# run SECONDS: of the targets utf8 and regex, whose folders are there; sets STATUS.
run() {
    : > "$FOLDER/asked"
    test/fuzz/run.sh "$1" utf8 regex > "$FOLDER/said" 2>&1
    STATUS=$?
}

# executions NAME
executions() {
    sed -nE "s/^$1 +([0-9]+) executions.*/\1/p" "$FOLDER/said"
}

# report WHAT: by the status of the command before.
report() {
    if [ $? = 0 ]; then
        echo "ok $1"
    else
        echo "not ok $1"
        sed 's/^/# /' "$FOLDER/said" "$FOLDER/asked"
    fi
}

target utf8 0.01
target regex 0.1
run 1
[ $STATUS = 0 ] && [ "$(grep -c -- '-max_total_time=1 -runs=-1' "$FOLDER/asked")" = 2 ]
report "each target has so many seconds"
EXECUTIONS=10000 run 0
[ $STATUS = 0 ] && [ "$(executions all)" -ge 10000 ] && [ "$(tail -n 2 "$FOLDER/asked" | grep -c -- '-max_total_time=0 ')" = 2 ]
report "EXECUTIONS is the sum of all, however long they take"
# of what is left behind the trial; ten times as many, on a machine that has nothing else to do
tail -n 2 "$FOLDER/asked" | sed 's/.*-runs=//' | { read -r cheap && read -r dear && [ "$cheap" -gt "$dear" ]; }
report "a cheap target has more of them"
EXECUTIONS=1000000 run 1
[ $STATUS != 0 ] && grep -q 'There should have been 1000000 executions' "$FOLDER/said"
report "fewer than were asked for are a failure"
target regex 0.01 500
EXECUTIONS=10000 run 0
[ $STATUS != 0 ] && grep -q '1 targets found something' "$FOLDER/said"
report "so is what a target finds"
EXECUTIONS=1e8 run 0
[ $STATUS = 2 ]
report "what is no number is refused"
