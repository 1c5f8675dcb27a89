# shellcheck shell=bash
# libraries.sh - sourced by the other scripts: where a machine's shared libraries are.
#
# A machine with a GPU may have CUDA's libraries only as Python's packages bring them, and others only in the packages
# that packages.sh has collected.

# unpack_packages FOLDER: the files of those of packages.sh; nothing where there are none.
unpack_packages() {
    [ -e build/gpu/packages.tar.xz ] || return 0
    rm -rf "$1"
    mkdir -p "$1"
    tar -xJf build/gpu/packages.tar.xz -C "$1"
}

# missing_libraries PROGRAM...: their names, a line each.
missing_libraries() {
    ldd "$@" 2> /dev/null | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u
}

# library_folders: where else they may be, a line each.
library_folders() {
    python3 -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2> /dev/null
    unpack_packages build/gpu/libraries
    [ ! -d build/gpu/libraries ] || echo "$PWD/build/gpu/libraries"
}

# find_libraries PROGRAM...: adds the folders of what they miss to LD_LIBRARY_PATH; false if something stays missing.
find_libraries() {
    local name found folders
    [ -n "$(missing_libraries "$@")" ] || return 0
    mapfile -t folders < <(library_folders)
    for name in $(missing_libraries "$@"); do
        found=$(find "${folders[@]:-/nonexistent}" -name "$name" 2> /dev/null | head -n 1)
        [ -z "$found" ] || export LD_LIBRARY_PATH="${found%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
    found=$(missing_libraries "$@" | paste -sd ' ')
    [ -z "$found" ] || echo "Shared libraries are missing: $found" >&2
    [ -z "$found" ]
}
