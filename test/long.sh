#!/usr/bin/env bash
# long.sh FILES... - runs files of test/t however long they take, the files of an argument side by side and one argument
# after the other, and shows the figures that they print. What a file printed, and its figures, stay in build/long, where no
# other run removes them. Its status is the worst of all.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/lib.sh
KEPT=$BUILD/long

# keep FILE COMMIT: its log and its figures.
keep() {
    [ -f "$BUILD/tap/$1.log" ] || return
    cp "$BUILD/tap/$1.log" "$KEPT/$1.log"
    {
        echo "$1, $2, $(nproc) processors, until $(date '+%F %H:%M'):"
        sed -n 's/^# figure: /  /p' "$KEPT/$1.log"
    } | tee "$KEPT/$1.figures"
}

mkdir -p "$KEPT"
worst=0
for files; do
    commit=$(git describe --always --dirty 2> /dev/null || echo 'no commit')
    # SECONDS is bash's own variable, which make hands on
    # shellcheck disable=SC2086 # words are files
    env -u SECONDS TAP_SECONDS=86400 TAP="$(printf 'test/t/%s.pl ' $files)" test/run.sh tap
    status=$?
    # it did not begin
    [ $status != 2 ] || exit 2
    for file in $files; do
        keep "$file" "$commit"
    done
    [ $status -le $worst ] || worst=$status
done
exit $worst
