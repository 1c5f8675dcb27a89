/*
 * job_aside.h - whose jobs are not taken for a while (job_aside.c).
 */
#ifndef M1PG_JOB_ASIDE_H
#define M1PG_JOB_ASIDE_H

#include "pg/m1pg.h"

#include "datatype/timestamp.h"

/* An owner's quota has no room: none of its jobs is taken for job_retry_delay, or until one has ended. */
extern void m1pg_refuse_owner(Oid owner);
extern void m1pg_admit_owner(Oid owner);
/* As oid[]. */
extern Datum m1pg_refused_owners(void);

/* An annotator's rows take too much of the runner's time: others go first. */
extern void m1pg_put_annotator_aside(int id, int64 ms);
/* 0 = it is not put aside. */
extern TimestampTz m1pg_annotator_aside_until(int id);
/* As int4[]. */
extern Datum m1pg_annotators_aside(void);

#endif							/* M1PG_JOB_ASIDE_H */
