#!/usr/bin/env bash
# run.sh - the demo, as everybody sees it: that it comes to its end without an error, and that its training learns the
# rule, from no more answers than it is promised to take. Prints a line "ok ..." or "not ok ..." per case. test/run.sh
# runs it, and stops the server should this script be killed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. scripts/lib.sh
SHOWN=$BUILD/demo.shown
MOST_ANSWERS=5400 # to be drawn and graded until the rule is learnt

# ok WHAT COMMAND...: whether the command succeeds.
ok() {
    local what=$1
    shift
    if "$@" > "$SHOWN.why" 2>&1; then
        echo "ok $what"
    else
        echo "not ok $what: $(tail -n 5 "$SHOWN.why" | paste -sd ' ')"
    fi
}

no_errors() {
    ! grep -E 'ERROR|WARNING|FATAL|PANIC' "$SHOWN" | grep -v 'the request was cancelled'
}

# mean ADAPTER: what it got for the letters that nothing was learnt from.
mean() {
    awk -F'|' -v adapter="$1" '$1 ~ "^ *" adapter " *$" && NF == 7 { print $3 + 0 }' "$SHOWN"
}

# is_between LEAST NUMBER MOST
is_between() {
    echo "$2, from $1 to $3"
    [ -n "$2" ] && awk "BEGIN { exit !($1 <= $2 && $2 <= $3) }"
}

scripts/demo.sh > "$SHOWN" 2>&1
ok "the demo comes to its end" [ $? = 0 ]
ok "without an error" no_errors
ok "at first the rule is a matter of chance" is_between 0.2 "$(mean base)" 0.7
ok "unseen letters are answered by the rule that was learnt" is_between 0.9 "$(mean voucher)" 1
ok "from as many answers as that takes" is_between 1 "$(grep -oE '[0-9]+ answers were drawn' "$SHOWN" | grep -oE '[0-9]+')" $MOST_ANSWERS
ok "the curve shows what held-out rows got" grep -q '┤.*◆' "$SHOWN"
echo 'done'
