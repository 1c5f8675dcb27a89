#!/usr/bin/env bash
# packages.sh - downloads Debian's PostgreSQL, of the version that build/stage is for, and the libraries that it needs
# into build/gpu/packages, for a machine with a GPU that has neither PostgreSQL nor a network: sql.sh unpacks them there.
# Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

FOLDER=build/gpu/packages
LIMIT_MB=60
VERSION=$("${PG_CONFIG:-pg_config}" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')

# The server, its client, and every shared library of theirs, of the engine and of its tests that a machine may lack, by
# the names of this machine's release. Left out: what is on every machine, what Debian's server needs only to be set up
# by Debian, and LLVM, which only its JIT uses.
mapfile -t PACKAGES < <(
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "postgresql-$VERSION" libcmocka0 libjansson4 libpcre2-8-0 |
        grep -E "^(lib|zlib1g$|postgresql-(client-)?$VERSION$)" |
        grep -Ev '^lib(c6|c-|crypt1|gcc-|stdc|llvm|z3-|perl|pam-modules|db5|gdbm|newt|slang|debian)|-(perl|common)$' |
        sort -u
)

rm -rf "$FOLDER"
mkdir -p "$FOLDER"
if ! (cd "$FOLDER" && apt-get download "${PACKAGES[@]}") > "$FOLDER.log" 2>&1; then
    tail -n 20 "$FOLDER.log" >&2
    exit 1
fi
megabytes=$(du -sm "$FOLDER" | cut -f 1)
echo "${#PACKAGES[@]} packages in $FOLDER, $megabytes MB"
[ "$megabytes" -lt $LIMIT_MB ]
