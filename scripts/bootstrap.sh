#!/usr/bin/env bash
# bootstrap.sh - installs the Debian packages that building and testing need and that are missing.
# As root it installs them; otherwise it prints the one command to run. With nothing missing it does nothing.
set -euo pipefail

PACKAGES=(
    build-essential
    postgresql-15
    postgresql-server-dev-15
    libpcre2-dev
    libjansson-dev
    libcmocka-dev
    libipc-run-perl
    python3
)

missing=()
for package in "${PACKAGES[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "These packages are missing. Install them as root, then try again:" >&2
    echo "    apt-get install -y ${missing[*]}" >&2
    exit 1
fi

# Debian makes and starts a first cluster when it installs the server. Nothing here needs it: where no configuration
# says otherwise yet, it is told not to.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
fi

echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold \
        "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
