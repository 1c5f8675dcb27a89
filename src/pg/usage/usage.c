/*
 * usage.c
 *	  The counters of use in shared memory, and the account of each request.
 *
 *	  Tokens are charged to the role's hour while they are computed, so a
 *	  request that is cancelled or that is cut off costs what it took. A month's
 *	  row gets them when the request ends, unless it failed: a bill is not
 *	  written for what was not delivered. Tables of fixed size that are full lose
 *	  no token: see find_row and m1pg_role_hour.
 */
#include "pg/usage/usage.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include <limits.h>

#include "pgtime.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#define OTHERS "(others)"

M1Usage    *m1pg_usage = NULL;

/* ---- the tables ---- */

static Size
usage_size(void)
{
	return add_size(offsetof(M1Usage, rows), mul_size(m1pg_max_usage_rows, sizeof(M1UsageRow)));
}

void
m1pg_usage_request(void)
{
	RequestAddinShmemSpace(usage_size());
}

bool
m1pg_usage_startup(void)
{
	bool		found;

	m1pg_usage = ShmemInitStruct("minimax_m1 usage", usage_size(), &found);
	if (found)
		return false;
	memset(m1pg_usage, 0, usage_size());
	m1pg_usage->max_rows = m1pg_max_usage_rows;
	m1pg_usage->stats_since = GetCurrentTimestamp();
	return true;
}

bool
m1pg_runs_model(m1w_type type)
{
	return type == M1W_GENERATE || type == M1W_LOGITS;
}

bool
m1pg_costs_tokens(m1w_type type)
{
	return m1pg_runs_model(type) || type == M1W_LESSON;
}

int64
m1pg_minute(TimestampTz t)
{
	return t / USECS_PER_MINUTE;
}

M1Stats *
m1pg_function_stats(const char *function)
{
	M1Stats    *stats;

	for (int i = 0; i < m1pg_usage->n_functions; i++)
		if (strcmp(m1pg_usage->functions[i].function, function) == 0)
			return &m1pg_usage->functions[i];
	if (m1pg_usage->n_functions == M1PG_MAX_FUNCTIONS)
		return &m1pg_usage->functions[M1PG_MAX_FUNCTIONS - 1];
	stats = &m1pg_usage->functions[m1pg_usage->n_functions++];
	strlcpy(stats->function, m1pg_usage->n_functions == M1PG_MAX_FUNCTIONS ? OTHERS : function,
			sizeof stats->function);
	return stats;
}

/* The entry that is missed least: a role without a quota before one with, then who has used least. */
static M1RoleHour *
most_dispensable(int64 minute)
{
	M1RoleHour *best = &m1pg_usage->roles[0];

	for (int i = 1; i < M1PG_MAX_ROLES; i++)
	{
		M1RoleHour *r = &m1pg_usage->roles[i];

		if (r->limited < best->limited ||
			(r->limited == best->limited && m1_hour_used(&r->tokens, minute) < m1_hour_used(&best->tokens, minute)))
			best = r;
	}
	return best;
}

M1RoleHour *
m1pg_role_hour(Oid role, bool create)
{
	M1RoleHour *r;

	for (int i = 0; i < m1pg_usage->n_roles; i++)
		if (m1pg_usage->roles[i].role == role)
			return &m1pg_usage->roles[i];
	if (!create)
		return NULL;
	if (m1pg_usage->n_roles < M1PG_MAX_ROLES)
		r = &m1pg_usage->roles[m1pg_usage->n_roles++];
	else
		r = most_dispensable(m1pg_minute(GetCurrentTimestamp()));
	memset(r, 0, sizeof *r);
	r->role = role;
	return r;
}

/* ---- months and tiers ---- */

static DateADT
month_of(TimestampTz t)
{
	pg_time_t	seconds = timestamptz_to_time_t(t);
	struct pg_tm *tm = pg_gmtime(&seconds);

	return tm == NULL ? 0 : date2j(tm->tm_year + 1900, tm->tm_mon + 1, 1) - POSTGRES_EPOCH_JDATE;
}

static int32
context_tier(int prompt_tokens)
{
	int32		tiers[M1PG_MAX_TIERS];
	int			n = m1pg_parse_context_tiers(m1pg_context_tiers, tiers);
	int32		tier = 0;

	for (int i = 0; i < n && prompt_tokens >= tiers[i]; i++)
		tier = tiers[i];
	return tier;
}

/*
 * The row of a role, this month, a function and a tier. When the table is full,
 * its last row takes what has no row of its own, so that the sums stay right.
 */
static M1UsageRow *
find_row(Oid role, const char *function, int32 tier)
{
	DateADT		month = month_of(GetCurrentTimestamp());
	M1UsageRow *row;

	for (int i = 0; i < m1pg_usage->n_rows; i++)
	{
		row = &m1pg_usage->rows[i];
		if (row->role == role && row->month == month && row->context_tier == tier &&
			strcmp(row->function, function) == 0)
			return row;
	}
	if (m1pg_usage->n_rows == m1pg_usage->max_rows)
		return &m1pg_usage->rows[m1pg_usage->max_rows - 1];
	row = &m1pg_usage->rows[m1pg_usage->n_rows++];
	memset(row, 0, sizeof *row);
	row->month = month;
	if (m1pg_usage->n_rows == m1pg_usage->max_rows)
	{
		strlcpy(row->function, OTHERS, sizeof row->function);
		return row;
	}
	row->role = role;
	row->context_tier = tier;
	strlcpy(row->function, function, sizeof row->function);
	return row;
}

/* ---- accounts ---- */

void
m1pg_account_open(M1Account *a, M1Slot *slot, const M1Slot *copy)
{
	memset(a, 0, sizeof *a);
	a->slot = slot;
	a->request = copy->request;
	a->role = copy->userid;
	a->type = copy->type;
	if (a->type == M1W_LESSON)
		a->prompt_tokens = (int) copy->lesson_tokens;
	strlcpy(a->function, copy->function, sizeof a->function);
}

/* The slot, unless it has been freed. */
static M1Slot *
slot_of(const M1Account *a)
{
	return a->slot->request == a->request ? a->slot : NULL;
}

/* What the model has computed since the last time; the reservation shrinks by what can no longer be used. */
static void
charge(M1Account *a, int prompt_tokens, int prefilled, int generated)
{
	int64		more = (int64) (prefilled - a->prefilled) + (generated - a->generated);
	M1Slot	   *slot = slot_of(a);

	if (more > 0 && m1pg_costs_tokens(a->type))
	{
		m1_hour_add(&m1pg_role_hour(a->role, true)->tokens, m1pg_minute(GetCurrentTimestamp()), more);
		m1pg_usage->changes++;
	}
	a->prompt_tokens = prompt_tokens;
	a->prefilled = prefilled;
	a->generated = generated;
	if (slot == NULL)
		return;
	slot->prompt_tokens = prompt_tokens;
	slot->cached_tokens = a->cached;
	slot->prefilled = prefilled;
	slot->generated = generated;
	slot->reserved = Max(0, Min(slot->reserved, prompt_tokens + slot->most_reply - prefilled - generated));
}

/* Tokens of all requests under way of the slot's statement. A prompt counts as soon as its length is known. */
static int64
tokens_under_way(const M1Slot *slot)
{
	int64		sum = 0;

	for (int i = 0; i < m1pg_shared->n_slots; i++)
	{
		const M1Slot *other = &m1pg_shared->slots[i];

		if (other->pid == slot->pid && other->token_limit > 0)
			sum += (int64) other->prompt_tokens + other->generated;
	}
	return sum;
}

bool
m1pg_account_progress(M1Account *a, const m1w_progress *p)
{
	M1Slot	   *slot = slot_of(a);

	/* what is prefilled when the engine begins came from the prefix cache */
	if (a->prompt_tokens == 0)
		a->cached = p->prefilled;
	charge(a, p->prompt_tokens, p->prefilled, p->generated);
	return slot == NULL || slot->token_limit == 0 || tokens_under_way(slot) <= slot->token_limit;
}

static void
count_ending(M1Account *a, M1Ending ending, int prompt_tokens, int cached, int reasoning, int completion)
{
	M1Stats    *stats = m1pg_function_stats(a->function);

	stats->completed += ending == M1_COMPLETED;
	stats->failed += ending == M1_FAILED;
	stats->cancelled += ending == M1_CANCELLED;
	stats->timed_out += ending == M1_TIMED_OUT;
	stats->prompt_tokens += prompt_tokens;
	stats->cached_tokens += cached;
	stats->cache_hits += cached > 0;
	stats->reasoning_tokens += reasoning;
	stats->completion_tokens += completion;
	if (m1pg_costs_tokens(a->type))
	{
		/* a lesson's tokens are those of many prompts */
		int32		tier = a->type == M1W_LESSON ? 0 : context_tier(prompt_tokens);
		M1UsageRow *row = find_row(a->role, a->function, tier);

		row->requests++;
		row->completed += ending == M1_COMPLETED;
		row->failed += ending == M1_FAILED;
		row->cancelled += ending == M1_CANCELLED || ending == M1_TIMED_OUT;
		row->prompt_tokens += prompt_tokens;
		row->cached_tokens += cached;
		row->reasoning_tokens += reasoning;
		row->completion_tokens += completion;
		m1pg_usage->changes++;
	}
	a->closed = true;
}

static void
count_times(M1Stats *stats, double first_ms, double decode_ms)
{
	m1_latency_add(&stats->first_token, first_ms / 1000);
	m1_latency_add(&stats->whole, (first_ms + decode_ms) / 1000);
}

void
m1pg_account_done(M1Account *a, const m1w_done *done, double worker_queue_ms)
{
	M1Slot	   *slot;

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	a->cached = done->cached_tokens;
	charge(a, done->prompt_tokens, done->prompt_tokens, done->completion_tokens);
	if ((slot = slot_of(a)) != NULL)
		slot->reserved = 0;
	if (!a->closed)
	{
		M1Stats    *stats = m1pg_function_stats(a->function);

		stats->queue_ms += worker_queue_ms + done->queue_ms;
		stats->prefill_ms += done->prefill_ms;
		stats->decode_ms += done->decode_ms;
		count_times(stats, worker_queue_ms + done->queue_ms + done->prefill_ms, done->decode_ms);
		count_ending(a, M1_COMPLETED, done->prompt_tokens, done->cached_tokens, done->reasoning_tokens,
					 done->completion_tokens);
	}
	LWLockRelease(m1pg_shared->lock);
}

void
m1pg_account_close(M1Account *a, M1Ending ending)
{
	if (a->closed)
		return;
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	/* what has no reply, such as logits and lessons, is completed when its prompt is */
	if (ending == M1_COMPLETED && m1pg_costs_tokens(a->type))
		charge(a, a->prompt_tokens, a->prompt_tokens, a->generated);
	if (ending == M1_FAILED)
		count_ending(a, ending, 0, 0, 0, 0);
	else
		count_ending(a, ending, a->prefilled, a->cached, 0, a->generated);
	LWLockRelease(m1pg_shared->lock);
}

void
m1pg_account_unseen(M1Slot *slot)
{
	M1Account	account;

	m1pg_account_open(&account, slot, slot);
	count_ending(&account, M1_CANCELLED, 0, 0, 0, 0);
}
