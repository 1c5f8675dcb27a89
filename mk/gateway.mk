# The gateway: a client of libpq, on libevent's loop. Of the engine's code it has what reads and writes JSON, and texts.

GATEWAY     := $(BUILD)/minimax_m1_gateway
GATEWAY_SRC := $(wildcard src/gateway/*.c)
GATEWAY_OBJ := $(GATEWAY_SRC:%.c=$(BUILD)/obj/%.o)

GATEWAY_LIBS := -L$(shell $(PG_CONFIG) --libdir 2>/dev/null) -lpq -levent_core

$(GATEWAY_OBJ): ENGINE_CFLAGS += -I$(shell $(PG_CONFIG) --includedir 2>/dev/null)

$(GATEWAY): $(GATEWAY_OBJ) $(CORE_LIB)
	$(ENGINE_CC) $(SANITIZE) -o $@ $^ $(GATEWAY_LIBS)

-include $(GATEWAY_OBJ:.o=.d)
