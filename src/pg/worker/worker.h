/*
 * worker.h - the background worker, as the rest of the library sees it.
 *
 * All of it runs in the worker only, in one thread.
 */
#ifndef M1PG_WORKER_H
#define M1PG_WORKER_H

#include "pg/m1pg.h"

extern PGDLLEXPORT void m1pg_worker_main(Datum main_arg);

/* Called in the worker when the engine has become ready. module.c says who wants to know; NULL = nobody. */
extern void (*m1pg_engine_ready_hook) (void);

#endif							/* M1PG_WORKER_H */
