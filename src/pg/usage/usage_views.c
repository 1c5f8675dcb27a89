/*
 * usage_views.c
 *	  What the views stats, stats_by_function, stats_latency, usage and quotas
 *	  read, and the functions that set them back. Whose rows somebody sees: see m1pg_may_see.
 */
#include "pg/rows.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"
#include "pg/usage/usage.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(m1pg_stats);
PG_FUNCTION_INFO_V1(m1pg_prefix_cache);
PG_FUNCTION_INFO_V1(m1pg_stats_by_function);
PG_FUNCTION_INFO_V1(m1pg_stats_latency);
PG_FUNCTION_INFO_V1(m1pg_stats_reset);
PG_FUNCTION_INFO_V1(m1pg_usage_rows);
PG_FUNCTION_INFO_V1(m1pg_usage_reset);
PG_FUNCTION_INFO_V1(m1pg_role_use);

/* ---- stats ---- */

enum
{
	REQUESTS, COMPLETED, FAILED, CANCELLED, TIMED_OUT, REJECTED, PROMPT_TOKENS, CACHED_TOKENS,
	REASONING_TOKENS, COMPLETION_TOKENS, QUEUE_MS, PREFILL_MS, DECODE_MS, N_STATS
};

static void
fill_stats(const M1Stats *s, Datum *values)
{
	values[REQUESTS] = Int64GetDatum(s->requests);
	values[COMPLETED] = Int64GetDatum(s->completed);
	values[FAILED] = Int64GetDatum(s->failed);
	values[CANCELLED] = Int64GetDatum(s->cancelled);
	values[TIMED_OUT] = Int64GetDatum(s->timed_out);
	values[REJECTED] = Int64GetDatum(s->rejected);
	values[PROMPT_TOKENS] = Int64GetDatum(s->prompt_tokens);
	values[CACHED_TOKENS] = Int64GetDatum(s->cached_tokens);
	values[REASONING_TOKENS] = Int64GetDatum(s->reasoning_tokens);
	values[COMPLETION_TOKENS] = Int64GetDatum(s->completion_tokens);
	values[QUEUE_MS] = Float8GetDatum(s->queue_ms);
	values[PREFILL_MS] = Float8GetDatum(s->prefill_ms);
	values[DECODE_MS] = Float8GetDatum(s->decode_ms);
}

/* All counters at one moment. */
static M1Stats *
copy_stats(int *n, TimestampTz *since)
{
	M1Stats    *copy = palloc(sizeof m1pg_usage->functions);

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	*n = m1pg_usage->n_functions;
	*since = m1pg_usage->stats_since;
	memcpy(copy, m1pg_usage->functions, sizeof m1pg_usage->functions);
	LWLockRelease(m1pg_shared->lock);
	return copy;
}

Datum
m1pg_stats(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[N_STATS + 1];
	bool		nulls[N_STATS + 1] = {false};
	M1Stats		sum = {{0}};
	M1Stats    *stats;
	TimestampTz since;
	int			n;

	m1pg_start_rows(fcinfo);
	stats = copy_stats(&n, &since);
	for (int i = 0; i < n; i++)
	{
		sum.requests += stats[i].requests;
		sum.completed += stats[i].completed;
		sum.failed += stats[i].failed;
		sum.cancelled += stats[i].cancelled;
		sum.timed_out += stats[i].timed_out;
		sum.rejected += stats[i].rejected;
		sum.prompt_tokens += stats[i].prompt_tokens;
		sum.cached_tokens += stats[i].cached_tokens;
		sum.reasoning_tokens += stats[i].reasoning_tokens;
		sum.completion_tokens += stats[i].completion_tokens;
		sum.queue_ms += stats[i].queue_ms;
		sum.prefill_ms += stats[i].prefill_ms;
		sum.decode_ms += stats[i].decode_ms;
	}
	fill_stats(&sum, values);
	values[N_STATS] = TimestampTzGetDatum(since);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

/* What the stats view tells beyond m1pg_stats: hits are counted, the rest is as it is now. */
Datum
m1pg_prefix_cache(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[3];
	bool		nulls[3] = {false};
	int64		hits = 0;

	m1pg_start_rows(fcinfo);
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	for (int i = 0; i < m1pg_usage->n_functions; i++)
		hits += m1pg_usage->functions[i].cache_hits;
	values[0] = Int64GetDatum(hits);
	values[1] = Int32GetDatum(m1pg_shared->model.snapshots);
	values[2] = Int64GetDatum((int64) m1pg_shared->model.snapshot_bytes);
	LWLockRelease(m1pg_shared->lock);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

Datum
m1pg_stats_by_function(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	M1Stats    *stats;
	TimestampTz since;
	int			n;

	m1pg_start_rows(fcinfo);
	stats = copy_stats(&n, &since);
	for (int i = 0; i < n; i++)
	{
		Datum		values[N_STATS + 2];
		bool		nulls[N_STATS + 2] = {false};

		values[0] = CStringGetTextDatum(stats[i].function);
		fill_stats(&stats[i], values + 1);
		values[N_STATS + 1] = Int64GetDatum(stats[i].cache_hits);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* For each function and bound, how many took at most so long; the last bound is infinite. */
static void
put_latency(ReturnSetInfo *rsinfo, const M1Stats *stats)
{
	int64		first = 0;
	int64		whole = 0;

	for (int i = 0; i <= M1_LATENCY_BOUNDS; i++)
	{
		Datum		values[4];
		bool		nulls[4] = {false};

		first += stats->first_token.counts[i];
		whole += stats->whole.counts[i];
		values[0] = CStringGetTextDatum(stats->function);
		values[1] = Float8GetDatum(i < M1_LATENCY_BOUNDS ? m1_latency_bounds[i] : get_float8_infinity());
		values[2] = Int64GetDatum(first);
		values[3] = Int64GetDatum(whole);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
m1pg_stats_latency(PG_FUNCTION_ARGS)
{
	M1Stats    *stats;
	TimestampTz since;
	int			n;

	m1pg_start_rows(fcinfo);
	stats = copy_stats(&n, &since);
	for (int i = 0; i < n; i++)
		put_latency((ReturnSetInfo *) fcinfo->resultinfo, &stats[i]);
	return (Datum) 0;
}

Datum
m1pg_stats_reset(PG_FUNCTION_ARGS)
{
	m1pg_require_shared();
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	memset(m1pg_usage->functions, 0, sizeof m1pg_usage->functions);
	m1pg_usage->n_functions = 0;
	m1pg_usage->stats_since = GetCurrentTimestamp();
	LWLockRelease(m1pg_shared->lock);
	PG_RETURN_VOID();
}

/* ---- usage ---- */

Datum
m1pg_usage_rows(PG_FUNCTION_ARGS)
{
	enum
	{
		ROLE, MONTH, FUNCTION, CONTEXT_TIER, REQUESTS_MADE, DONE, NOT_DONE, STOPPED, PROMPT, CACHED, REASONING,
		COMPLETION, N_COLUMNS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	M1UsageRow *rows;
	int			n;

	m1pg_start_rows(fcinfo);
	rows = palloc_extended(m1pg_usage->max_rows * sizeof *rows, MCXT_ALLOC_HUGE);
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	n = m1pg_usage->n_rows;
	memcpy(rows, m1pg_usage->rows, n * sizeof *rows);
	LWLockRelease(m1pg_shared->lock);
	for (int i = 0; i < n; i++)
	{
		const M1UsageRow *row = &rows[i];
		Datum		values[N_COLUMNS];
		bool		nulls[N_COLUMNS] = {false};

		if (!m1pg_may_see(row->role))
			continue;
		nulls[ROLE] = !OidIsValid(row->role);
		values[ROLE] = ObjectIdGetDatum(row->role);
		values[MONTH] = DateADTGetDatum(row->month);
		values[FUNCTION] = CStringGetTextDatum(row->function);
		values[CONTEXT_TIER] = Int32GetDatum(row->context_tier);
		values[REQUESTS_MADE] = Int64GetDatum(row->requests);
		values[DONE] = Int64GetDatum(row->completed);
		values[NOT_DONE] = Int64GetDatum(row->failed);
		values[STOPPED] = Int64GetDatum(row->cancelled);
		values[PROMPT] = Int64GetDatum(row->prompt_tokens);
		values[CACHED] = Int64GetDatum(row->cached_tokens);
		values[REASONING] = Int64GetDatum(row->reasoning_tokens);
		values[COMPLETION] = Int64GetDatum(row->completion_tokens);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	pfree(rows);
	return (Datum) 0;
}

/* Forgets the months before a date, or all when it is NULL. */
Datum
m1pg_usage_reset(PG_FUNCTION_ARGS)
{
	DateADT		before = PG_ARGISNULL(0) ? DATEVAL_NOEND : PG_GETARG_DATEADT(0);
	int			kept = 0;
	int			gone;

	m1pg_require_shared();
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < m1pg_usage->n_rows; i++)
		if (m1pg_usage->rows[i].month >= before)
			m1pg_usage->rows[kept++] = m1pg_usage->rows[i];
	gone = m1pg_usage->n_rows - kept;
	m1pg_usage->n_rows = kept;
	m1pg_usage->changes++;
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
	PG_RETURN_INT32(gone);
}

/* ---- quotas ---- */

/* What a role uses of its quota: within the hour, reserved, and the number of requests. NULL if it is not one's own. */
Datum
m1pg_role_use(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3] = {false};
	M1RoleHour *r;
	int64		reserved;
	int			running;

	m1pg_require_shared();
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!m1pg_may_see(role))
		PG_RETURN_NULL();
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	r = m1pg_role_hour(role, false);
	values[0] = Int64GetDatum(r == NULL ? 0 : m1_hour_used(&r->tokens, m1pg_minute(GetCurrentTimestamp())));
	reserved = m1pg_reserved_by(role, &running);
	LWLockRelease(m1pg_shared->lock);
	values[1] = Int64GetDatum(reserved);
	values[2] = Int32GetDatum(running);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
