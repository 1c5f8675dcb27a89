/*
 * job_lease.h - the leases by which jobs are this runner's (job_lease.c), within a
 * transaction.
 */
#ifndef M1PG_JOB_LEASE_H
#define M1PG_JOB_LEASE_H

#include "pg/jobs/job.h"
#include "pg/jobs/job_shared.h"

/* In an UPDATE of a job that nobody works on any more. */
#define M1PG_NO_LEASE "leased_by = NULL, leased_at = NULL, lease_until = NULL"

/* When a failed job is due again, after so many attempts before this one: the pause doubles, up to an hour. */
#define M1PG_BACKOFF(delay, attempts) \
	"clock_timestamp() + least(3600000, " delay " * power(2, least(" attempts ", 30))) * interval '1 ms'"

/* Locks the job's row. false when the lease is not held any more: nothing of the job may be written. */
extern bool m1pg_lock_lease(const M1Job *job);
/* Extends the leases of these. mine[i] is false when the job has been cancelled, or is another runner's. */
extern void m1pg_renew_leases(M1Job *const *jobs, bool *mine, int n);
/* Gives the job back, due in so many milliseconds; `lost` when the engine went away under it. */
extern void m1pg_release(const M1Job *job, bool lost, int delay_ms);
/* Jobs whose runner is gone are due again, and what the last one was at when it ended has failed once more. */
extern void m1pg_release_orphans(const M1Blame *blame);

#endif							/* M1PG_JOB_LEASE_H */
