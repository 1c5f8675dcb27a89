#!/usr/bin/env bash
# bootstrap.sh [PACKAGE...] - installs the Debian packages that building and testing need, and those named, where they
# are missing. As root it installs them; otherwise it prints the one command to run. With nothing missing it does
# nothing.
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
log=$(mktemp)
cleanup() {
    rm -f "$log" "$no_cluster"
    rmdir --ignore-fail-on-non-empty -p "$folder" 2> /dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$folder"
echo "create_main_cluster = false" > "$no_cluster"

echo "Installing: ${missing[*]}" | fold -s -w 98
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    exit 1
fi
