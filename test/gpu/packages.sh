#!/usr/bin/env bash
# packages.sh - downloads Debian's PostgreSQL 15 and the libraries that it needs into build/gpu/packages, for a machine
# with a GPU that has neither PostgreSQL nor a network: sql.sh unpacks them there. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

FOLDER=build/gpu/packages
LIMIT_MB=60
# The server, its client, and every shared library of theirs, of the engine and of its tests that a machine may lack.
# Left out: what Debian's server needs only to be set up by Debian, and LLVM, which only its JIT uses.
PACKAGES=(
    postgresql-15 postgresql-client-15 libpq5 libjansson4 libpcre2-8-0 libcmocka0
    libaudit1 libcap-ng0 libcap2 libcom-err2 libffi8 libgcrypt20 libgmp10 libgnutls30 libgpg-error0 libgssapi-krb5-2
    libhogweed6 libicu72 libidn2-0 libk5crypto3 libkeyutils1 libkrb5-3 libkrb5support0 libldap-2.5-0 liblz4-1 liblzma5
    libnettle8 libp11-kit0 libpam0g libreadline8 libsasl2-2 libselinux1 libssl3 libsystemd0 libtasn1-6 libtinfo6
    libunistring2 libuuid1 libxml2 libxslt1.1 libzstd1 zlib1g
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
