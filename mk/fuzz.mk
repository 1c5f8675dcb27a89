# Fuzz targets: one program for each file of test/fuzz, of what reads bytes that somebody else has written. Each is
# driven by replay.c, which any compiler builds, or by libFuzzer: see the Makefile. Included by engine.mk.

FUZZ_BIN := $(patsubst test/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard test/fuzz/*.c))

FUZZ_DRIVER ?= $(BUILD)/obj/test/fuzz/lib/replay.o
FUZZ_LINK   ?=

# Not all of the engine: a build of its own, with another compiler, is then a matter of seconds.
FUZZED_SRC := $(wildcard $(patsubst %,src/%/*.c,base blocks files text grammar wire) src/model/config*.c) \
              src/gateway/http_parse.c src/gateway/base64.c
FUZZ_OBJ   := $(patsubst %.c,$(BUILD)/obj/%.o,$(FUZZED_SRC) $(filter-out %/replay.c,$(wildcard test/fuzz/lib/*.c))) \
              $(JUDGE_OBJ)
FUZZ_OWN_OBJ := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard test/fuzz/*.c test/fuzz/lib/*.c))

$(FUZZ_OWN_OBJ): ENGINE_CFLAGS += -Itest/fuzz -Itest/judges

$(FUZZ_BIN): $(BUILD)/fuzz/%: $(BUILD)/obj/test/fuzz/%.o $(FUZZ_OBJ) $(FUZZ_DRIVER)
	@mkdir -p $(@D)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ $(FUZZ_LINK) $(ENGINE_LIBS)

.PHONY: fuzz-targets
fuzz-targets: $(FUZZ_BIN)

-include $(FUZZ_OWN_OBJ:.o=.d)
