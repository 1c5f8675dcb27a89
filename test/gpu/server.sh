# shellcheck shell=bash
# server.sh - sourced by sql.sh: which PostgreSQL to run. Sets what scripts/lib.sh lets a script choose.
#
# Where a server is installed, that one, with a copy of the staged extension. Otherwise the one of packages.sh,
# unpacked into a folder: PostgreSQL finds its other files from where its program is.

. test/gpu/libraries.sh

# has_server: PG_CONFIG names an installation with a server.
has_server() {
    local bin
    bin=$("${PG_CONFIG:-pg_config}" --bindir 2> /dev/null) && [ -x "$bin/initdb" ]
}

use_unpacked() {
    local version
    if ! unpack_packages "$ROOT_OF_PACKAGES"; then
        echo "PostgreSQL is not installed, and this is no folder with what 'make gpu-bundle' has made." >&2
        return 1
    fi
    STAGE=$ROOT_OF_PACKAGES
    # shellcheck disable=SC2034 # for lib.sh
    EXTENSION_ROOT=
    version=$(ls "$STAGE/usr/lib/postgresql")
    PG_BIN=$STAGE/usr/lib/postgresql/$version/bin
    PG_LIB=/usr/lib/postgresql/$version/lib
    PG_SHARE=/usr/share/postgresql/$version
    find_libraries "$PG_BIN"/{postgres,initdb,pg_ctl,psql}
}

use_installed() {
    STAGE=$GPU/stage
    PG_BIN=$("${PG_CONFIG:-pg_config}" --bindir)
    PG_LIB=$("${PG_CONFIG:-pg_config}" --pkglibdir)
    PG_SHARE=$("${PG_CONFIG:-pg_config}" --sharedir)
    rm -rf "$STAGE"
    mkdir -p "$STAGE"
}

# choose_server ENGINE: and puts the extension beside it, with ENGINE as the one that has CUDA, and the bundled model.
choose_server() {
    if [ ! -d "$BUILT/stage/usr" ]; then
        echo "There is no $BUILT/stage: run 'make stage' where PostgreSQL's development files are." >&2
        return 1
    fi
    if has_server; then use_installed; else use_unpacked; fi || return 1
    cp -r "$BUILT/stage/." "$STAGE/" && cp "$1" "$STAGE$PG_LIB/minimax_m1_engine_cuda" || return 1
    mkdir -p "$STAGE$PG_SHARE/minimax_m1/models" && cp -r models/m1-nano "$STAGE$PG_SHARE/minimax_m1/models/"
    chmod -R go+rX "$STAGE"
}
