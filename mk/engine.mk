# The engine: an executable without PostgreSQL, and the same code as a library for the unit tests.
#
# Every .c file of a layer's folder belongs to it. Sanitized builds use the same rules with another
# BUILD folder and SANITIZE flags.

BUILD     ?= build
SANITIZE  ?=

ENGINE_CC     ?= cc
ENGINE_CFLAGS := -std=c11 -O3 -g -fno-math-errno -fno-trapping-math -Isrc -MMD -MP \
                 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
                 -Wwrite-strings $(SANITIZE) $(EXTRA_CFLAGS)
ENGINE_LIBS   := -lpcre2-8 -ljansson -lpthread -lm

ENGINE_SRC := $(wildcard src/base/*.c src/wire/*.c src/model/*.c src/engine/*.c) \
              $(filter-out src/backend/cpu_kernels.c,$(wildcard src/backend/*.c))

# cpu_kernels.c is compiled once per instruction set; the backend chooses at run time.
KERNEL_ISAS := portable
ifeq ($(shell uname -m),x86_64)
KERNEL_ISAS += avx2 avx512
endif
ISA_FLAGS_portable :=
ISA_FLAGS_avx2     := -mavx2 -mfma -mf16c
ISA_FLAGS_avx512   := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c

ENGINE_OBJ := $(ENGINE_SRC:%.c=$(BUILD)/obj/%.o) \
              $(KERNEL_ISAS:%=$(BUILD)/obj/src/backend/cpu_kernels_%.o)
CORE_OBJ   := $(filter-out $(BUILD)/obj/src/engine/main.o,$(ENGINE_OBJ))

ENGINE   := $(BUILD)/minimax_m1_engine
CORE_LIB := $(BUILD)/libminimax_m1_core.a

$(ENGINE): $(BUILD)/obj/src/engine/main.o $(CORE_LIB)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ $(ENGINE_LIBS)

$(CORE_LIB): $(CORE_OBJ)
	rm -f $@
	ar rcs $@ $^

$(KERNEL_ISAS:%=$(BUILD)/obj/src/backend/cpu_kernels_%.o): $(BUILD)/obj/src/backend/cpu_kernels_%.o: src/backend/cpu_kernels.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) $(ISA_FLAGS_$*) -DM1_ISA=$* -c -o $@ $<

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -c -o $@ $<

# Unit and golden tests: one program per file, linked with the engine's code.
UNIT_SRC  := $(wildcard test/unit/test_*.c)
UNIT_BIN  := $(UNIT_SRC:test/unit/%.c=$(BUILD)/unit/%)

$(BUILD)/unit/%: test/unit/%.c $(CORE_LIB)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(ENGINE_CFLAGS) -Itest/unit -o $@ $< $(CORE_LIB) -lcmocka $(ENGINE_LIBS)

# Dependency files are written by the compiler, never made by a rule.
%.d: ;
-include $(ENGINE_OBJ:.o=.d) $(UNIT_BIN:=.d)
