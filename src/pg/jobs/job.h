/*
 * job.h - a job in a runner's memory (job.c).
 *
 * A job in flight is a row with this process's lease, and an M1Job here. What
 * is here may be lost at any time: the lease ends, and the job is done anew.
 * All of a runner is one process and one thread.
 */
#ifndef M1PG_JOB_H
#define M1PG_JOB_H

#include "pg/client/exchange.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"

/*
 * In SQL: the rows whose id a query finds, which is run once, whatever the
 * planner believes. A queue that was empty when it was last analyzed has, to
 * the planner, one row; behind IN, the query would be run for each of a million.
 */
#define M1PG_THOSE(id, query) "id = ANY (ARRAY(SELECT " id " FROM " query "))"

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
	Oid			table_owner;	/* of a row's job: whose code is run when it is written; 0 until it is prepared */
	char	  **key;
	int			n_keys;
	int			attempts;
	int			max_attempts;
	int			losses;
	m1w_generate request;
	char	   *adapter;		/* its name; NULL = the model without one */
	int			adapter_tries;	/* times that the engine had none of that name, and was given it */
	bytea	   *target_hash;	/* of what the row's target held when it was queued; NULL = nobody knows */
	uint8	   *hash;			/* of the rendered prompt of a row */
	uint8	   *answered;		/* of the prompt that the answer in the job's row is for; NULL = it holds none */
	M1Exchange *exchange;		/* NULL before and after */
	bool		reached_engine;
	bool		ended;			/* result or failure are there */
	m1w_done	done;			/* slices in the context */
	m1_error	error;			/* code M1_OK = result */
	ErrorData  *refusal;		/* beside *error: that there was no request, and why; NULL = there was */
	bool		out_of_time;	/* the last step */
	int			write_tries;
	TimestampTz write_at;		/* 0 = at once */
} M1Job;

/* Frees a job, and wipes what it holds of prompts and answers. */
extern void m1pg_free_job(M1Job *job);
#define M1PG_HASH_SIZE 32
extern bytea *m1pg_hash(const char *text);
extern uint8 *m1pg_hash_prompt(const char *prompt);
/* The hash of what a target holds: empty if that is NULL. */
extern bytea *m1pg_hash_target(const char *target);

#endif							/* M1PG_JOB_H */
