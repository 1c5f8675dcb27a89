/*
 * served_adapter.h - adapters that are rows, in the engine (served_adapter.c).
 */
#ifndef M1PG_SERVED_ADAPTER_H
#define M1PG_SERVED_ADAPTER_H

#include "pg/m1pg.h"

#include "base/buf.h"

#include "datatype/timestamp.h"

/*
 * What the engine calls the latest version of an adapter, once it has it: for m1w_generate. Raises 42704 when there is
 * none that the current user may use, and the engine's error when it cannot use it. With servers elsewhere, it is the
 * name itself, which rows mean nothing for. Palloc'd.
 */
extern m1_slice m1pg_served_adapter(const char *name);
/* The same of the version that was the latest at that time. */
extern m1_slice m1pg_served_adapter_of(const char *name, TimestampTz at);
/* From here on, requests use what minimax_m1.adapter names. */
extern void m1pg_use_adapters(void);

#endif							/* M1PG_SERVED_ADAPTER_H */
