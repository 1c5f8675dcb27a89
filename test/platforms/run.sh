#!/usr/bin/env bash
# run.sh [SUITE...] - `make demo` and `make test` as a newcomer runs them: on a bare Debian of each suite (bookworm with
# PostgreSQL 15, trixie with 17, forky with 18 by default), in a fresh copy of the tracked files. Ends with the line
# "N passed, M failed, K skipped".
#
# A suite is a folder that debootstrap makes in PLATFORMS (build/platforms), once; packages that set-up installed stay
# there, too, so "bare" holds for the first run: remove the folder for another one. TARGETS="demo test" says what is
# made. Commands run chrooted, with mounts and processes of their own that end with them. It takes root, the package
# debootstrap, some 2 GB a suite, and MIRROR; a suite that cannot be had is skipped by its name.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
PLATFORMS=${PLATFORMS:-$PWD/build/platforms}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
TARGETS=${TARGETS:-demo test}
PASSED=0 FAILED=0 SKIPPED=0

skip() {
    SKIPPED=$((SKIPPED + 1))
    echo "skip $1: $2"
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

# fresh_copy SUITE: the tracked files, as they are here, in /root, which only root can enter.
fresh_copy() {
    local copy=$PLATFORMS/$1/root/minimax_m1
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z | tar --null --files-from=- --create | tar --extract --directory="$copy"
}

# join_network SUITE: names are resolved as here, and apt goes the same way to a mirror, however old that may be.
join_network() {
    local etc=$PLATFORMS/$1/etc
    cp /etc/resolv.conf "$etc/"
    apt-config dump | grep -E '^Acquire::(http|Check-)' > "$etc/apt/apt.conf.d/50outside"
}

# try SUITE TARGET
try() {
    local log=$PLATFORMS/$1-$2.log said
    inside "$1" make -C /root/minimax_m1 "$2" > "$log" 2>&1
    if [ $? = 0 ]; then
        PASSED=$((PASSED + 1))
        said=$(grep -E '^[0-9]+ passed' "$log" | tail -n 1)
        echo "ok $1: make $2${said:+ ($said)}"
    else
        FAILED=$((FAILED + 1))
        echo "not ok $1: make $2; $log ends with"
        tail -n 30 "$log"
    fi
}

[ $# -gt 0 ] || set -- bookworm trixie forky
for suite; do
    if [ "$(id -u)" != 0 ]; then
        skip "$suite" "it takes root"
    elif ! command -v debootstrap > /dev/null; then
        skip "$suite" "the package debootstrap is not installed"
    elif ! mkdir -p "$PLATFORMS" || ! bootstrapped "$suite"; then
        skip "$suite" "debootstrap could not make it, see $PLATFORMS/$suite.log"
    elif ! inside "$suite" true 2> /dev/null; then
        skip "$suite" "this machine does not let root have mounts and processes of their own"
    else
        join_network "$suite"
        fresh_copy "$suite"
        for target in $TARGETS; do
            try "$suite" "$target"
        done
    fi
done
echo
echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
[ $FAILED = 0 ]
