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
# by Debian, and LLVM, which only its JIT uses.
mapfile -t PACKAGES < <(
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "postgresql-$VERSION" libcmocka0 libjansson4 libpcre2-8-0 "$CURL" |
        grep -E "^(lib|zlib1g$|postgresql-(client-)?$VERSION$)" |
        grep -Ev '^lib(c6|c-|crypt1|gcc-|stdc|llvm|z3-|perl|pam-modules|db5|gdbm|newt|slang|debian)|-(perl|common)$' |
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
# translations, and what only the JIT reads
rm -rf "$FOLDER"/root/usr/share/{doc,info,lintian,locale,man} "$FOLDER"/root/usr/lib/postgresql/*/lib/bitcode
tar -cJf "$FOLDER.tar.xz" -C "$FOLDER/root" .
rm -rf "$FOLDER"
echo "${#PACKAGES[@]} packages in $FOLDER.tar.xz, $(du -m "$FOLDER.tar.xz" | cut -f 1) MB"
