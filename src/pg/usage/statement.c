/*
 * statement.c
 *	  What the last statement of this session that called the model has used,
 *	  and the caps that end a statement which calls it too often.
 *
 *	  A statement is what the client sends at once: what its functions, loops and
 *	  triggers call counts together, as do several statements in one string. Its
 *	  start time tells it from others, so nothing has to be hooked in between.
 *	  State of this backend; nobody else sees it.
 */
#include "pg/usage/statement.h"
#include "pg/rows.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_last_statement);

typedef struct FunctionUse
{
	char		function[NAMEDATALEN];
	int64		calls;
	int64		cache_hits;
	int64		prompt_tokens;
	int64		cached_tokens;
	int64		completion_tokens;
} FunctionUse;

static struct
{
	TimestampTz start;
	int64		calls;
	int64		tokens;
	int			n;
	FunctionUse functions[M1PG_MAX_FUNCTIONS];
} statement;

static FunctionUse *
use_of(const char *function)
{
	for (int i = 0; i < statement.n; i++)
		if (strcmp(statement.functions[i].function, function) == 0)
			return &statement.functions[i];
	if (statement.n == M1PG_MAX_FUNCTIONS)
		return &statement.functions[M1PG_MAX_FUNCTIONS - 1];
	strlcpy(statement.functions[statement.n].function, function, NAMEDATALEN);
	return &statement.functions[statement.n++];
}

/*
 * Not an error that on_error could turn into NULL: a statement that would go on
 * after its cap would only be refused again and again.
 */
static void
refuse(const char *function, const char *setting, int64 used, int cap)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_function_stats(function)->rejected++;
	LWLockRelease(m1pg_shared->lock);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("minimax_m1: the statement has reached %s", setting),
			 errdetail("It has used " INT64_FORMAT " of %d.", used, cap),
			 errhint("See with EXPLAIN whether the model is called for more rows than needed: a MATERIALIZED subquery "
					 "fixes what is tested first. Otherwise raise %s; 0 means no limit.", setting)));
}

/* A background process has no statements: what it may use is a matter of quotas. */
static bool
reached(int64 used, int cap)
{
	return cap > 0 && used >= cap && MyBackendType == B_BACKEND;
}

int64
m1pg_statement_check(const char *function, m1w_type type)
{
	if (!m1pg_runs_model(type))
		return 0;
	if (GetCurrentStatementStartTimestamp() != statement.start)
	{
		memset(&statement, 0, sizeof statement);
		statement.start = GetCurrentStatementStartTimestamp();
	}
	if (reached(statement.calls, m1pg_max_calls_per_statement))
		refuse(function, "minimax_m1.max_calls_per_statement", statement.calls, m1pg_max_calls_per_statement);
	if (reached(statement.tokens, m1pg_max_tokens_per_statement))
		refuse(function, "minimax_m1.max_tokens_per_statement", statement.tokens, m1pg_max_tokens_per_statement);
	if (m1pg_max_tokens_per_statement == 0 || MyBackendType != B_BACKEND)
		return 0;
	return m1pg_max_tokens_per_statement - statement.tokens;
}

void
m1pg_statement_call(const char *function, m1w_type type)
{
	if (!m1pg_runs_model(type))
		return;
	statement.calls++;
	use_of(function)->calls++;
}

void
m1pg_statement_end(const M1Slot *slot)
{
	int64		tokens = (int64) slot->prefilled + slot->generated;
	FunctionUse *use;

	if (!m1pg_runs_model(slot->type))
		return;
	use = use_of(slot->function);
	use->cache_hits += slot->cached_tokens > 0;
	use->prompt_tokens += slot->prefilled;
	use->cached_tokens += slot->cached_tokens;
	use->completion_tokens += slot->generated;
	statement.tokens += tokens;
	if (slot->token_limit == 0)
		return;
	/* the statement's other requests have so much less */
	for (int i = 0; i < m1pg_shared->n_slots; i++)
	{
		M1Slot	   *other = &m1pg_shared->slots[i];

		if (other != slot && other->pid == MyProcPid && other->token_limit > 0)
			other->token_limit = Max(1, other->token_limit - tokens);
	}
}

Datum
m1pg_last_statement(PG_FUNCTION_ARGS)
{
	enum
	{
		FUNCTION, CALLS, CACHE_HITS, PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS, N_COLUMNS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	m1pg_start_rows(fcinfo);
	for (int i = 0; i < statement.n; i++)
	{
		const FunctionUse *use = &statement.functions[i];
		Datum		values[N_COLUMNS];
		bool		nulls[N_COLUMNS] = {false};

		values[FUNCTION] = CStringGetTextDatum(use->function);
		values[CALLS] = Int64GetDatum(use->calls);
		values[CACHE_HITS] = Int64GetDatum(use->cache_hits);
		values[PROMPT_TOKENS] = Int64GetDatum(use->prompt_tokens);
		values[CACHED_TOKENS] = Int64GetDatum(use->cached_tokens);
		values[COMPLETION_TOKENS] = Int64GetDatum(use->completion_tokens);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
