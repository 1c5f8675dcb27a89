/*
 * job_claim.h - taking jobs from the queue, and what comes next there (job_claim.c),
 * within a transaction.
 */
#ifndef M1PG_JOB_CLAIM_H
#define M1PG_JOB_CLAIM_H

#include "pg/jobs/job.h"

/* Takes up to n jobs that are due, and renders their prompts; adds them to the list. Returns how many it took. */
extern int	m1pg_claim(int n, dlist_head *jobs);
/* One job under which things have broken. To be called only when nothing is in flight. */
extern int	m1pg_claim_suspect(dlist_head *jobs);
extern bool m1pg_suspect_is_due(void);
/* When the next job is due, or the next is to be forgotten; 0 = never. */
extern TimestampTz m1pg_next_due(void);
extern void m1pg_forget_old(void);

#endif							/* M1PG_JOB_CLAIM_H */
