/*
 * served_adapter.h - adapters that are rows, in the engine (served_adapter.c).
 */
#ifndef M1PG_SERVED_ADAPTER_H
#define M1PG_SERVED_ADAPTER_H

#include "pg/m1pg.h"

#include "base/buf.h"

/*
 * What the engine calls a version of an adapter, once it has it: that of the id (adapter_version.id), or the latest
 * where it is 0. Raises 42704 when there is none that the current user may use, and the engine's error when it cannot
 * use it. With servers elsewhere, it is the name itself, which rows mean nothing for. Palloc'd.
 */
extern m1_slice m1pg_served_adapter_of(const char *name, int id);
/* From here on, requests use adapters (m1pg_adapters). */
extern void m1pg_use_adapters(void);

#endif							/* M1PG_SERVED_ADAPTER_H */
