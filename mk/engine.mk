# The engine: an executable without PostgreSQL, and the same code as a library for the unit tests.
#
# Every .c file of these rooms belongs to it. Sanitized builds use the same rules with another
# BUILD folder and SANITIZE flags.

ENGINE_ROOMS := base blocks files text grammar backend backend/cpu backend/cuda model train wire engine proxy commands

BUILD     ?= build
SANITIZE  ?=
# Functions and lines, as a backtrace shows them. With -g, what a variable is and where takes the compiler a quarter of
# its time, and half of an object: make DEBUG=-g before a debugger is used.
DEBUG     ?= -g1

ENGINE_CC     ?= cc
ENGINE_CFLAGS := -std=c11 -O3 $(DEBUG) -fno-math-errno -fno-trapping-math -Isrc -I. -MMD -MP \
                 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
                 -Wwrite-strings $(SANITIZE) $(EXTRA_CFLAGS)
ENGINE_LIBS   := -lpcre2-8 -ljansson -lcurl -lpthread -lm

CUDA_SRC   := $(filter-out src/backend/cuda/cuda_absent.c,$(wildcard src/backend/cuda/*.c))
KERNEL_SRC := src/backend/cpu/cpu_kernels.c src/backend/cpu/cpu_qkernels.c src/backend/cpu/cpu_lkernels.c
ENGINE_SRC := $(filter-out $(KERNEL_SRC) $(CUDA_SRC),$(wildcard $(ENGINE_ROOMS:%=src/%/*.c)))

# Compiled once per instruction set; the backend chooses at run time.
KERNEL_ISAS := portable
ifeq ($(shell uname -m),x86_64)
KERNEL_ISAS += avx2 avx512 avx512vnni
endif
ISA_FLAGS_portable   :=
ISA_FLAGS_avx2       := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512     := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
ISA_FLAGS_avx512vnni := $(ISA_FLAGS_avx512) -mavx512vnni

# A sanitized build optimizes only the kernels that this processor will choose: the tests' time is spent there, the
# compiler's in all of them. With checks of undefined behaviour, too, these would take the compiler three times as long;
# the others, of the same source, have them.
CPU_HAS    := $(shell grep -m 1 ^flags /proc/cpuinfo)
CHOSEN_ISA := $(lastword portable $(if $(filter avx2,$(CPU_HAS)),avx2) $(if $(filter avx512vl,$(CPU_HAS)),avx512) \
                $(if $(filter avx512_vnni,$(CPU_HAS)),avx512vnni))
ifneq ($(SANITIZE),)
ISA_FLAGS_$(CHOSEN_ISA) += -O2 -fno-sanitize=undefined
endif

# What takes longest to compile comes first, so that the last job is a short one.
ENGINE_OBJ := $(foreach isa,$(KERNEL_ISAS),$(KERNEL_SRC:%.c=$(BUILD)/obj/%_$(isa).o)) \
              $(ENGINE_SRC:%.c=$(BUILD)/obj/%.o)
CORE_OBJ   := $(filter-out $(BUILD)/obj/src/commands/main.o,$(ENGINE_OBJ))

ENGINE   := $(BUILD)/minimax_m1_engine
CORE_LIB := $(BUILD)/libminimax_m1_core.a

$(ENGINE): $(BUILD)/obj/src/commands/main.o $(CORE_LIB)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ $(ENGINE_LIBS)

$(CORE_LIB): $(CORE_OBJ)
	rm -f $@
	ar rcs $@ $^

define kernel_rule
$(BUILD)/obj/%_$(1).o: %.c
	@mkdir -p $$(@D)
	$$(ENGINE_CC) $$(ENGINE_CFLAGS) $$(ISA_FLAGS_$(1)) -DM1_ISA=$(1) -c -o $$@ $$<
endef
$(foreach isa,$(KERNEL_ISAS),$(eval $(call kernel_rule,$(isa))))

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -c -o $@ $<

# Unit tests: one program per file, linked with the engine's code. What they write is below TEST_BUILD.
UNIT_SRC  := $(wildcard test/unit/test_*.c)
UNIT_OBJ  := $(UNIT_SRC:%.c=$(BUILD)/obj/%.o)
UNIT_BIN  := $(UNIT_SRC:test/unit/%.c=$(BUILD)/unit/%)
# A test's own code runs once, and is compiled for that.
UNIT_CFLAGS := -O1 -Itest/unit -Itest/judges -DTEST_BUILD='"$(BUILD)"'
JUDGE_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard test/judges/*.c))

$(UNIT_OBJ) $(JUDGE_OBJ): ENGINE_CFLAGS += $(UNIT_CFLAGS)
$(BUILD)/unit/test_constraint $(BUILD)/unit/test_tool_calls: $(JUDGE_OBJ)
$(BUILD)/unit/test_call_pieces: $(BUILD)/obj/src/gateway/call_pieces.o

$(UNIT_BIN): $(BUILD)/unit/%: $(BUILD)/obj/test/unit/%.o $(CORE_LIB)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(SANITIZE) -o $@ $(filter %.o,$^) $(CORE_LIB) -lcmocka $(ENGINE_LIBS)

# What test/schemas/schemas.py asks.
SCHEMA_ANSWERS := $(BUILD)/schemas/answers

$(SCHEMA_ANSWERS): test/schemas/answers.c $(CORE_LIB)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $< $(CORE_LIB) $(ENGINE_LIBS)

# A prompt of very many tokens.
MILLION := $(BUILD)/million/million

$(MILLION): test/million/million.c $(CORE_LIB)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -o $@ $< $(CORE_LIB) $(ENGINE_LIBS)

include mk/gateway.mk
include mk/cuda.mk
include mk/fuzz.mk

# The CUDA backend's kernels and host code, on the CPU.
$(EMULATED_TESTS:%=$(BUILD)/obj/test/unit/%.o): ENGINE_CFLAGS += -DM1K_EMULATED -Itest/emulation
$(EMULATED_TESTS:%=$(BUILD)/unit/%): ENGINE_LIBS += -lstdc++
$(EMULATED_TESTS:%=$(BUILD)/unit/%): $(EMULATED_OBJ)

# Dependency files are written by the compiler, never made by a rule.
%.d: ;
-include $(ENGINE_OBJ:.o=.d) $(UNIT_OBJ:.o=.d) $(JUDGE_OBJ:.o=.d) $(SCHEMA_ANSWERS).d $(MILLION).d
