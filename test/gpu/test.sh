#!/usr/bin/env bash
# test.sh - that a bundle, or a checkout with the parts beside it, is all that run.sh needs, that no step keeps another
# from running, and that what each has found is kept, whatever ends it. The GPU is emulated; test programs, tools and
# PostgreSQL are stand-ins where only that matters which surrounds them. Prints "ok ..." and "not ok ..." lines.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
chmod 755 "$FOLDER" # for the user that runs servers
BUNDLE=$FOLDER/bundle
PARTS=$FOLDER/parts

report() {
    local status=$?
    if [ $status = 0 ]; then echo "ok $1"; else printf 'not ok %s\n%s\n' "$1" "$(cat "$FOLDER/output")"; fi
}

# script FILE LINE...: of sh.
script() {
    mkdir -p "${1%/*}"
    printf '#!/bin/sh\n' > "$1"
    printf '%s\n' "${@:2}" >> "$1"
    chmod 755 "$1"
}

# stand_in NAME LINE...: instead of a program of the bundle.
stand_in() {
    script "$BUNDLE/build/gpu/parts/gpu/$1" "${@:2}"
}

# run STEP...: somewhere else, in an environment that knows nothing of the checkout; SETTINGS are added to it.
SETTINGS=
run() {
    rm -rf "$FOLDER/out"
    mkdir -p "$FOLDER/out"
    # shellcheck disable=SC2086 # words are settings
    (cd "${FROM:-/}" && env -i "PATH=${PROGRAMS:-$PATH}" "OUT=$FOLDER/out" "STEP_SECONDS=${LIMIT:-250}" \
        "GPU_TOOLS=$FOLDER/tools/*" $SETTINGS "${RUN:-$BUNDLE/gpu/run.sh}" "$@") > "$FOLDER/output" 2>&1
    STATUS=$?
}

says() {
    grep -qE -- "$1" "$FOLDER/output"
}

kept() {
    tar -tzf "$FOLDER/out/results.tar.gz" | grep -x -- "./$1" > /dev/null
}

# ---- the two forms, and how they are started ----

test/gpu/bundle.sh "$PARTS" "$BUNDLE" emulated > "$FOLDER/output"
says "^$PARTS, [0-9]+ MB: .*together [0-9]+ MB"
report "it says how large the forms are"
COMMIT=$(git describe --always --dirty --abbrev=40 --exclude='*' 2> /dev/null || echo unknown)
! CHECKOUT_MB=10 test/gpu/bundle.sh "$FOLDER/large" "$FOLDER/large-bundle" emulated > "$FOLDER/output" 2>&1 &&
    says 'more than 10'
report "what would not be sent is told here"
rm -rf "$FOLDER/large" "$FOLDER/large-bundle"

FROM=$FOLDER RUN=bundle/gpu/run.sh run 7
[ $STATUS = 0 ] && says '^ok graphs' && says '^1 passed, 0 failed$' && says 'step of 8: launched in .* as a graph' &&
    says "^built of commit $COMMIT$"
report "it runs from an empty folder, by a path that is not a whole one: launches"

mkdir "$FOLDER/checkout"
cp -r test scripts models "$FOLDER/checkout/"
mkdir "$FOLDER/checkout/build"
cp -r "$PARTS" "$FOLDER/checkout/build/gpu-parts"
FROM=$FOLDER/checkout RUN=test/gpu/run.sh run graphs
[ $STATUS = 0 ] && says '^ok graphs'
report "the parts are all that a checkout lacks"
rm -rf "$FOLDER/checkout/build/gpu" "$FOLDER/programs"

mkdir "$FOLDER/programs"
ln -s /usr/bin/* "$FOLDER/programs/"
rm -f "$FOLDER"/programs/*xz*
PROGRAMS=$FOLDER/programs RUN=$FOLDER/checkout/test/gpu/run.sh run graphs
[ $STATUS = 0 ] && says '^ok graphs'
report "without xz, too"
rm -f "$FOLDER/checkout/build/gpu-parts/emulated" "$FOLDER/programs/nvidia-smi"
PROGRAMS=$FOLDER/programs RUN=$FOLDER/checkout/test/gpu/run.sh run first
[ $STATUS = 1 ] && says '^There is no GPU on this machine' && ! says '^---'
report "without a GPU nothing is begun"
script "$FOLDER/tools/driver/nvidia-smi" 'echo "GPU 0: a stand-in"'
PROGRAMS=$FOLDER/programs RUN=$FOLDER/checkout/test/gpu/run.sh run graphs
says '^GPU 0: a stand-in' && says '^--- graphs'
report "a driver's tools are found where it is mounted"
rm -rf "$FOLDER/checkout"

# ---- limits ----

# planned GIB: of the slices that are measured.
planned() {
    EMULATED_GIB=$1 build/gpu/bench_emulated "$FOLDER/plan.json" plan > "$FOLDER/output" 2>&1
}
planned 78 && [ "$(grep -c '^bench: ' "$FOLDER/output")" = 5 ]
report "what is measured fits on an H100"
! planned 20 && says 'does not fit the device'
report "and not on less than it takes"

"$BUNDLE/gpu/run.sh" list > "$FOLDER/output"
awk '/ at most / { name = $2; sub(":", "", name); limit[name] = $NF; steps++; next }
    { for (i = 2; i <= NF; i++) { sum[$1] += limit[$i]; steps-- } }
    END { exit !(steps == 0 && sum["first:"] <= 300 && sum["rest:"] <= 580) }' "$FOLDER/output"
report "two calls have all steps, and end within what a call may take"
SETTINGS=WITHIN=5 run graphs
[ $STATUS = 1 ] && says '^skip graphs: 5 s are over'
report "what has no time left is not begun"
run kernel
[ $STATUS = 2 ] && says 'There is no step "kernel"'
report "an unknown step is refused"

# ---- steps ----

for name in test_cuda_engine test_cuda_group test_cuda_learning; do
    stand_in $name 'echo "[       OK ] a case"'
done
stand_in test_cuda 'echo "[  FAILED  ] a case"; exit 1'
stand_in test_cuda_sample 'kill -SEGV $$'

run golden kernels bf16 attention
[ $STATUS = 1 ] && says '^3 passed, 1 failed$'
report "what fails does not stop the next"
says '^ok golden' && says '^    [1-9][0-9]* ok, 0 not ok$' && says '^    models/m1-nano on cuda: off by'
report "golden numbers"
says '^not ok kernels .*status 1' && says 'test_cuda: 0 cases passed, status 1' &&
    says 'test_cuda_sample: 0 cases passed, status 139' && says 'test_cuda_group: 1 cases passed, status 0'
report "every test program has its line"
says 'BF16, 2 layers: prefill' && says 'decode of 64: .*predicted' && says '80 layers, projected'
report "times with what was predicted"
says 'prefill of 32, one layer: lightning' && says 'one token after 256: lightning' &&
    says 'prefill of 32, lightning: .* ms, peer: '
report "attention alone, whatever others' says"
kept golden.log && kept kernels.log && kept bf16.json && kept attention.json && kept attention-peers.json &&
    cmp -s "$FOLDER/output" "$FOLDER/out/summary"
report "logs, figures and the summary are kept"
tar -xzOf "$FOLDER/out/results.tar.gz" ./bf16.json > "$FOLDER/bf16.json"
python3 - "$FOLDER/bf16.json" > "$FOLDER/output" 2>&1 <<'END'
import json, sys
with open(sys.argv[1]) as f:
    w = json.load(f)["weights"][0]
assert len(w["decode"]) == len(w["projected_80_layers"]) == 3, w
for d, p in zip(w["decode"], w["projected_80_layers"]):
    outside = p["outside_layers_ms"]
    want = (d["ms"] - outside) * 80 / w["layers"] + outside
    assert 0 < outside <= d["ms"] and abs(p["ms_one_gpu"] / want - 1) < 1e-2, (d, p, want)
END
report "80 layers take 40 times what two take, and once what is outside them"

stand_in test_cuda 'echo "[       OK ] before it hangs"; exec sleep 60'
LIMIT=30 run kernels
says '^    test_cuda: 1 cases passed, status 124' && says 'test_cuda_group: 1 cases passed' && kept kernels-test_cuda.log
report "a test program that hangs keeps none of the others from being told"

# ---- a bench that does only what is asked here ----

cat > "$FOLDER/figures.json" <<'END'
{"device": "a stand-in", "copy_bytes_per_s": 3e12, "bf16_product_operations_per_s": 7e14,
 "attention": [{"tokens": 32, "lightning_ms": 2.0, "lightning_share_of_copy_bandwidth": 0.5, "softmax_ms": 4.0,
                "softmax_share_of_product_rate": 0.5}],
 "contexts": [{"tokens": 64, "lightning_layer_ms": 0.01, "softmax_layer_ms": 0.5, "softmax_share_of_copy_bandwidth": 0.4}],
 "weights": [{"weights": "Q8_0", "layers": 2, "prefill_tokens": 8192, "prefill_ms": 9.0, "prefill_share_of_product_rate": 0.5,
              "decode": [], "projected_80_layers": []}]}
END
stand_in bench "cp '$FOLDER/figures.json' \"\$1\"" 'echo Q8_0' 'exec sleep 60'
LIMIT=15 run types
says '^    Q8_0, 2 layers: prefill of 8192' && says '^not ok types: it took longer than 15 s'
report "types are reported one by one, before one that hangs"


stand_in bench "cp '$FOLDER/figures.json' \"\$1\"" 'echo Q8_0' 'exec sleep 12'
LIMIT=40 SETTINGS=KEEP_SECONDS=1 run types &
for _ in $(seq 100); do
    sleep 0.1
    ! tar -xzOf "$FOLDER/out/results.tar.gz" ./types.log 2> /dev/null | grep -q 'Q8_0, 2 layers' || break
done
tar -xzOf "$FOLDER/out/results.tar.gz" ./types.log | grep -q 'Q8_0, 2 layers' && grep -q '^---' "$FOLDER/out/summary" &&
    ! grep -q passed "$FOLDER/out/summary"
report "while a step runs, its log is kept already"
wait

# ---- what others take ----

mkdir -p "$FOLDER/modules/fla/ops" "$FOLDER/broken"
cat > "$FOLDER/modules/torch.py" <<'END'
import contextlib, types
__version__, bfloat16, no_grad = "0", None, contextlib.nullcontext
randn = lambda *shape, **options: None
class Event:
    def __init__(self, enable_timing): pass
    record = synchronize = lambda self: None
    elapsed_time = lambda self, end: 1.0
cuda = types.SimpleNamespace(is_available=lambda: True, Event=Event, empty_cache=lambda: None)
nn = types.SimpleNamespace(functional=types.SimpleNamespace(scaled_dot_product_attention=lambda *a, **b: None))
END
for name in fla fla/ops; do
    echo 'raise ImportError("no models")' > "$FOLDER/modules/$name/__init__.py"
done
cat > "$FOLDER/modules/fla/ops/lightning_attn.py" <<'END'
import time
calls = []
def chunk_lightning_attn(*arguments, **options):
    calls.append(1)
    if len(calls) > 7:  # of the second length
        time.sleep(60)
END
echo 'raise RuntimeError("no driver")' > "$FOLDER/broken/torch.py"
stand_in bench "cp '$FOLDER/figures.json' \"\$1\"" 'echo attention' 'echo contexts'
SETTINGS="PYTHONPATH=$FOLDER/modules PEERS_SECONDS=10" run attention
says '^ok attention' && says 'prefill of 32, lightning: 2.000 ms, peer 1.000 ms, ratio 0.50' &&
    says 'softmax: 4.000 ms, peer: was not come to' && says 'prefill of 32, one layer: lightning 2.000 ms'
report "a foreign kernel that hangs hides neither our figures nor those before it, whatever its package needs"
echo 'chunk_lightning_attn = None' > "$FOLDER/modules/fla/ops/lightning_attn.py"
SETTINGS=PYTHONPATH=$FOLDER/modules run attention
says '^ok attention' && says "lightning: 2.000 ms, peer: chunk_lightning_attn failed: TypeError: 'NoneType'" &&
    says 'prefill of 32, softmax: 4.000 ms, peer 1.000 ms, ratio 0.25' &&
    says 'one token after 64, softmax: 0.5000 ms, peer 1.000 ms'
report "one that fails says why, and the others are timed"
SETTINGS=PYTHONPATH=$FOLDER/broken run attention
says '^ok attention' && says 'lightning: 2.000 ms, peer: importing torch failed: RuntimeError: no driver'
report "nor does a module that cannot be imported"
echo 'import time; time.sleep(60)' > "$FOLDER/broken/torch.py"
SETTINGS="PYTHONPATH=$FOLDER/broken PEERS_SECONDS=1" run attention
says '^ok attention' && says 'peers have told nothing' && ! says 'no driver'
report "what they told another time is not told again"
echo '{"soft' > "$FOLDER/half.json"
python3 test/gpu/report.py "$FOLDER/figures.json" peers "$FOLDER/half.json" > "$FOLDER/output" 2>&1 &&
    says 'peers have told nothing' && says 'softmax: 4.000 ms'
report "nor does half a file"

python3 - > "$FOLDER/output" 2>&1 <<'END'
import sys
sys.path.insert(0, "test/golden")
import cuda, golden
names = [case["task"] for _, case in cuda.chosen_cases(cuda.ALL)]
assert len(names) == len(set(names)) > 8, names

golden.reply_ids = lambda *arguments: ([7, 7, 1, 0], 2)
case = {"tools": None}
def judged(name, *rows):
    golden.logits = lambda *arguments: [x for row in rows for x in row]
    golden.judge_difference("engine", "model", name, case, "folder", [], 0.03, "another reply")
judged("close", [0, 0, 0], [0, 10, 0], [9.9, 10, 0], [0, 0, 0])
judged("far", [0, 0, 0], [0, 10, 0], [9, 10, 0], [0, 0, 0])
judged("without cause", [0, 0, 0], [0, 10, 0], [10, 9, 0], [0, 0, 0])
golden.at_once([("raises", int, "x"), ("goes on", golden.report, True, "goes on")])
END
says '^not ok raises: ValueError' && says '^ok goes on'
report "a device is asked one case of each task; what one raises stops no other"
says '^# close: token 1 of the reply differs, by 0.012' && says '^ok close' && says '^not ok far: another reply' &&
    says '^not ok without cause: another reply'
report "another reply is right only where rounding decides"

# ---- tools ----

rm -rf "$FOLDER/tools"
run memcheck profile
[ $STATUS = 1 ] && says '^skip memcheck: compute-sanitizer is not installed' && says '^skip profile: ncu is not' &&
    says '^0 passed, 0 failed$'
report "steps whose tools are missing are skipped"
stand_in bench '[ "$2 $3" = "small profile" ] || [ "$2 $3" = "small launch" ]'
script "$FOLDER/tools/sanitizer/compute-sanitizer" 'echo "Error: no device"' 'exit 1'
script "$FOLDER/tools/2025.3/ncu" 'echo "==ERROR== no permission"'
run memcheck profile
[ $STATUS = 1 ] && says '^skip memcheck: compute-sanitizer cannot work here: Error: no device$' &&
    says '^skip profile: ncu cannot work here: ==ERROR== no permission$' && says '^0 passed, 0 failed$'
report "and those whose tools cannot work"
SANITIZER="while [ \"\${1#*/gpu/}\" = \"\$1\" ]; do shift; done; echo \"\${1##*/}\" >> '$FOLDER/checked'"
script "$FOLDER/tools/sanitizer/compute-sanitizer" "$SANITIZER" 'echo "========= ERROR SUMMARY: 0 errors"' 'exec "$@"'
script "$FOLDER/tools/2025.3/ncu" "[ \"\$1\" != --import ] || exec cat '$FOLDER/profile.csv'" \
    'while [ "${1%/bench}" = "$1" ]; do [ "$1" != --export ] || echo report > "$2.ncu-rep"; shift; done' 'exec "$@"'
cat > "$FOLDER/profile.csv" <<'END'
==PROF== a line of the profiler's own
"ID","Kernel Name","gpu__time_duration.sum","gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed","sm__throughput.avg.pct_of_peak_sustained_elapsed"
"","","ns","%","%"
"0","multiply_few","3,000","80","10"
"1","multiply_few","1,000","40","10"
"2","normalize","1,000","n/a","20"
END
stand_in test_cuda 'echo "[       OK ] a case"'
stand_in test_cuda_sample 'echo "[       OK ] a case"'
run memcheck profile
[ $STATUS = 0 ] && says 'test_cuda_sample: 1 cases passed, status 0' && says '^ok memcheck' &&
    says '80.0 % of the time: multiply_few, 2 launches, memory 70 %, processors 10 %' &&
    says '20.0 % of the time: normalize, 1 launches, memory 0 %' &&
    [ "$(gzip -dc "$FOLDER/out/profile.ncu-rep.gz")" = report ]
report "tools are found where CUDA's installer leaves them, and what they say is told"
[ "$(sort -u <(sed -n 2,3p "$FOLDER/checked") | paste -sd ' ')" = "test_cuda test_cuda_learning" ]
report "what has most kernels is checked first"

# ---- packages: what is left of Debian's, libraries that a machine lacks, and a PostgreSQL ----

# As packages have it: this machine's server, all libraries, and a module and a program that no step uses.
SLIM=$FOLDER/slim
VERSION=$("${PG_CONFIG:-pg_config}" --version | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
SERVER=$SLIM/usr/lib/postgresql/$VERSION
mkdir -p "$SERVER/bin" "$SERVER/lib" "$SLIM/usr/lib/machine" "$SLIM/usr/share/postgresql"
cp "$("${PG_CONFIG:-pg_config}" --bindir)"/{postgres,initdb,pg_ctl,psql,pg_dump} "$SERVER/bin/"
cp "$("${PG_CONFIG:-pg_config}" --pkglibdir)"/{plpgsql,dict_snowball,pgoutput}.so "$SERVER/lib/"
cp -r "$("${PG_CONFIG:-pg_config}" --sharedir)" "$SLIM/usr/share/postgresql/$VERSION"
mapfile -t libraries < <(
    ldd "$SERVER"/bin/* build/unit/test_engine build/minimax_m1_engine_emulated | sed -nE 's/.* => (\S+) .*/\1/p' |
        grep -vE '/lib(c|m|resolv|gcc_s|stdc\+\+|crypt)\.so' | sort -u
)
for file in "${libraries[@]}"; do
    cp "$(readlink -f "$file")" "$SLIM/usr/lib/machine/"
    ln -s "$(basename "$(readlink -f "$file")")" "$SLIM/usr/lib/machine/${file##*/}" 2> /dev/null
done
touch "$SLIM/usr/lib/machine/libm1_unused.so.1"
chmod -R go+rX "$SLIM"

# cluster: made by what is left.
cluster() {
    (M1_TEST_USER=nobody PG_BIN=/ PG_LIB=/ PG_SHARE=/ && . scripts/lib.sh && own_folder "$FOLDER/cluster" &&
        as_user env "LD_LIBRARY_PATH=$SLIM/usr/lib/machine" "$SERVER/bin/initdb" -D "$FOLDER/cluster/data" \
            --locale=C.UTF-8 -N) > "$FOLDER/output" 2>&1
}
# packed: how many bytes ICU's data take in an archive.
packed() {
    xz -0 -c "$SLIM"/usr/lib/machine/libicudata.so.*.* | wc -c
}
WHOLE=$(packed)
test/gpu/slim.py "$SLIM" "$VERSION" > "$FOLDER/output" 2>&1 && [ -e "$SERVER/bin/psql" ] &&
    [ -e "$SLIM/usr/lib/machine/libjansson.so.4" ] && [ ! -e "$SERVER/bin/pg_dump" ] &&
    [ ! -e "$SERVER/lib/pgoutput.so" ] && [ ! -e "$SLIM/usr/lib/machine/libm1_unused.so.1" ]
report "of a server's packages, what steps use is left"
[ "$(packed)" -lt $((WHOLE / 4)) ] && cluster
report "a cluster can be made of it, and ICU's data take a quarter at most"
rm -f "$SLIM"/usr/lib/machine/libpq.so.*
! test/gpu/slim.py "$SLIM" "$VERSION" > "$FOLDER/output" 2>&1 && says 'the packages lack libpq.so.5$'
report "a library that no package brings is told"
rm -rf "$SLIM" "$FOLDER/cluster"

PACKAGE=$FOLDER/package
LIBRARIES=$PACKAGE/usr/lib/x86_64-linux-gnu
mkdir -p "$LIBRARIES"

# library NAME LINE OPTION...: as packages have it.
library() {
    echo "$2" | cc -shared -fPIC -x c - -x none -o "$LIBRARIES/$1" "-Wl,-soname,$1" -L"$LIBRARIES" "${@:3}"
}
library libm1_inner.so.1 'int inner(void) { return 0; }'
library libm1_outer.so.1 'int inner(void); int outer(void) { return inner(); }' -l:libm1_inner.so.1
echo 'int outer(void); int puts(const char *s); int main(void) { puts("[       OK ] linked"); return outer(); }' |
    cc -x c - -x none -o "$FOLDER/linked" -L"$LIBRARIES" -l:libm1_outer.so.1 -Wl,-rpath-link,"$LIBRARIES"
cp "$FOLDER/linked" "$BUNDLE/build/gpu/parts/gpu/test_cuda_sample"
run kernels
[ $STATUS = 1 ] && says '^Shared libraries are missing: libm1_outer.so.1$' && says 'libcublasLt.so.13 is' && ! says '^---'
report "a library that is nowhere is told once, before any step"

# loaded NAME: where find_loaded has put what it finds, with Python's packages of CUDA as their own stand-in.
loaded() {
    (cd "$BUNDLE" && LD_LIBRARY_PATH='' PYTHONPATH=$FOLDER/modules \
        bash -c '. test/gpu/libraries.sh; find_loaded "$1"; echo "$LD_LIBRARY_PATH"' - "$1") > "$FOLDER/output" 2>&1
}
mkdir -p "$FOLDER/modules/nvidia/nccl/lib"
touch "$FOLDER/modules/nvidia/__init__.py"
cp "$LIBRARIES/libm1_inner.so.1" "$FOLDER/modules/nvidia/nccl/lib/"
loaded libm1_inner.so.1 && says '^/.*/modules/nvidia/nccl/lib$' && loaded libm1_none.so.1 &&
    says '^Shared libraries are missing: libm1_none.so.1$' && loaded libc.so.6 && says '^$'
report "a library that programs load by themselves is found where Python has it"

# pg NAME LINE...: a program of a PostgreSQL that never stops by itself.
pg() {
    script "$PACKAGE/usr/lib/postgresql/15/bin/$1" "${@:2}"
}
mkdir -p "$PACKAGE/usr/share/postgresql/15" "$BUNDLE/build/gpu/parts/stage/usr/lib/postgresql/15/lib" "$FOLDER/seen"
chmod 777 "$FOLDER/seen"
pg postgres
pg initdb '[ "$1" != --version ] || exec echo "initdb (PostgreSQL) 15.0"' 'mkdir -p "$2"'
pg pg_ctl 'cd "$2" || exit 1' 'case "$*" in' \
    "*start) setsid sleep 300 > /dev/null 2>&1 9>&- & echo \$! > postmaster.pid; cp postmaster.pid '$FOLDER/seen/'; env > '$FOLDER/seen/environment' ;;" \
    '*immediate*stop) kill "$(cat postmaster.pid)" ;;' '*) exec sleep 60 ;;' 'esac'
pg psql 'case "$*" in *generate_ids*) exec sleep 60 ;; esac' 'echo ready'
echo "no library" > "$LIBRARIES/libc.so.6"
tar -cJf "$BUNDLE/build/gpu-parts/packages.tar.xz" -C "$PACKAGE" .
run kernels
[ $STATUS = 0 ] && says 'test_cuda_sample: 1 cases passed'
report "of packages, programs get what they lack and what that lacks, and nothing else"

LIMIT=20 SETTINGS=PG_CONFIG=false run sql
says '^not ok sql: it took longer than 20 s' && says 'not ok the model is on cuda' &&
    [ -s "$FOLDER/seen/postmaster.pid" ] && ! readlink "/proc/$(cat "$FOLDER/seen/postmaster.pid")/cwd" > "$FOLDER/seen/cwd"
report "a server is unpacked, and does not outlive its step"
[ "$(find "$BUNDLE/build/gpu/root" -name model.safetensors | wc -l)" = 1 ]
report "the bundled model is beside it"
bash -c 'M1_TEST_USER=nobody PG_BIN=/ PG_LIB=/ PG_SHARE=/; . "$1/scripts/lib.sh"; echo "${AS_USER[*]}"' - "$BUNDLE" \
    > "$FOLDER/output" 2>&1
! says dac_override
report "a server that can read the bundle is given no right to read more"
