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
extern bool m1pg_owner_is_refused(Oid owner);
/*
 * To take some of an owner's jobs has taken so long: there are many that cannot
 * be taken, because a transaction that has not ended has written or locked them.
 * If that was slow, others go first for ten times as long.
 */
extern void m1pg_charge_claim(Oid owner, int64 ms);
extern bool m1pg_queue_is_slow(Oid owner);
extern bool m1pg_any_queue_is_slow(void);

/*
 * A row of an annotator has taken the runner so long, by code of its table's
 * owner. If that was slow, others go first: the annotator waits ten times as
 * long, and all of the same owner's tables as long as it took, so that many
 * annotators get an owner no more than half of the runner's time. A hundred
 * times as long the annotator is slow, whose rows come behind all others: as
 * several take turns, one of them would else always be first again.
 */
extern void m1pg_charge_time(int annotator, Oid table_owner, int64 ms);
/*
 * A row of an annotator has ended the runner. That counts as much as if it had taken it for twice the time limit, and
 * twice as much each time, until it has not happened for a while. Runners after this one know of it, too.
 */
extern void m1pg_charge_end(int annotator, Oid table_owner);
/* Once in a runner: what earlier ones knew of such ends. */
extern void m1pg_recall_ends(void);
/* 0 = it is not put aside. */
extern TimestampTz m1pg_aside_until(int annotator, Oid table_owner);
/* As int4[] and oid[]. */
extern Datum m1pg_annotators_aside(void);
extern Datum m1pg_table_owners_aside(void);
extern Datum m1pg_slow_annotators(void);	/* int4[] */
extern bool m1pg_has_slow_annotators(void);

#endif							/* M1PG_JOB_ASIDE_H */
