/*
 * jobs.h - durable jobs and annotators, as the rest of the library sees them.
 *
 *   guard.c              acting as another role; the gate from public to internal SQL functions
 *   job_shared.c         which databases have work, who runs it, and who is to be woken
 *   job_launcher.c       the background worker that starts a runner where there is work
 *   job_runner.c         the runner's loop: one process for one database, as long as it has work
 *   job_claim.c          the runner takes jobs
 *   job_finish.c         the runner writes results and failures
 *   job_lease.c          by what a job is this runner's, until it is given back
 *   job_definition.c     the definitions that the runner works with
 *   job.c                a job in the runner's memory
 *   job_functions.c      submit(), wait_for()
 *   annotator.c          a definition, and the rows of its table
 *   annotator_trigger.c  the triggers
 *
 * The queue is the table minimax_m1.job. What is pending, leased or done is
 * told by it alone: processes and shared memory may be lost at any time.
 */
#ifndef M1PG_JOBS_H
#define M1PG_JOBS_H

#include "pg/m1pg.h"

/* ---- the rest of the library ---- */

extern void m1pg_jobs_shared_request(void);
/* With AddinShmemInitLock held. */
extern void m1pg_jobs_shared_startup(void);
extern void m1pg_register_job_launcher(void);
/* The engine answers again: runners that pause need not wait longer. */
extern void m1pg_jobs_engine_ready(void);

/* ---- background workers ---- */

extern PGDLLEXPORT void m1pg_job_launcher_main(Datum main_arg);
extern PGDLLEXPORT void m1pg_job_runner_main(Datum main_arg);

#endif							/* M1PG_JOBS_H */
