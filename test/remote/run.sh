#!/usr/bin/env bash
# run.sh [WHAT] - the proxy before a real server: llama.cpp's, as Debian forky packages it, with what `quantize` makes of
# m1-nano. WHAT is frames (as the worker speaks), sql, or bench, which compares speeds; the first two by default. Prints a
# line "ok ...", "not ok ..." or "skip ..." per case, and "done" at the end of each.
#
# The server lives in a folder that debootstrap makes, build/remote/forky, once; some 700 MB. It takes root and a mirror
# (MIRROR); without one of these, all of it is skipped by that name.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. scripts/lib.sh
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
[ $# -gt 0 ] || set -- frames sql
ENGINE=$BUILD/minimax_m1_engine
REMOTE=$BUILD/remote
FORKY=$REMOTE/forky
MIRROR=${MIRROR:-http://deb.debian.org/debian}

skip() {
    echo "skip llama-server: $1"
    echo done
    exit 0
}

# made: the folder is there, whole. One that is not finished has another name. debootstrap is told to do as for sid,
# because it may be older than the suite, and what it mounts is its own, so that nothing stays mounted there when it is
# killed; apt goes the same way to a mirror as here, however old that may be.
made() {
    [ ! -x "$FORKY/usr/bin/llama-server" ] || return 0
    rm -rf "$FORKY" "$FORKY.new"
    unshare --mount debootstrap --variant=minbase forky "$FORKY.new" "$MIRROR" sid || return 1
    cp /etc/resolv.conf "$FORKY.new/etc/"
    apt-config dump | grep -E '^Acquire::(http|Check-)' > "$FORKY.new/etc/apt/apt.conf.d/50outside"
    chroot "$FORKY.new" apt-get update || return 1
    DEBIAN_FRONTEND=noninteractive chroot "$FORKY.new" apt-get install -y --no-install-recommends llama.cpp-tools ||
        return 1
    mv "$FORKY.new" "$FORKY"
}

[ "$(id -u)" = 0 ] || skip "it takes root"
command -v debootstrap > /dev/null || skip "the package debootstrap is not installed"
mkdir -p "$REMOTE"
if ! made > "$REMOTE/make.log" 2>&1; then
    ! grep -q 'Failed getting release file' "$REMOTE/make.log" || skip "$MIRROR does not answer, or has no forky"
    echo "not ok llama-server is there; $REMOTE/make.log ends with"
    tail -n 30 "$REMOTE/make.log"
    exit 1
fi
"$ENGINE" quantize --weight-format stored --force models/m1-nano "$REMOTE/m1-nano.gguf" > "$REMOTE/quantize.log" 2>&1 &&
    cp "$REMOTE/m1-nano.gguf" "$FORKY/root/" || exit 1
export PYTHONPATH=test/remote:test/proxy:test/readme PYTHONDONTWRITEBYTECODE=1
status=0
for what in "$@"; do
    case $what in
        frames)
            python3 test/remote/remote.py "$ENGINE" "$FORKY" || status=1
            ;;
        sql | bench)
            start_server "$REMOTE/postgresql" "minimax_m1.max_requests = 64" "max_connections = 120" || exit 1
            psql -X -q -c 'CREATE EXTENSION minimax_m1' && python3 "test/remote/$what.py" "$FORKY" "$REMOTE/m1-nano.gguf" || status=1
            stop_server
            ;;
    esac
done
exit $status
