/*
 * job_finish.h - ending jobs (job_finish.c), within a transaction.
 */
#ifndef M1PG_JOB_FINISH_H
#define M1PG_JOB_FINISH_H

#include "pg/jobs/annotator_rows.h"
#include "pg/jobs/job.h"

/* What finishing a job led to. */
typedef enum M1JobOutcome
{
	M1_JOB_OVER,				/* result, failure or release are written */
	M1_JOB_LATER,				/* the row is locked: try again at write_at */
	M1_JOB_OUTAGE,				/* released: the engine could not be reached */
	M1_JOB_OVERLOAD				/* released: the request was refused for now */
} M1JobOutcome;

/* `may_wait`: the answer may wait here for a row that is locked. */
extern M1JobOutcome m1pg_finish(M1Job *job, bool may_wait);
typedef enum M1Failure
{
	M1_FAILED_PASSING,			/* it will be better later: the job never ends of it */
	M1_FAILED_ONCE,				/* it may be better: there are max_attempts */
	M1_FAILED_FOR_GOOD
} M1Failure;

/* Records that an attempt has failed. */
extern void m1pg_fail_job(M1Job *job, const ErrorData *error, M1Failure failure);
/* Whether the error says nothing about the job: it met with a lock, or was in another's way. */
extern bool m1pg_is_passing(const M1Job *job, const ErrorData *error);
/* Whether there is something to ask the model, whose answer is wanted: no statement has filled the row meanwhile. */
extern bool m1pg_row_asks(const M1Job *job, const M1Row *row);
/* There is not. */
extern void m1pg_finish_unasked(M1Job *job, const M1Rows *rows);

#endif							/* M1PG_JOB_FINISH_H */
