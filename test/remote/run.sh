#!/usr/bin/env bash
# run.sh [ENGINE] - the proxy before a real server: llama.cpp's, as Debian forky packages it, with what `quantize` makes of
# m1-nano. Prints a line "ok ...", "not ok ..." or "skip ..." per case, and "done" at the end.
#
# The server lives in a folder that debootstrap makes, build/remote/forky, once; some 700 MB. It takes root and a mirror
# (MIRROR); where it cannot be made, all of it is skipped by that name.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
ENGINE=${1:-$PWD/build/minimax_m1_engine}
REMOTE=$PWD/build/remote
ROOT=$REMOTE/forky
MIRROR=${MIRROR:-http://deb.debian.org/debian}

skip() {
    echo "skip llama-server: $1"
    echo done
    exit 0
}

# made: the folder is there, whole. One that is not finished has another name. debootstrap is told to do as for sid,
# because it may be older than the suite; apt goes the same way to a mirror as here, however old that may be.
made() {
    [ ! -x "$ROOT/usr/bin/llama-server" ] || return 0
    rm -rf "$ROOT" "$ROOT.new"
    debootstrap --variant=minbase forky "$ROOT.new" "$MIRROR" sid || return 1
    cp /etc/resolv.conf "$ROOT.new/etc/"
    apt-config dump | grep -E '^Acquire::(http|Check-)' > "$ROOT.new/etc/apt/apt.conf.d/50outside"
    chroot "$ROOT.new" apt-get update || return 1
    DEBIAN_FRONTEND=noninteractive chroot "$ROOT.new" apt-get install -y --no-install-recommends llama.cpp-tools ||
        return 1
    mv "$ROOT.new" "$ROOT"
}

[ "$(id -u)" = 0 ] || skip "it takes root"
command -v debootstrap > /dev/null || skip "the package debootstrap is not installed"
mkdir -p "$REMOTE"
made > "$REMOTE/make.log" 2>&1 || skip "it could not be made, see $REMOTE/make.log"
"$ENGINE" quantize --weight-format stored --force models/m1-nano "$ROOT/root/m1-nano.gguf" > "$REMOTE/quantize.log" 2>&1 || exit 1
PYTHONPATH=test/proxy python3 test/remote/remote.py "$ENGINE" "$ROOT"
