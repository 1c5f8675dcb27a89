/*
 * jobs.h - durable jobs and annotators, as the rest of the library sees them.
 */
#ifndef M1PG_JOBS_H
#define M1PG_JOBS_H

#include "pg/m1pg.h"

/* ---- the rest of the library ---- */

extern void m1pg_jobs_shared_request(void);
/* With AddinShmemInitLock held. */
extern void m1pg_jobs_shared_startup(void);
extern void m1pg_register_job_launcher(void);
/* From here on, databases that are created or altered are noted. */
extern void m1pg_watch_databases(void);
/* The engine answers again: runners that pause need not wait longer. */
extern void m1pg_jobs_engine_ready(void);

/* ---- background workers ---- */

extern PGDLLEXPORT void m1pg_job_launcher_main(Datum main_arg);
extern PGDLLEXPORT void m1pg_job_runner_main(Datum main_arg);

#endif							/* M1PG_JOBS_H */
