# shellcheck shell=bash
# server.sh - sourced by sql.sh: which PostgreSQL to run. Sets what scripts/lib.sh lets a script choose.
#
# Where a server is installed, that one, with a copy of the staged extension. Otherwise the one of packages.sh,
# unpacked into a folder: PostgreSQL finds its other files from where its program is. Its libraries are in that folder,
# too, and only its own programs are told of them.

. test/gpu/libraries.sh

GPU=$PWD/build/gpu

# has_server: PG_CONFIG names an installation with a server.
has_server() {
    local bin
    bin=$("${PG_CONFIG:-pg_config}" --bindir 2> /dev/null) && [ -x "$bin/initdb" ]
}

# wrapper PROGRAM LIBRARIES: a script in $GPU/bin that runs the unpacked program with the unpacked libraries.
wrapper() {
    cat > "$GPU/bin/${1##*/}" <<END
#!/bin/sh
LD_LIBRARY_PATH='$2'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec '$1' "\$@"
END
    chmod 755 "$GPU/bin/${1##*/}"
}

use_unpacked() {
    local program libraries version
    if [ ! -e "$GPU/packages.tar.xz" ]; then
        echo "PostgreSQL is not installed, and this is no folder that 'make gpu-bundle' has made." >&2
        return 1
    fi
    STAGE=$GPU/root
    # shellcheck disable=SC2034 # for lib.sh
    EXTENSION_ROOT=
    PG_BIN=$GPU/bin
    rm -rf "$PG_BIN"
    mkdir -p "$PG_BIN"
    unpack_packages "$STAGE" || return 1
    version=$(ls "$STAGE/usr/lib/postgresql")
    PG_LIB=/usr/lib/postgresql/$version/lib
    PG_SHARE=/usr/share/postgresql/$version
    libraries=$(find "$STAGE/usr/lib" "$STAGE/lib" -maxdepth 1 -name '*-linux-gnu' | paste -sd :)
    for program in initdb pg_ctl psql; do
        wrapper "$STAGE/usr/lib/postgresql/$version/bin/$program" "$libraries"
    done
}

use_installed() {
    STAGE=$GPU/stage
    PG_BIN=$("${PG_CONFIG:-pg_config}" --bindir)
    PG_LIB=$("${PG_CONFIG:-pg_config}" --pkglibdir)
    PG_SHARE=$("${PG_CONFIG:-pg_config}" --sharedir)
    rm -rf "$STAGE"
    mkdir -p "$STAGE"
}

# choose_server ENGINE: and puts the extension beside it, with ENGINE as the one that has CUDA.
choose_server() {
    if [ ! -d build/stage/usr ]; then
        echo "There is no build/stage: run 'make stage' where PostgreSQL's development files are." >&2
        return 1
    fi
    if has_server; then use_installed; else use_unpacked; fi || return 1
    cp -r build/stage/. "$STAGE/" && cp "$1" "$STAGE$PG_LIB/minimax_m1_engine_cuda"
    chmod -R go+rX "$STAGE"
}
