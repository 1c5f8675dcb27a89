#!/usr/bin/env bash
# bootstrap.sh [PACKAGE...] - installs the Debian packages that building and testing need, and those named, where they
# are missing. As root it installs them; otherwise it prints the one command to run. With nothing missing it does
# nothing.
set -euo pipefail

# known: the versions of PostgreSQL for which apt has a server and its development files, a line each, newest last.
known() {
    apt-cache --names-only search '^postgresql-(server-dev-)?[0-9]+$' 2> /dev/null |
        sed -nE 's/^postgresql-(server-dev-)?([0-9]+) .*/\2/p' | sort -n | uniq -d
}

# has_server: pg_config names an installation that has all that is needed, from wherever it came. Debian's package of
# clients has PGXS, without the headers.
has_server() {
    [ -x "$("$PG_CONFIG" --bindir 2> /dev/null)/initdb" ] && [ -e "$("$PG_CONFIG" --pgxs 2> /dev/null)" ] &&
        [ -e "$("$PG_CONFIG" --includedir-server 2> /dev/null)/postgres.h" ]
}

# choose_postgresql: sets POSTGRESQL to the packages of the version that pg_config is of, or else of the newest.
PG_CONFIG=${PG_CONFIG:-pg_config}
POSTGRESQL=()
choose_postgresql() {
    local version
    ! has_server || return 0
    version=$("$PG_CONFIG" --version 2> /dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
    known | grep -x "${version:-none}" > /dev/null || version=$(known | tail -n 1)
    [ -n "$version" ] || return 1
    POSTGRESQL=("postgresql-$version" "postgresql-server-dev-$version")
}

log=$(mktemp)
cleanup() {
    rm -f "$log"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# try COMMAND...: its output matters only if it fails.
try() {
    if ! "$@" > "$log" 2>&1; then
        tail -n 30 "$log" >&2
        exit 1
    fi
}

# A new machine, such as a container, has no lists of packages.
if ! choose_postgresql; then
    if [ "$(id -u)" != 0 ]; then
        echo "No package of PostgreSQL is known. Fetch the lists of packages as root, then try again:" >&2
        echo "    apt-get update" >&2
        exit 1
    fi
    try apt-get update
    if ! choose_postgresql; then
        echo "apt knows no package postgresql-NN: install PostgreSQL 14 or later, or set PG_CONFIG." >&2
        exit 1
    fi
fi

PACKAGES=(
    build-essential
    "${POSTGRESQL[@]}"
    libpcre2-dev
    libpq-dev
    libevent-dev
    libjansson-dev
    libcurl4-openssl-dev
    libcmocka-dev
    libipc-run-perl
    python3
    python3-jsonschema
    "$@"
)

missing=()
for package in "${PACKAGES[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "These packages are missing. Install them as root, then try again:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

# Debian makes and starts a first cluster when it installs a server. Nothing here needs it. Its configuration reads
# every file of a folder; one there says no while the packages are installed, and is gone afterwards, so that the
# machine's own configuration stays as it was.
folder=/etc/postgresql-common/createcluster.d
no_cluster=$folder/minimax_m1_bootstrap.conf
cleanup() {
    rm -f "$log" "$no_cluster"
    rmdir --ignore-fail-on-non-empty -p "$folder" 2> /dev/null || true
}
mkdir -p "$folder"
echo "create_main_cluster = false" > "$no_cluster"

echo "Installing: ${missing[*]}" | fold -s -w 98
export DEBIAN_FRONTEND=noninteractive
try apt-get update
try apt-get install -y --no-install-recommends "${missing[@]}"
