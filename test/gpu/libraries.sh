# shellcheck shell=bash
# libraries.sh - sourced by the other scripts: Debian packages without an installation, and where a machine's shared
# libraries are.
#
# A machine with a GPU may have CUDA's libraries only as Python's packages bring them, and others only in the packages
# that packages.sh has collected.

# unpack FILE FOLDER: a Debian package's files.
unpack() {
    local member
    if command -v dpkg > /dev/null; then
        dpkg -x "$1" "$2"
        return
    fi
    member=$(ar t "$1" | grep '^data\.tar')
    case $member in
        *.xz) ar p "$1" "$member" | tar -xJ -C "$2" ;;
        *.zst) ar p "$1" "$member" | tar -x --zstd -C "$2" ;;
        *) ar p "$1" "$member" | tar -xz -C "$2" ;;
    esac
}

# unpack_packages FOLDER: those of packages.sh; false if one cannot be unpacked. Nothing where there are none.
unpack_packages() {
    local package
    for package in build/gpu/packages/*.deb; do
        [ ! -e "$package" ] || unpack "$package" "$1" || return 1
    done
}

# missing_libraries PROGRAM...: their names, a line each.
missing_libraries() {
    ldd "$@" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u
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
