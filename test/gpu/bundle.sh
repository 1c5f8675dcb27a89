#!/usr/bin/env bash
# bundle.sh FOLDER [emulated] - collects in FOLDER what gpu/run.sh needs on a machine with a GPU and nothing else: the
# engine, test programs and bench, stripped; the extension and Debian's PostgreSQL (packages.sh); the bundled model,
# test checkpoints and scripts, where a checkout has them; and flash-linear-attention for peers.py, where pip has it.
#
# emulated: the same of programs whose GPU is emulated, for the tests: nothing is fetched, and there is no PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/../.."

FOLDER=$1
EMULATED=${2:-}
LIMIT_MB=60
TESTS=(test_cuda test_cuda_sample test_cuda_engine test_cuda_group test_cuda_learning)

# program SOURCE NAME: a stripped copy.
program() {
    install -D "$1" "$FOLDER/build/$2"
    strip "$FOLDER/build/$2"
}

# copied FILE...: at the same place.
copied() {
    cp -r --parents -- "$@" "$FOLDER/"
}

# All of them in one archive, which run.sh unpacks: most of each is the same kernels.
pack_programs() {
    (cd "$FOLDER/build" && tar -c minimax_m1_engine_cuda gpu/bench gpu/test_* --remove-files) |
        xz --lzma2=preset=1,dict=64MiB > "$FOLDER/programs.tar.xz"
}

rm -rf "$FOLDER"
mkdir -p "$FOLDER/build/gpu"
ln -s test/gpu "$FOLDER/gpu"
copied test/gpu/*.sh test/gpu/*.py test/golden/{cuda,golden,gradients}.py test/checkpoints/tiny-*
rm -f "$FOLDER"/test/checkpoints/*/grad_full*
if [ -n "$EMULATED" ]; then
    touch "$FOLDER/emulated"
    copied models/m1-nano
    program build/minimax_m1_engine_emulated minimax_m1_engine_cuda
    program build/gpu/bench_emulated gpu/bench
    for name in "${TESTS[@]}"; do
        program "build/unit/$name" "gpu/$name"
    done
    pack_programs
    exit
fi
program build/sm_90a/minimax_m1_engine_cuda minimax_m1_engine_cuda
for name in bench "${TESTS[@]}"; do
    program "build/sm_90a/gpu/$name" "gpu/$name"
done
pack_programs
copied scripts/lib.sh build/stage build/gpu/packages.tar.xz
find "$FOLDER/build/stage" -name minimax_m1_engine_cuda -delete # sql.sh puts that of the bundle there
find "$FOLDER/build/stage" -path '*/lib/minimax_m1*' -type f -exec strip {} +
mkdir "$FOLDER/models"
ln -s "../$(cd "$FOLDER" && find build/stage -type d -name m1-nano)" "$FOLDER/models/"
PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install -q --no-deps --no-compile --target "$FOLDER/python" \
    flash-linear-attention fla-core 2> /dev/null ||
    echo "flash-linear-attention cannot be fetched: its attention will not be timed." >&2
megabytes=$(du -sm "$FOLDER" | cut -f 1)
echo "$FOLDER, $megabytes MB: copy it, and run gpu/run.sh there"
[ "$megabytes" -lt $LIMIT_MB ]
