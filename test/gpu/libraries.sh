# shellcheck shell=bash
# libraries.sh - sourced by the other scripts: where a machine's shared libraries are.
#
# A machine with a GPU may have CUDA's libraries only as Python's packages bring them, and others only in the packages
# that packages.sh has collected. Of the latter, programs get those alone that the machine lacks: others would take the
# place of its own, for whatever is started with them.

. test/gpu/parts.sh

ROOT_OF_PACKAGES=$GPU/root
LINKS=$GPU/libraries

# missing_libraries PROGRAM...: their names, a line each.
missing_libraries() {
    ldd "$@" 2> /dev/null | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | sort -u
}

# python_folders: those of Python's packages of CUDA, a line each.
python_folders() {
    python3 -c 'import nvidia; print(*nvidia.__path__, sep="\n")' 2> /dev/null
}

# found NAME FOLDER...: the first file of that name.
found() {
    [ $# = 1 ] || find "${@:2}" -name "$1" 2> /dev/null | head -n 1
}

# add_folder FOLDER: comes last.
add_folder() {
    case ":${LD_LIBRARY_PATH:-}:" in
        *":$1:"*) ;;
        *) export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$1" ;;
    esac
}

# provide NAME FOLDER...: adds the library from the folders of Python's packages as a whole, since CUDA's look beside
# themselves for others, or else by a link to the one of packages.sh; false where neither has it.
provide() {
    local file
    file=$(found "$@")
    if [ -n "$file" ]; then
        add_folder "${file%/*}"
        return
    fi
    unpack_packages "$ROOT_OF_PACKAGES" || return 1
    file=$(found "$1" "$ROOT_OF_PACKAGES")
    [ -n "$file" ] && mkdir -p "$LINKS" && ln -sfn "$file" "$LINKS/$1" && add_folder "$LINKS"
}

# find_libraries PROGRAM...: adds to LD_LIBRARY_PATH what they miss, and what that misses; says what stays missing, and is
# false then.
find_libraries() {
    local name folders more=yes
    [ -n "$(missing_libraries "$@")" ] || return 0
    mapfile -t folders < <(python_folders)
    while [ -n "$more" ]; do
        more=
        for name in $(missing_libraries "$@"); do
            ! provide "$name" "${folders[@]}" || more=yes
        done
    done
    name=$(missing_libraries "$@" | paste -sd ' ')
    [ -z "$name" ] || echo "Shared libraries are missing: $name" >&2
    [ -z "$name" ]
}

# find_loaded NAME: the same of one that programs load by themselves, where the loader does not find it.
find_loaded() {
    local folders
    ! python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2> /dev/null || return 0
    mapfile -t folders < <(python_folders)
    provide "$1" "${folders[@]}" || echo "Shared libraries are missing: $1" >&2
}
