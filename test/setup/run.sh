#!/usr/bin/env bash
# run.sh - what somebody meets who has just cloned this: which packages set-up asks for on which machine, help, a clone that
# only root can enter, and a second run of tests. Prints a line "ok ...", "not ok ..." or "skip ..." per case. test/run.sh
# runs it, and stops the server should this script be killed.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. scripts/lib.sh
FOLDER=$BUILD/setup
status=0

# is WHAT GOT EXPECTED
is() {
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        status=1
        echo "not ok $1: \"$2\" instead of \"$3\""
    fi
}

# ---- packages ----

# A machine that is told by files in $FAKES: apt (the packages that it knows), installed, and pg_config (a version and
# whether it has a server; none if there is no such file). Its user is not root, so nothing is installed.
FAKES=$FOLDER/fakes
fake() {
    printf '#!/bin/sh\n%s\n' "$2" > "$FAKES/bin/$1"
    chmod 755 "$FAKES/bin/$1"
}

machine() {
    rm -rf "$FAKES"
    mkdir -p "$FAKES/bin" "$FAKES/pg"
    printf '%s\n' $1 > "$FAKES/apt"
    printf '%s\n' $2 > "$FAKES/installed"
    fake id 'echo 1000'
    fake apt-cache "[ \"\$1\" = --names-only ] && grep -E -- \"\$3\" '$FAKES/apt' | sed 's/\$/ - a package/'"
    fake dpkg-query "for last; do :; done; ! grep -qx \"\$last\" '$FAKES/installed' || printf installed"
    if [ -n "$3" ]; then
        fake pg_config "case \$1 in --version) echo 'PostgreSQL $3' ;; *) echo '$FAKES/pg'/\${1#--} ;; esac"
    else
        fake pg_config 'exit 127'
    fi
}

# has_files NAME...: what of the folders and files that pg_config names is there.
has_files() {
    local name
    for name in "$@"; do
        install -D -m 755 /dev/null "$FAKES/pg/$name"
    done
}

# The packages for PostgreSQL that set-up asks for.
asked_for() {
    PATH=$FAKES/bin:$PATH PG_CONFIG=pg_config scripts/bootstrap.sh 2>&1 |
        grep -oE 'postgresql-[a-z0-9-]+|apt-get update$' | paste -sd ' '
}

packages() {
    local debian12="postgresql-15 postgresql-server-dev-15 postgresql-client-15"
    local debian13="postgresql-17 postgresql-server-dev-17 postgresql-17-pgvector"
    local both="postgresql-9.6 postgresql-server-dev-9.6 postgresql-16 postgresql-server-dev-16 postgresql-18"
    machine "$debian12" "" ""
    is "packages of Debian 12" "$(asked_for)" "postgresql-15 postgresql-server-dev-15"
    machine "$debian13" "" ""
    is "packages of Debian 13" "$(asked_for)" "postgresql-17 postgresql-server-dev-17"
    machine "$debian12 $debian13" "postgresql-15" "15.20 (Debian 15.20-0+deb12u1)"
    is "the version of pg_config before a newer one" "$(asked_for)" "postgresql-server-dev-15"
    machine "$debian13" "" "18.1 (Debian 18.1-1.pgdg13+1)"
    is "a client of a version that has no server here" "$(asked_for)" "postgresql-17 postgresql-server-dev-17"
    machine "$both" "" ""
    is "the newest that can be built for" "$(asked_for)" "postgresql-16 postgresql-server-dev-16"
    machine "$debian12" "postgresql-15" "15.20 (Debian 15.20-0+deb12u1)"
    has_files bindir/initdb pgxs
    is "a server and PGXS without the headers" "$(asked_for)" "postgresql-server-dev-15"
    machine "$debian13" "" "18devel"
    has_files bindir/initdb pgxs includedir-server/postgres.h
    is "a server that no package brought" "$(asked_for)" ""
    machine "" "" ""
    is "no lists of packages" "$(asked_for)" "apt-get update"
}

# ---- a clone that only root can enter ----

# Whether the server gets its engine and its model to run there. setpriv keeps the capability as lib.sh has it.
private_clone() {
    local clone=$FOLDER/private name="a clone that other users cannot enter"
    if [ "$(id -u)" != 0 ]; then
        echo "skip $name: only root can have one and start a server in it"
        return
    fi
    rm -rf "$clone"
    mkdir -p "$clone/build"
    cp -r Makefile scripts "$clone"
    cp -r build/stage "$clone/build"
    chmod 700 "$clone"
    is "$name" "$(
        STAGE='' EXTENSION_ROOT=''
        unset STAGE EXTENSION_ROOT
        . "$clone/scripts/lib.sh"
        trap stop_server EXIT
        start_server "$clone/build/server" && psql -X -q -c 'CREATE EXTENSION minimax_m1' && wait_for_model &&
            psql -XAtq -c "SELECT minimax_m1.generate('Hello.')" 2>&1
    )" "Hello! How can I help you?"
}

# ---- the command line ----

every_command_helps() {
    local command engine=$STAGE$PG_LIB/minimax_m1_engine
    for command in $("$engine" --help | sed -n 's/^  minimax_m1_engine \([a-z]*\) .*/\1/p'); do
        is "--help of $command" "$("$engine" "$command" --help 2>&1 | sed -n "1s/.*engine \($command\) .*/\1/p")" "$command"
    done
}

# ---- tests ----

# This is one: another run would remove what it has.
a_second_run() {
    is "a second run of tests here is refused" "$(test/run.sh rooms 2>&1 | sed -E 's/process [0-9]+.*/process N/')" \
        "Other tests run in this checkout, as process N"
}

own_folder "$FOLDER"
packages
every_command_helps
a_second_run
private_clone
exit $status
