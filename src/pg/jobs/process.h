/*
 * process.h - background processes that work on one database (process.c).
 */
#ifndef M1PG_PROCESS_H
#define M1PG_PROCESS_H

#include "pg/m1pg.h"

#include "postmaster/bgworker.h"

/*
 * A process of this library that runs the function, with the database as its
 * argument; the name is what pg_stat_activity shows. It is started once, never
 * in recovery. Whoever registers it may add to it.
 */
extern BackgroundWorker m1pg_process(const char *function, const char *name, Oid database);
/* In one that is nobody's session: what the database has set for sessions, their limits of time too, is not for it. */
extern void m1pg_process_settings(void);
/* The process ends as by pg_terminate_backend, whatever it catches. May be called by a signal handler. */
extern void m1pg_process_end(void);

#endif							/* M1PG_PROCESS_H */
