/*
 * usage.h - who has used the model and how much (usage.c).
 *
 * The counters lie in shared memory and are protected by m1pg_shared->lock,
 * like the slots. Backends add what they refuse themselves; all else is added
 * by the worker, which is the only one to see how each request ends.
 */
#ifndef M1PG_USAGE_H
#define M1PG_USAGE_H

#include "pg/shared.h"

#include "base/hour.h"
#include "base/latency.h"
#include "utils/date.h"

/* ---- counters ---- */

#define M1PG_MAX_FUNCTIONS	64	/* the code has about half as many names */
#define M1PG_MAX_ROLES		1024	/* that used the model within an hour */

/* Since the server started or stats_reset(). */
typedef struct M1Stats
{
	char		function[NAMEDATALEN];
	int64		requests;
	int64		completed;
	int64		failed;
	int64		cancelled;
	int64		timed_out;
	int64		rejected;		/* these are none of the requests */
	int64		prompt_tokens;
	int64		cached_tokens;
	int64		cache_hits;		/* requests with cached tokens */
	int64		reasoning_tokens;
	int64		completion_tokens;
	double		queue_ms;
	double		prefill_ms;
	double		decode_ms;
	m1_latency	first_token;	/* of those that were completed with a reply */
	m1_latency	whole;
} M1Stats;

/* What a role has used in a month; kept over restarts. Written to the file as it is. */
typedef struct M1UsageRow
{
	Oid			role;			/* with function, month and context_tier the key */
	DateADT		month;			/* its first day, UTC */
	int32		context_tier;	/* the least prompt_tokens of the price tier */
	int32		unused;
	char		function[NAMEDATALEN];
	int64		requests;
	int64		completed;
	int64		failed;			/* these cost no tokens */
	int64		cancelled;		/* these as many as were computed */
	int64		prompt_tokens;
	int64		cached_tokens;
	int64		reasoning_tokens;
	int64		completion_tokens;
} M1UsageRow;

/* What a role has used within the hour; written to the file as it is. */
typedef struct M1RoleHour
{
	Oid			role;
	int32		limited;		/* it has a quota: it is not forgotten for the sake of one that has none */
	m1_hour		tokens;
} M1RoleHour;

typedef struct M1Usage
{
	uint64		changes;		/* grows with each change of roles and rows, over restarts too */
	TimestampTz stats_since;
	int			n_functions;
	int			n_roles;
	int			n_rows;
	int			max_rows;
	M1Stats		functions[M1PG_MAX_FUNCTIONS];
	M1RoleHour	roles[M1PG_MAX_ROLES];
	M1UsageRow	rows[FLEXIBLE_ARRAY_MEMBER];
} M1Usage;

/* NULL when the library was not preloaded. */
extern M1Usage *m1pg_usage;

/* As the server starts; the latter with AddinShmemInitLock held, and true when the counters are new. */
extern void m1pg_usage_request(void);
extern bool m1pg_usage_startup(void);

/* Whether a request of this type runs the model. The others are no calls. */
extern bool m1pg_runs_model(m1w_type type);
/* Whether it costs tokens: those that run the model, and lessons, which cost what they read when they have ended. */
extern bool m1pg_costs_tokens(m1w_type type);
extern int64 m1pg_minute(TimestampTz t);

/* These want the lock to be held. */
extern M1Stats *m1pg_function_stats(const char *function);
extern M1RoleHour *m1pg_role_hour(Oid role, bool create);

/* ---- one request's account: opened and closed by the worker ---- */

/* How a request ended. */
typedef enum M1Ending
{
	M1_COMPLETED,
	M1_FAILED,
	M1_CANCELLED,
	M1_TIMED_OUT
} M1Ending;

typedef struct M1Account
{
	M1Slot	   *slot;			/* the request's, as long as it has the same number */
	uint64		request;
	Oid			role;
	m1w_type	type;
	bool		closed;			/* how it ended is counted; what it still uses is charged all the same */
	int			prompt_tokens;
	int			cached;			/* of prompt_tokens: where the prefill began */
	int			prefilled;
	int			generated;
	char		function[NAMEDATALEN];
} M1Account;

/* `copy`: what the slot has said under the lock, which is not needed here. */
extern void m1pg_account_open(M1Account *account, M1Slot *slot, const M1Slot *copy);
/* The engine has computed so much. false when the statement has no more tokens. The lock is to be held. */
extern bool m1pg_account_progress(M1Account *account, const m1w_progress *progress);
/* These count the end of the request once and take the lock. */
extern void m1pg_account_done(M1Account *account, const m1w_done *done, double worker_queue_ms);
extern void m1pg_account_close(M1Account *account, M1Ending ending);
/* By the backend: it leaves before the worker has taken the request up. The lock is to be held. */
extern void m1pg_account_unseen(M1Slot *slot);

#endif							/* M1PG_USAGE_H */
