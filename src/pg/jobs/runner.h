/*
 * runner.h - what the files of a job runner share: its loop (job_runner.c),
 * taking jobs (job_claim.c), ending them (job_finish.c), and the definitions of
 * annotators (job_definition.c).
 * All of it runs in one process, in one thread.
 *
 * A job in flight is a row with this process's lease, and an M1Job here. What
 * is here may be lost at any time: the lease ends, and the job is done anew.
 */
#ifndef M1PG_RUNNER_H
#define M1PG_RUNNER_H

#include "pg/client/exchange.h"
#include "pg/jobs/annotator.h"
#include "pg/jobs/jobs.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"

/* A job under which engine or runner went away this often is run with no other beside it. */
#define M1PG_SUSPECT_LOSSES "3"	/* in SQL */

typedef struct M1Job
{
	dlist_node	node;
	MemoryContext context;		/* holds the job and all that belongs to it */
	int64		id;
	TimestampTz leased_at;		/* with the process ID, tells this lease from any other */
	Oid			owner;
	int			annotator_id;	/* 0 = submitted */
	char	  **key;
	int			n_keys;
	int			attempts;
	int			max_attempts;
	int			losses;
	m1w_generate request;
	uint8	   *hash;			/* of the rendered prompt of a row */
	M1Exchange *exchange;		/* NULL before and after */
	bool		reached_engine;
	bool		ended;			/* result or failure are there */
	m1w_done	done;			/* slices in the context */
	m1_error	error;			/* code M1_OK = result */
	int			write_tries;
	TimestampTz write_at;		/* 0 = at once */
} M1Job;

/* How many jobs may be in flight. */
extern int	m1pg_runner_places(void);

/* ---- definitions (job_definition.c) ---- */

/* An annotator, as it was when this turn first needed it. */
typedef struct M1Definition
{
	int			id;
	M1Annotator *annotator;		/* NULL: it is gone */
	M1Rows	   *rows;
	bool		blocked;		/* the table is locked: no use in trying more of its rows */
} M1Definition;

extern void m1pg_definitions_init(void);
/* Lives to the end of the turn. */
extern M1Definition *m1pg_definition(int id);
extern void m1pg_definitions_end_turn(void);

/* ---- taking (job_claim.c), within a transaction ---- */

/* Takes up to n jobs that are due, and renders their prompts; adds them to the list. Returns how many it took. */
extern int	m1pg_claim(int n, dlist_head *jobs);
/* One job under which things have broken. To be called only when nothing is in flight. */
extern int	m1pg_claim_suspect(dlist_head *jobs);
extern bool m1pg_suspect_is_due(void);
/* An owner's quota has no room: none of its jobs is taken for job_retry_delay, or until one has ended. */
extern void m1pg_refuse_owner(Oid owner);
extern void m1pg_admit_owner(Oid owner);
/* Jobs whose runner is gone are due again. */
extern void m1pg_claim_orphans(void);
/* Extends the leases of these. mine[i] is false when the job has been cancelled, or is another runner's. */
extern void m1pg_renew_leases(M1Job *const *jobs, bool *mine, int n);
/* Locks the job's row. false when the lease is not held any more: nothing of the job may be written. */
extern bool m1pg_lock_lease(const M1Job *job);
/* Gives the job back, due in so many milliseconds; `lost` when the engine went away under it. */
extern void m1pg_release(const M1Job *job, bool lost, int delay_ms);
/* When the next job is due, or the next is to be forgotten; 0 = never. */
extern TimestampTz m1pg_next_due(void);
extern void m1pg_forget_old(void);
extern uint8 *m1pg_hash_prompt(const char *prompt);
/* Frees a job, and wipes what it holds of prompts and answers. */
extern void m1pg_free_job(M1Job *job);

/* ---- ending (job_finish.c), within a transaction ---- */

/* What finishing a job led to. */
typedef enum M1JobOutcome
{
	M1_JOB_OVER,				/* result, failure or release are written */
	M1_JOB_LATER,				/* the row is locked: try again at write_at */
	M1_JOB_OUTAGE,				/* released: the engine could not be reached */
	M1_JOB_OVERLOAD				/* released: the request was refused for now */
} M1JobOutcome;

extern M1JobOutcome m1pg_finish(M1Job *job);
/* Records that an attempt has failed. */
extern void m1pg_fail_job(M1Job *job, const ErrorData *error, bool for_good);
/* Whether the error says nothing about the job: it met with a lock, or was in another's way. */
extern bool m1pg_is_passing(const ErrorData *error);
/* The row's prompt is NULL: so is its annotation. */
extern void m1pg_finish_empty(M1Job *job, const M1Rows *rows);

/*
 * Runs a step of a job in a subtransaction. Returns NULL, or the error that it
 * ended with, in the job's context.
 */
typedef void (*M1Step) (M1Job *job, void *arg);
extern ErrorData *m1pg_try(M1Job *job, M1Step step, void *arg);

#endif							/* M1PG_RUNNER_H */
