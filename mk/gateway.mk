# The gateway: a client of libpq, on libevent's loop. Of the engine's code it has what reads and writes JSON, and texts.

GATEWAY     := $(BUILD)/minimax_m1_gateway
GATEWAY_SRC := $(wildcard src/gateway/*.c)
GATEWAY_OBJ := $(GATEWAY_SRC:%.c=$(BUILD)/obj/%.o)

# All that it has of other rooms.
GATEWAY_CORE := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard src/base/*.c) src/text/jsonparse.c src/text/jsonnumber.c src/text/jsontext.c)

GATEWAY_LIBS := -L$(shell $(PG_CONFIG) --libdir 2>/dev/null) -lpq -levent_core

$(GATEWAY_OBJ): ENGINE_CFLAGS += -I$(shell $(PG_CONFIG) --includedir 2>/dev/null)

$(BUILD)/obj/src/gateway/page.o: src/gateway/page.html

$(GATEWAY): $(GATEWAY_OBJ) $(GATEWAY_CORE)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ $(GATEWAY_LIBS) -lpthread -lm

-include $(GATEWAY_OBJ:.o=.d)
