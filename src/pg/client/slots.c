/*
 * slots.c
 *	  Admission in the backend: a request gets a slot of the shared table, or is
 *	  refused with an error that says why, and what to do.
 *
 *	  There are max_requests + max_queue slots, and each comes with a segment of
 *	  dynamic shared memory, of which a server has a fixed number and other parts
 *	  of it want some. So a session may have so many, and a role as many as leave
 *	  others some: who has more than the batch takes may have no more than three
 *	  times what is left, and with further requests of a session not more than
 *	  that. However greedy one role, there is a slot for the first request of each
 *	  session of another.
 */
#include "pg/client/slots.h"
#include "pg/settings.h"
#include "pg/usage/statement.h"
#include "pg/usage/usage.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

/* At least, where it is not set: two batches' worth of cursors and statements. */
#define SESSION_REQUESTS	16
/* See PG_DYNSHMEM_FIXED_SLOTS and the like in dsm.c: two of five of each backend's are left to parallel queries. */
#define SEGMENTS			(64 + 3 * MaxBackends)
/* What a role may have, as a multiple of what is left: with a first request of a session, and with a further one. */
#define SHARE_OF_FIRST		3
#define SHARE_OF_FURTHER	1

/* ---- room ---- */

/* What there is already, in the table. */
typedef struct Census
{
	M1Slot	   *free;			/* the first free slot; NULL = none */
	int			left;			/* how many more requests there may be */
	int			of_role;		/* open requests of this role */
	int			of_session;		/* and of this session */
} Census;

static Census
take_census(void)
{
	Census		c = {.left = Min(m1pg_shared->n_slots, SEGMENTS) - m1pg_shared->n_used};
	int			used = 0;

	/* the first that is free is taken, so those in use are not far */
	for (int i = 0; i < m1pg_shared->n_slots && (used < m1pg_shared->n_used || c.free == NULL); i++)
	{
		M1Slot	   *slot = &m1pg_shared->slots[i];

		if (slot->state == M1_SLOT_FREE)
		{
			if (c.free == NULL)
				c.free = slot;
			continue;
		}
		used++;
		c.of_role += slot->userid == GetUserId();
		c.of_session += slot->pid == MyProcPid;
	}
	return c;
}

/* Job runners have bounds of their own: job_requests. */
static bool
session_has_room(const Census *c, m1_error *error)
{
	int			most = m1pg_max_requests_per_session;

	if (most == 0)
		most = Max(SESSION_REQUESTS, 2 * m1pg_max_requests);
	if (c->of_session < most || MyBackendType != B_BACKEND)
		return true;
	m1_fail(error, M1_E_OVERLOADED, "this session has as many requests as it may have at the same time");
	m1_error_detail(error, "%d of them have not ended, or their replies have not been read.", c->of_session);
	m1_error_hint(error, "Read cursors over generate_stream to the end, or close them; "
				  "or have minimax_m1.max_requests_per_session raised.");
	return false;
}

static bool
table_has_room(const Census *c, m1_error *error)
{
	if (c->free != NULL)
		return true;
	m1_fail(error, M1_E_OVERLOADED, "the request queue is full");
	m1_error_detail(error, "%d requests are running or waiting.", m1pg_shared->n_slots);
	m1_error_hint(error, "Try again later, or raise minimax_m1.max_queue.");
	return false;
}

static bool
role_has_room(const Census *c, const char *role_name, m1_error *error)
{
	int			share = c->of_session > 0 ? SHARE_OF_FURTHER : SHARE_OF_FIRST;

	if (m1pg_max_requests_per_role > 0 ? c->of_role < m1pg_max_requests_per_role :
		c->of_role < m1pg_max_requests || c->of_role < share * c->left)
		return true;
	m1_fail(error, M1_E_OVERLOADED, "role \"%s\" has as many requests as it may have at the same time", role_name);
	m1_error_detail(error, "%d of them are running or waiting. What is left is for other roles.", c->of_role);
	m1_error_hint(error, "Try again when some of them have ended, or raise %s.",
				  m1pg_max_requests_per_role > 0 ? "minimax_m1.max_requests_per_role" :
				  m1pg_shared->n_slots < SEGMENTS ? "minimax_m1.max_queue" : "max_connections");
	return false;
}

/* ---- claiming ---- */

/* Cuts at a character boundary of the server's encoding. */
static void
copy_excerpt(char *to, const char *from)
{
	int			len = pg_mbcliplen(from, strlen(from), M1PG_EXCERPT - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

/* What answers are judged by. */
static void
note_question(M1Slot *slot, const M1Request *request)
{
	const m1w_generate *g = request->message.generate;

	slot->type = request->type;
	if (request->type == M1W_TOKENIZE)
	{
		slot->text_len = request->message.words->text.len;
		slot->wanted = request->message.words->wanted;
	}
	if (request->type == M1W_FETCH)
	{
		slot->fetch_offset = request->message.bytes->offset;
		slot->fetch_most = request->message.bytes->most;
		slot->fetch_part = request->message.bytes->part;
	}
	if (request->type == M1W_LESSON)
	{
		slot->lesson_tokens = request->message.lesson->ids.len;
		slot->update = request->message.lesson->update;
		slot->want_logprobs = request->message.lesson->want_logprobs;
	}
	if (request->type == M1W_LOGITS)
		slot->n_ids = request->message.tokens->ids.len;
	if (request->type != M1W_GENERATE)
		return;
	slot->n_ids = g->ids.len;
	slot->stream = g->stream;
	slot->max_tokens = g->max_tokens;
	slot->scored = g->score_choices;
	slot->logprobs = g->logprobs;
	slot->keep = g->keep;
	slot->background = g->background;
}

static void
fill_slot(M1Slot *slot, const M1Claim *claim, TimestampTz now)
{
	memset(slot, 0, sizeof *slot);
	slot->state = M1_SLOT_CLAIMED;
	slot->request = ++m1pg_shared->last_request;
	slot->proc = MyProc;
	slot->pid = MyProcPid;
	slot->userid = GetUserId();
	slot->databaseid = MyDatabaseId;
	slot->share = claim->quota.share;
	note_question(slot, claim->request);
	slot->submitted_at = slot->state_since = now;
	if (m1pg_request_timeout > 0)
		slot->deadline = TimestampTzPlusMilliseconds(now, m1pg_request_timeout);
	slot->reserved = claim->most.all;
	slot->most_reply = (int) Min(claim->most.reply, INT_MAX);
	slot->token_limit = claim->token_limit;
	strlcpy(slot->function, claim->request->function, sizeof slot->function);
	copy_excerpt(slot->excerpt, claim->request->excerpt);
	m1pg_shared->n_used++;
}

static bool
is_admitted(const M1Claim *claim, const Census *c, m1_error *error)
{
	return session_has_room(c, error) && table_has_room(c, error) &&
		role_has_room(c, claim->quota.role_name, error) &&
		m1pg_quota_admits(&claim->quota, GetUserId(), claim->most.all, error);
}

M1Slot *
m1pg_slot_claim(const M1Claim *claim, uint64 *request, m1_error *error)
{
	TimestampTz now = GetCurrentTimestamp();
	M1Slot	   *slot = NULL;
	M1Stats    *stats;
	Census		c;

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	stats = m1pg_function_stats(claim->request->function);
	c = take_census();
	if (is_admitted(claim, &c, error))
	{
		slot = c.free;
		fill_slot(slot, claim, now);
		*request = slot->request;
		stats->requests++;
	}
	else
		stats->rejected++;
	LWLockRelease(m1pg_shared->lock);
	return slot;
}

void
m1pg_slot_submit(M1Slot *slot, dsm_handle handle)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	slot->handle = handle;
	slot->state = M1_SLOT_SUBMITTED;
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
}

/* ---- freeing ---- */

void
m1pg_slot_free(M1Slot *slot, uint64 request, const M1Slot *last)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if (slot->request == request)
	{
		m1pg_statement_end(slot);
		if (slot->state == M1_SLOT_CLAIMED || slot->state == M1_SLOT_SUBMITTED)
			m1pg_account_unseen(slot);
		m1pg_slot_clear(slot);
		m1pg_wake_worker();
	}
	else if (last != NULL && last->request == request)
		m1pg_statement_end(last);
	LWLockRelease(m1pg_shared->lock);
}
