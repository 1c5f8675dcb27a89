#!/usr/bin/env bash
# packages.sh - downloads Debian's PostgreSQL, of the version that build/stage is for, and the libraries that it needs,
# and packs what a private server uses of them into build/gpu/packages.tar.xz, for a machine with a GPU that has neither
# PostgreSQL nor a network: libraries.sh unpacks it there. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

FOLDER=build/gpu/packages
# as this release calls it
CURL=$(apt-cache depends libcurl4-openssl-dev | sed -n 's/^ *Depends: \(libcurl4[^-]*\)$/\1/p' | head -n 1)
VERSION=$("${PG_CONFIG:-pg_config}" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')

# The server, its client, and every shared library of theirs, of the engine and of its tests that a machine may lack, by
# the names of this machine's release. Left out: what is on every machine, what Debian's server needs only to be set up
# by Debian, what takes another package's place, and LLVM, which only its JIT uses.
mapfile -t PACKAGES < <(
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "postgresql-$VERSION" libcmocka0 libjansson4 libpcre2-8-0 "$CURL" |
        grep -E "^(lib|zlib1g$|postgresql-(client-)?$VERSION$)" |
        grep -Ev '^lib(c6|c-|crypt1|gcc-|stdc|llvm|z3-|perl|pam-modules|db5|gdbm|newt|slang|debian|elogind)|-(perl|common)$' |
        sort -u
)

rm -rf "$FOLDER"
mkdir -p "$FOLDER/root"
if ! (cd "$FOLDER" && apt-get download "${PACKAGES[@]}") > "$FOLDER.log" 2>&1; then
    tail -n 20 "$FOLDER.log" >&2
    exit 1
fi
for package in "$FOLDER"/*.deb; do
    dpkg -x "$package" "$FOLDER/root"
done
test/gpu/slim.py "$FOLDER/root" "$VERSION"

# It makes a cluster here: on a machine with a GPU, what is missing would be found too late.
PG_BIN=$FOLDER/root/usr/lib/postgresql/$VERSION/bin
. scripts/lib.sh
own_folder "$FOLDER/cluster"
LD_LIBRARY_PATH=$(find "$PWD/$FOLDER/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd :)
export LD_LIBRARY_PATH
if ! as_user "$PG_BIN/initdb" -D "$FOLDER/cluster/data" --locale=C.UTF-8 -N > "$FOLDER.log" 2>&1 ||
    ! as_user "$PG_BIN/psql" --version >> "$FOLDER.log" 2>&1; then
    cat "$FOLDER.log" >&2
    exit 1
fi
unset LD_LIBRARY_PATH

# what is in it are programs, most of all
tar -c -C "$FOLDER/root" . | xz --x86 --lzma2=preset=9e,dict=64MiB > "$FOLDER.tar.xz"
rm -rf "$FOLDER"
echo "${#PACKAGES[@]} packages in $FOLDER.tar.xz, $(du -m "$FOLDER.tar.xz" | cut -f 1) MB"
