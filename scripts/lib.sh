# shellcheck shell=bash
# lib.sh - sourced by the other scripts: a user that may run PostgreSQL, and private servers.
#
# Servers listen on a socket in their own folder, never on TCP, and use the staged installation in
# build/stage, so that nothing is installed into the system. A script may choose PG_BIN, PG_LIB, PG_SHARE,
# STAGE and EXTENSION_ROOT beforehand.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
STAGE=${STAGE:-$BUILD/stage}
EXTENSION_ROOT=${EXTENSION_ROOT-$STAGE} # where a server looks for extensions' files; empty when STAGE is its own root
PG_CONFIG=${PG_CONFIG:-pg_config}
PG_BIN=${PG_BIN:-$("$PG_CONFIG" --bindir)}
PG_LIB=${PG_LIB:-$("$PG_CONFIG" --pkglibdir)}
PG_SHARE=${PG_SHARE:-$("$PG_CONFIG" --sharedir)}
PG_USER=${M1_TEST_USER:-postgres}

# PostgreSQL refuses to run as root. As root, commands run as $PG_USER; where that user cannot reach the checkout
# (a clone below /root, say), they keep one capability of root: to pass by file permissions.
AS_USER=()
if [ "$(id -u)" = 0 ]; then
    AS_USER=(setpriv "--reuid=$PG_USER" "--regid=$(id -g "$PG_USER")" --clear-groups)
    "${AS_USER[@]}" test -x "$ROOT" -a -r "$ROOT/scripts/lib.sh" ||
        AS_USER+=(--inh-caps +dac_override --ambient-caps +dac_override)
fi

as_user() {
    "${AS_USER[@]}" "$@"
}

# own_folder DIR: makes DIR anew, owned by the user that as_user runs as.
own_folder() {
    rm -rf "$1"
    mkdir -p "$1"
    if [ "$(id -u)" = 0 ]; then
        chown "$PG_USER" "$1"
    fi
}

# socket_folder DIR: sets SOCKET_FOLDER to DIR, or to a short folder in /tmp when a socket's path there would be too
# long (107 bytes at most). remove_temporary removes what was made in /tmp.
TEMPORARY=()
socket_folder() {
    SOCKET_FOLDER=$1
    if [ ${#1} -gt 80 ]; then
        SOCKET_FOLDER=$(as_user mktemp -d /tmp/minimax_m1.XXXXXX)
        TEMPORARY+=("$SOCKET_FOLDER")
    fi
}

remove_temporary() {
    [ ${#TEMPORARY[@]} = 0 ] || rm -rf "${TEMPORARY[@]}"
    TEMPORARY=()
}

# staged_settings: lines for postgresql.conf that load the extension from the stage. Before version 18 only Debian's
# PostgreSQL looks for extensions elsewhere than among its own files.
staged_settings() {
    if [ "$("$PG_BIN/initdb" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 18 ]; then
        echo "extension_control_path = '$EXTENSION_ROOT$PG_SHARE:\$system'"
    else
        echo "extension_destdir = '$EXTENSION_ROOT'"
    fi
    cat <<EOF
dynamic_library_path = '$STAGE$PG_LIB:\$libdir'
shared_preload_libraries = 'minimax_m1'
EOF
}

# start_server DIR [SETTING...]: a new cluster in DIR with the extension preloaded; sets SERVER_DIR and PGHOST.
start_server() {
    SERVER_DIR=$1
    shift
    own_folder "$SERVER_DIR"
    as_user "$PG_BIN/initdb" -D "$SERVER_DIR/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N \
        > "$SERVER_DIR/initdb.log" 2>&1 || { cat "$SERVER_DIR/initdb.log" >&2; return 1; }
    socket_folder "$SERVER_DIR"
    PGHOST=$SOCKET_FOLDER
    {
        staged_settings
        echo "listen_addresses = ''"
        echo "unix_socket_directories = '$PGHOST'"
        echo "fsync = off"
        for setting in "$@"; do echo "$setting"; done
    } | as_user tee -a "$SERVER_DIR/data/postgresql.conf" > "$SERVER_DIR/settings.log"
    export PGHOST PGUSER=postgres PGDATABASE=postgres
    as_user "$PG_BIN/pg_ctl" -D "$SERVER_DIR/data" -l "$SERVER_DIR/server.log" -w -t 60 start \
        > "$SERVER_DIR/start.log" 2>&1 || { cat "$SERVER_DIR/start.log" "$SERVER_DIR/server.log" >&2; return 1; }
}

# wait_for_model: until the model of the started server is ready; fails after a minute.
wait_for_model() {
    for _ in $(seq 600); do
        [ "$(psql -XAtq -c 'SELECT state FROM minimax_m1.model' 2> /dev/null)" != ready ] || return 0
        sleep 0.1
    done
    echo "The model did not get ready. The server's log:" >&2
    tail -n 20 "$SERVER_DIR/server.log" >&2
    return 1
}

# stop_server: stops what start_server started; harmless when there is nothing.
stop_server() {
    if [ -n "${SERVER_DIR:-}" ] && [ -f "$SERVER_DIR/data/postmaster.pid" ]; then
        as_user "$PG_BIN/pg_ctl" -D "$SERVER_DIR/data" -m fast -w -t 60 stop > "$SERVER_DIR/stop.log" 2>&1 || true
    fi
    SERVER_DIR=
    remove_temporary
}

# stop_servers_below DIR...: stops at once every server whose data folder is below DIR. For servers that other programs
# started and, when they are interrupted, leave behind. A postmaster works in its data folder; a process that does not
# has only inherited the number.
stop_servers_below() {
    local file data
    while IFS= read -r file; do
        data=$(dirname "$file")
        if [ "$(readlink "/proc/$(head -n 1 "$file")/cwd")" = "$(readlink -f "$data")" ]; then
            as_user "$PG_BIN/pg_ctl" -D "$data" -m immediate -w -t 60 stop > /dev/null 2>&1 || true
        fi
    done < <(find "$@" -name postmaster.pid 2> /dev/null)
}
