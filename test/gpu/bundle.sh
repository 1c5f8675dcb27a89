#!/usr/bin/env bash
# bundle.sh PARTS FOLDER [emulated] - what gpu/run.sh needs on a machine with a GPU and nothing else, in two forms.
#
# PARTS has what a checkout lacks, in archives: the programs with CUDA, stripped, the staged extension, Debian's PostgreSQL
# (packages.sh), and flash-linear-attention for peers.py, where pip has it. As build/gpu-parts beside a checkout's files
# it is all that run.sh needs. FOLDER is that with those files of the checkout that the steps read.
#
# emulated: the same of programs whose GPU is emulated, for the tests: nothing is fetched, and there is no PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/../.."
GPU_BUILT=yes . test/gpu/parts.sh
COMMIT=$(built_of)

PARTS=$1
FOLDER=$2
EMULATED=${3:-}
TESTS=(test_cuda test_cuda_sample test_cuda_engine test_cuda_group test_cuda_learning)
FOLDER_MB=60
# Of a checkout with the parts beside it: what is sent to a machine at once is 64 MiB at most.
CHECKOUT_MB=${CHECKOUT_MB:-62}

# program SOURCE NAME: a stripped copy.
program() {
    install -D "$1" "$NEW/$2"
    strip "$NEW/$2"
}

emulated_programs() {
    local name
    touch "$PARTS/emulated"
    program build/minimax_m1_engine_emulated minimax_m1_engine_cuda
    program build/gpu/bench_emulated gpu/bench
    for name in "${TESTS[@]}"; do
        program "build/unit/$name" "gpu/$name"
    done
}

hopper_programs() {
    local name
    program build/sm_90a/minimax_m1_engine_cuda minimax_m1_engine_cuda
    for name in bench "${TESTS[@]}"; do
        program "build/sm_90a/gpu/$name" "gpu/$name"
    done
}

# But for the bundled model, which every checkout has, and the engine with CUDA: server.sh puts them there.
staged_extension() {
    cp -r build/stage "$NEW/"
    find "$NEW/stage" \( -name m1-nano -o -name minimax_m1_engine_cuda \) -prune -exec rm -r {} +
    find "$NEW/stage" -path '*/lib/minimax_m1*' -type f -exec strip {} +
}

attention_of_others() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install -q --no-deps --no-compile --target "$NEW/python" \
        flash-linear-attention fla-core 2> /dev/null ||
        echo "flash-linear-attention cannot be fetched: its attention will not be timed." >&2
}

# checkout_files: those that a checkout sends along, a line each.
checkout_files() {
    git ls-files --cached --others --exclude-standard 2> /dev/null || find . -path ./build -prune -o -type f -print
}

# megabytes FILE...: rounded up.
megabytes() {
    du -cb --apparent-size "$@" | tail -n 1 | awk '{ print int(($1 + 1048575) / 1048576) }'
}

# below LIMIT MEGABYTES WHAT
below() {
    [ "$2" -le "$1" ] || { echo "$3 has $2 MB, more than $1." >&2; return 1; }
}

rm -rf "$PARTS" "$FOLDER"
mkdir -p "$PARTS"
NEW=$(mktemp -d)
chmod 755 "$NEW"
trap 'rm -rf "$NEW"' EXIT
if [ -n "$EMULATED" ]; then
    EFFORT=1
    emulated_programs
else
    EFFORT=6
    hopper_programs
    staged_extension
    attention_of_others
    cp build/gpu/packages.tar.xz "$PARTS/"
fi
echo "$COMMIT" > "$PARTS/commit"
# in one archive, with a window to match: most of each program is the same kernels
tar -c -C "$NEW" . | xz --lzma2="preset=$EFFORT,dict=64MiB" > "$PARTS/programs.tar.xz"

mkdir -p "$FOLDER/build"
ln -s test/gpu "$FOLDER/gpu"
cp -r --parents test/gpu/*.sh test/gpu/*.py test/golden/{cuda,golden,gradients}.py test/checkpoints/tiny-* models/m1-nano \
    scripts/lib.sh "$FOLDER/"
rm -f "$FOLDER"/test/checkpoints/*/grad_full*
cp -r "$PARTS" "$FOLDER/build/gpu-parts"

folder=$(megabytes "$FOLDER")
parts=$(megabytes "$PARTS")
mapfile -t files < <(checkout_files)
checkout=$((parts + $(megabytes "${files[@]}")))
echo "$FOLDER, $folder MB: copy it, and run gpu/run.sh there"
echo "$PARTS, $parts MB: carry it beside the checkout, together $checkout MB, and run test/gpu/run.sh there"
below $FOLDER_MB "$folder" "$FOLDER" && below "$CHECKOUT_MB" "$checkout" "A checkout with $PARTS"
