# minimax_m1: the extension (PGXS), the engine (mk/engine.mk), tests and demo. A comment "## TARGETS: what they do" is a
# line of "make help".

PG_CONFIG ?= pg_config
.DEFAULT_GOAL := all

include mk/engine.mk

# Empty where the server's development files are missing, even if a client's pg_config is there and names them, and PGXS
# without the headers: the targets that install them must work then.
PGXS := $(if $(wildcard $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h),$(wildcard \
    $(shell $(PG_CONFIG) --pgxs 2>/dev/null)))
ifneq ($(PGXS),)

MODULE_big = minimax_m1
PG_SRC := $(sort $(wildcard src/pg/*.c src/pg/*/*.c src/wire/*.c)) src/base/status.c src/base/block.c src/base/buf.c \
          src/base/hour.c src/base/latency.c src/base/memory.c src/base/utf8.c src/base/work.c src/text/jsonparse.c \
          src/text/jsonnumber.c
OBJS = $(PG_SRC:%.c=$(BUILD)/pg/%.o)
EXTENSION = minimax_m1
DATA = $(wildcard sql/minimax_m1--*.sql)
DATA_built = $(SCRIPT) $(UPDATES)
EXTRA_CLEAN = build

# The whole install script of this version, joined from parts in the order of their names; see sql/README.md. The folder
# is newer than the script when a part comes, goes or gets another name.
SCRIPT_VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" minimax_m1.control)
SCRIPT         := $(BUILD)/minimax_m1--$(SCRIPT_VERSION).sql
SCRIPT_PARTS   := $(sort $(wildcard sql/install/*.sql))

$(SCRIPT): $(SCRIPT_PARTS) sql/install
	@mkdir -p $(@D)
	cat $(SCRIPT_PARTS) > $@

# Updates to it have what changed, and name what they take over from the parts: see scripts/update_script.awk.
UPDATES := $(patsubst sql/update/%,$(BUILD)/%,$(wildcard sql/update/*.sql))

$(UPDATES): $(BUILD)/%.sql: sql/update/%.sql scripts/update_script.awk $(SCRIPT_PARTS)
	@mkdir -p $(@D)
	awk -f scripts/update_script.awk $< > $@.new && mv $@.new $@

PG_PKGLIBDIR := $(shell $(PG_CONFIG) --pkglibdir)
PG_SHAREDIR  := $(shell $(PG_CONFIG) --sharedir)
PG_CPPFLAGS = -Isrc -MMD -MP -DM1_PKGLIBDIR='"$(PG_PKGLIBDIR)"' -DM1_SHAREDIR='"$(PG_SHAREDIR)"'
# Designated initializers and declarations where they are needed are C99; the server's flags warn of the latter.
PG_CFLAGS = -Wno-declaration-after-statement

# No bitcode: the JIT never inlines a function that waits for a model, and clang is not needed to build.
override with_llvm := no
include $(PGXS)

## all: build the extension, the engine and the gateway
all: $(ENGINE) $(GATEWAY)

MODEL_DIR = $(DESTDIR)$(PG_SHAREDIR)/minimax_m1/models/m1-nano

## install: install both and the bundled model, below DESTDIR if it is set
## uninstall: remove them
install: install-engine
.PHONY: install-engine
install-engine: $(ENGINE) $(GATEWAY)
	$(MKDIR_P) '$(DESTDIR)$(PG_PKGLIBDIR)' '$(MODEL_DIR)'
	$(INSTALL_PROGRAM) $(ENGINE) $(GATEWAY) $(wildcard $(CUDA_ENGINE)) '$(DESTDIR)$(PG_PKGLIBDIR)/'
	$(INSTALL_DATA) $(wildcard models/m1-nano/*) '$(MODEL_DIR)/'

uninstall: uninstall-engine
.PHONY: uninstall-engine
uninstall-engine:
	rm -f '$(DESTDIR)$(PG_PKGLIBDIR)/minimax_m1_engine' '$(DESTDIR)$(PG_PKGLIBDIR)/minimax_m1_engine_cuda' \
	    '$(DESTDIR)$(PG_PKGLIBDIR)/minimax_m1_gateway'
	rm -rf '$(DESTDIR)$(PG_SHAREDIR)/minimax_m1'

$(OBJS): $(BUILD)/pg/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(CPPFLAGS) -c -o $@ $<

-include $(OBJS:.o=.d)

# An installation of its own, for tests, demo and benchmarks: what it has from where is in its log, which comes last.
STAGED := $(BUILD)/stage/install.log

$(STAGED): $(shlib) $(ENGINE) $(GATEWAY) $(wildcard $(CUDA_ENGINE) models/m1-nano/*) $(EXTENSION).control $(DATA) $(DATA_built)
	@mkdir -p $(@D)
	@$(MAKE) --no-print-directory install DESTDIR='$(CURDIR)/$(BUILD)/stage' > $@.new 2>&1 || { cat $@.new >&2; exit 1; }
	@mv $@.new $@

else

all install:
	@echo "PostgreSQL's development files were not found: 'make setup' installs them, or set PG_CONFIG." >&2
	@exit 1
clean:
	rm -rf build

endif

.PHONY: setup demo test nano eval bench bench-beside bench-claims bench-cispo bench-gateway bench-million bench-peer \
        bench-spam bench-train lint format help stage unit unit-san schemas check-rooms \
        check-unit check-unit-san check-fuzz fuzz check-golden check-bundle check-schemas check-proxy check-regress \
        check-readme check-demo check-setup check-isolation check-tap check-hostile check-clients check-trainings check-drain \
        test-platforms test-remote bench-remote cuda cuda-resources gpu-check gpu-bundle

setup:
	@scripts/bootstrap.sh

# Set-up first, then everything else by a new make that finds what was installed. Its output matters only if it fails.
QUIETLY = scripts/quietly.sh $(MAKE) --no-print-directory -j $(shell nproc)

## demo: set up and show everything on a private server
demo: setup
	@echo "Building ..."
	@$(QUIETLY) stage
	@scripts/demo.sh

## test: set up and run all tests
test: setup
	@test/run.sh

stage: all $(STAGED)

unit: $(UNIT_BIN)

schemas: $(SCHEMA_ANSWERS)

# With less effort. What is read or written at a null pointer, or beyond an object, the address sanitizer tells, too.
SAN_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize=null,object-size -fno-sanitize-recover=all \
             -fno-omit-frame-pointer
unit-san:
	@$(MAKE) --no-print-directory BUILD=build/san SANITIZE='$(SAN_FLAGS)' unit fuzz-targets

## check-PART: one part: rooms, unit, unit-san, fuzz, golden, bundle, schemas, proxy, regress, readme, demo, setup, isolation, tap
check-rooms check-unit check-unit-san check-fuzz check-golden check-bundle check-schemas check-proxy check-regress \
check-readme check-demo check-setup check-isolation check-tap: setup
	@test/run.sh $(@:check-%=%)

# With libFuzzer and other sanitizers than the replay of check-fuzz has: those of clang.
FUZZ_FLAGS := -O2 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
## fuzz: feed readers of files, texts and frames with inputs that are made up, SECONDS=60 each, or EXECUTIONS in all
fuzz:
	@scripts/bootstrap.sh clang libclang-rt-dev
	@$(QUIETLY) BUILD=build/fuzz ENGINE_CC=clang SANITIZE='$(FUZZ_FLAGS)' FUZZ_DRIVER= FUZZ_LINK=-fsanitize=fuzzer \
	    fuzz-targets
	@test/fuzz/run.sh $(or $(SECONDS),$(if $(EXECUTIONS),0,60)) $(TARGETS)

# The tests of many clients and many rows, at length.
## check-hostile: hostile requests of one role, each for SECONDS=10, beside another role's; and rights
## check-clients: many clients at once and what they leave behind: CLIENTS=200, or 64 for SECONDS; and KILLS=400 under load
## check-trainings: KILLS=400 processes of all kinds are killed while trainings run
## check-drain: annotate ROWS=100000 rows while engine, worker, runner and server are killed
CLIENTS ?= $(if $(SECONDS),64,200)
TRANSACTIONS ?= 20
KILLS ?= 400
ROWS ?= 100000
# What is timed runs alone.
check-hostile: setup
	@HOSTILE_SECONDS=$(or $(SECONDS),10) test/long.sh 050_hostile '024_hostile_engine 036_rights'
check-clients: setup
	@CLIENTS=$(CLIENTS) TRANSACTIONS=$(TRANSACTIONS) SOAK_SECONDS=$(SECONDS) KILLS=$(KILLS) \
	    test/long.sh '033_clients 041_clients 051_kills 061_openai 062_gateway_http'
check-trainings: setup
	@KILLS=$(KILLS) test/long.sh 059_training_kills
check-drain: setup
	@ROWS=$(ROWS) test/long.sh 031_drain

## test-platforms: make demo and make test on bare Debians, SUITES="bookworm trixie forky" by default; as root
test-platforms:
	@test/platforms/run.sh $(SUITES)

## test-remote: the proxy, and SQL, before a real llama-server of Debian forky, in a folder that debootstrap makes; as root
test-remote:
	@$(QUIETLY) stage
	@test/remote/run.sh

## bench-remote: rows/s and latency over that llama-server beside the engine, on the same file; as root
bench-remote:
	@$(QUIETLY) stage
	@test/remote/run.sh bench

## bench: speeds of the engine and through SQL; then bench-remote
bench:
	@scripts/bootstrap.sh python3-numpy
	@$(QUIETLY) stage
	@test/bench/bench.sh
	@test/remote/run.sh bench

## bench-claims: what the architecture saves at 1k, 32k and 100k tokens, measured and computed; ten minutes on two cores
bench-claims:
	@scripts/bootstrap.sh python3-numpy
	@$(QUIETLY) all
	@mkdir -p $(BUILD)/claims
	@/usr/bin/python3 test/bench/claims.py $(ENGINE) $(BUILD)/claims $(LENGTHS)

## bench-million: a prompt of a million tokens of m1-nano's size: memory, states and a token's time; TOKENS=1000000 for fewer
bench-million:
	@$(QUIETLY) all $(MILLION)
	@test/million/run.sh $(MILLION) $(BUILD)/million/m1-nano $(or $(TOKENS),1000000)

## bench-gateway: what the gateway adds to a request and to a long stream, beside libpq
bench-gateway: setup
	@$(QUIETLY) stage
	@test/bench/gateway.sh

## bench-beside: how long requests take beside a training, and without one
bench-beside:
	@scripts/bootstrap.sh
	@$(QUIETLY) stage
	@test/bench/beside.sh

## bench-peer: the engine beside llama.cpp on the same files, which it fetches from npm
bench-peer:
	@scripts/bootstrap.sh python3-numpy git $(if $(shell command -v npm),,npm)
	@$(QUIETLY) all
	@test/bench/peer/peer.sh

## eval: what a model can do, by questions that are made; MODEL=models/m1-nano and all ITEMS of each kind by default
eval: setup
	@$(QUIETLY) stage
	@MODEL='$(MODEL)' ITEMS='$(ITEMS)' test/eval/eval.sh

## bench-train: how fast models learn, beside PyTorch
bench-train:
	@scripts/bootstrap.sh python3-numpy python3-torch libopenblas0-pthread
	@$(QUIETLY) all
	@test/bench/train.sh

# SEEDS=1 is a first look, of some minutes.
## bench-cispo: CISPO beside DAPO and GRPO with five seeds each; TASKS=voucher by default, or extraction, or carry
bench-cispo:
	@scripts/bootstrap.sh
	@$(QUIETLY) stage
	@test/bench/cispo.sh

# 250 steps read each of the 2,000 mails twice.
## bench-spam: spam learnt from public mail, by sft and by reward, beside naive Bayes in SQL; SPAM_ROWS=4000, STEPS=250
bench-spam: setup
	@SPAM_ROWS=$(or $(SPAM_ROWS),4000) SPAM_STEPS=$(or $(STEPS),250) test/long.sh 058_spam

# Of EXAMPLES and STEPS, few show that everything runs.
## nano: train m1-nano anew from seeds, into build/nano/m1-nano, which takes about 100 minutes; an interrupted run goes on
nano: $(ENGINE)
	@tools/nano/nano.sh $(ENGINE) $(BUILD)/nano

# "make install" installs it, too, once it is there.
## cuda: build the engine with CUDA, which needs nvcc
cuda: $(CUDA_ENGINE)

# As ptxas reports them; fails if one spills.
## cuda-resources: registers and spills of its kernels
cuda-resources: $(CUDA_RESOURCES:.ptxas=.o)
	@grep -hE 'Compiling entry|Used|spill' $(CUDA_RESOURCES) | sed -E 's/ptxas info *: //'
	@! grep -hE '[1-9][0-9]* bytes spill' $(CUDA_RESOURCES) > /dev/null

## gpu-check: check and time it on a GPU, step by step; STEPS="1 2 3 6" for some: see test/gpu/run.sh
gpu-check: $(GPU_PROGRAMS) $(if $(PGXS),stage)
	@GPU_BUILT=yes test/gpu/run.sh $(STEPS)

## gpu-bundle: all that gpu-check needs in one folder, or beside a checkout, for a machine with an H100 or H200
gpu-bundle: $(HOPPER_PROGRAMS) $(BUILD)/gpu/packages.tar.xz stage
	@test/gpu/bundle.sh $(BUILD)/gpu-parts $(BUILD)/gpu-bundle

$(BUILD)/gpu/packages.tar.xz: test/gpu/packages.sh test/gpu/slim.py
	@test/gpu/packages.sh

C_FILES := $(wildcard $(ENGINE_ROOMS:%=src/%/*.[ch]) src/gateway/*.[ch] test/unit/*.[ch] test/schemas/*.c test/million/*.c test/judges/*.[ch] \
    test/fuzz/*.c test/fuzz/lib/*.[ch] \
    kernels/*.h kernels/*.cuh kernels/*.cu test/emulation/*.h test/emulation/*.cpp \
    test/gpu/*.[ch])

CPPCHECK := cppcheck --quiet --std=c11 --inline-suppr --error-exitcode=1 --enable=warning,portability,performance \
    --suppress=missingIncludeSystem --library=mk/cppcheck.cfg -Isrc -I.

## lint: check the layout of src and the code style
lint:
	@scripts/rooms.py
	@scripts/bootstrap.sh clang-format cppcheck
	clang-format --dry-run -Werror $(C_FILES)
	$(CPPCHECK) -DM1_ISA=3 $(ENGINE_ROOMS:%=src/%) src/gateway
	$(CPPCHECK) src/pg

## format: apply the code style
format:
	clang-format -i $(C_FILES)

## clean: remove what was built
## help: print this
help:
	@sed -n 's/^## \([^:]*\): /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F '\t' '{ printf "make %-20s %s\n", $$1, $$2 }'
