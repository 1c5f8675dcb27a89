#!/usr/bin/env bash
# run.sh [SUITE...] - `make demo` and `make test` as a newcomer runs them: on a bare Debian of each suite (bookworm with
# PostgreSQL 15, trixie with 17, forky with 18 by default), in a fresh copy of the tracked files as they are when this
# begins. Ends with the line "N passed, M failed, K skipped".
#
# A suite is a folder that debootstrap makes in PLATFORMS (build/platforms), once; packages that set-up installed stay
# there, too, so "bare" holds for the first run: remove the folder for another one. TARGETS="demo test" says what is
# made. Commands run chrooted, with mounts and processes of their own that end with them. It takes root, the package
# debootstrap, some 2 GB a suite, and MIRROR; without one of these a suite is skipped by its name.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
PLATFORMS=${PLATFORMS:-$PWD/build/platforms}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
TARGETS=${TARGETS:-demo test}
PASSED=0 FAILED=0 SKIPPED=0

# How long a build may take there, in seconds: the machine has other things to do, and other compilers take longer.
BUILD_SECONDS=${BUILD_SECONDS:-3600}

skip() {
    SKIPPED=$((SKIPPED + 1))
    echo "skip $1: $2"
}

# fail SUITE WHAT LOG
fail() {
    FAILED=$((FAILED + 1))
    echo "not ok $1: $2; $3 ends with"
    tail -n 30 "$3"
}

# bootstrapped SUITE: its folder is there, whole. A folder that is not finished has another name. debootstrap is told to
# do as for sid, as it does for every suite of today, because it may be older than the suite and not know its name. What it
# mounts is its own, so that nothing stays mounted there when it is killed.
bootstrapped() {
    local root=$PLATFORMS/$1
    [ ! -d "$root" ] || return 0
    rm -rf "$root.new"
    unshare --mount debootstrap --variant=minbase --include=make "$1" "$root.new" "$MIRROR" sid \
        > "$PLATFORMS/$1.log" 2>&1 || return 1
    mv "$root.new" "$root"
}

# inside SUITE COMMAND...: bash is the first process of its own, because somebody has to wait for orphans.
inside() {
    local root=$PLATFORMS/$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" bash -c '
        root=$1
        shift
        mount -t tmpfs tmpfs "$root/dev/shm" && chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
        exit $?' inside "$root" "$@" < /dev/null
}

# may_isolate: whether root may have mounts and processes of its own here.
may_isolate() {
    unshare --mount --pid --fork --mount-proc mount -t tmpfs tmpfs /mnt 2> /dev/null
}

# pack: the tracked files, as they are, for all suites: the checkout may move while they are tried.
pack() {
    PACKED=$(mktemp)
    trap 'rm -f "$PACKED"' EXIT
    git ls-files -z | tar --null --files-from=- --create > "$PACKED"
    echo "of $(git describe --always --dirty)"
}

# fresh_copy SUITE: in /root, which only root can enter.
fresh_copy() {
    local copy=$PLATFORMS/$1/root/minimax_m1
    rm -rf "$copy"
    mkdir -p "$copy"
    tar --extract --directory="$copy" --file="$PACKED"
}

# join_network SUITE: names are resolved as here, and apt goes the same way to a mirror, however old that may be.
join_network() {
    local etc=$PLATFORMS/$1/etc
    cp /etc/resolv.conf "$etc/"
    echo '127.0.0.1 localhost' > "$etc/hosts"
    apt-config dump | grep -E '^Acquire::(http|Check-)' > "$etc/apt/apt.conf.d/50outside"
}

# try SUITE TARGET
try() {
    local log=$PLATFORMS/$1-$2.log said
    if inside "$1" make -C /root/minimax_m1 BUILD_SECONDS="$BUILD_SECONDS" "$2" > "$log" 2>&1; then
        PASSED=$((PASSED + 1))
        said=$(grep -E '^[0-9]+ passed' "$log" | tail -n 1)
        echo "ok $1: make $2${said:+ ($said)}"
    else
        fail "$1" "make $2" "$log"
    fi
}

[ $# -gt 0 ] || set -- bookworm trixie forky
mkdir -p "$PLATFORMS" && pack || exit 1
for suite; do
    if [ "$(id -u)" != 0 ]; then
        skip "$suite" "it takes root"
    elif ! command -v debootstrap > /dev/null; then
        skip "$suite" "the package debootstrap is not installed"
    elif ! may_isolate; then
        skip "$suite" "this machine does not let root have mounts and processes of their own"
    elif bootstrapped "$suite"; then
        join_network "$suite"
        fresh_copy "$suite"
        for target in $TARGETS; do
            try "$suite" "$target"
        done
    elif grep -q 'Failed getting release file' "$PLATFORMS/$suite.log"; then
        skip "$suite" "$MIRROR does not answer, or does not have it"
    else
        fail "$suite" debootstrap "$PLATFORMS/$suite.log"
    fi
done
echo
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ $FAILED = 0 ]
