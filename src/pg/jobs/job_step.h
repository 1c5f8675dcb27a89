/*
 * job_step.h - a step of a job, within a time limit (job_step.c).
 */
#ifndef M1PG_JOB_STEP_H
#define M1PG_JOB_STEP_H

#include "pg/jobs/job.h"

typedef void (*M1Step) (M1Job *job, void *arg);

/* Once in a runner, before its first step. */
extern void m1pg_steps_init(void);
/*
 * Runs a step in a subtransaction. Returns NULL, or the error that it ended
 * with, in the job's context; job->out_of_time tells that it took too long. Whose
 * steps are slow is put aside.
 */
extern ErrorData *m1pg_try(M1Job *job, M1Step step, void *arg);

#endif							/* M1PG_JOB_STEP_H */
