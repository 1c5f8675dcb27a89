#!/usr/bin/env bash
# quietly.sh COMMAND...: runs a command and shows the end of its output only if it fails.
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
"$@" > build/quietly.log 2>&1 && exit 0
tail -n 40 build/quietly.log >&2
exit 1
