# shellcheck shell=bash
# parts.sh - sourced by the other scripts: where that is what was built for a machine with a GPU.
#
# "make gpu-bundle" packs it into the archives in build/gpu-parts, and whoever finds them there unpacks them once. Where
# there are none, or GPU_BUILT says so ("make gpu-check"), it is what was built in this checkout.

GPU=$PWD/build/gpu
PARTS=$PWD/build/gpu-parts
BUILT=$PWD/build
PACKAGES=$GPU/packages.tar.xz
if [ -z "${GPU_BUILT:-}" ] && [ -d "$PARTS" ]; then
    BUILT=$GPU/parts
    PACKAGES=$PARTS/packages.tar.xz
else
    PARTS=
fi

# built_of: the commit of the programs: figures are of that, whatever lies beside them.
built_of() {
    cat "${PARTS:-build}/commit" 2> /dev/null || git describe --always --dirty --abbrev=40 --exclude='*' 2> /dev/null || echo unknown
}

# decompressed ARCHIVE: not every machine has xz.
decompressed() {
    if command -v xz > /dev/null; then
        xz -dc "$1"
    else
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
    fi
}

# unpack ARCHIVE FOLDER: unless FOLDER is what it was unpacked to already: a machine may keep an older one's files.
unpack() {
    local sum
    sum=$(cksum < "$1") || return 1
    [ "$(cat "$2.sum" 2> /dev/null)" != "$sum" ] || return 0
    rm -rf "$2"
    mkdir -p "$2"
    decompressed "$1" | tar -x --no-same-owner -C "$2" && echo "$sum" > "$2.sum"
}

# unpack_parts: what every step may need. Packages are unpacked where the machine lacks something of them.
unpack_parts() {
    [ -z "$PARTS" ] || unpack "$PARTS/programs.tar.xz" "$BUILT"
}

# unpack_packages FOLDER: false where there are none.
unpack_packages() {
    [ -e "$PACKAGES" ] && unpack "$PACKAGES" "$1"
}
