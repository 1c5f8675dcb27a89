/*
 * exchange.c
 *	  A backend's side of one request: a slot in the shared table, and a dynamic
 *	  shared memory segment with one queue in each direction.
 *
 *	  The segment belongs to the current resource owner. Its detach callback
 *	  frees the slot, so an error, a cancel, a dropped portal or the end of the
 *	  process all end the request; the worker notices the freed slot and cancels
 *	  in the engine.
 */
#include "pg/client/exchange.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"
#include "pg/usage/statement.h"
#include "pg/usage/usage.h"

#include <limits.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"

/*
 * Not with the others: it takes in Kerberos' headers, which Debian's server
 * headers do not bring, for a struct that nobody here looks into.
 */
#undef ENABLE_GSS
#include "libpq/libpq.h"

/* How often a waiting backend looks whether client and worker are still there. */
#define CHECK_INTERVAL_MS 200
/* How long the worker may be away before a waiting request gives up: its restart takes 2 s. */
#define WORKER_ABSENCE_MS 10000

struct M1Exchange
{
	dsm_segment *segment;
	shm_mq_handle *requests;
	shm_mq_handle *events;
	m1w_type	type;
	char	   *unsent;			/* the payload, while the queue has not taken all of it; else NULL */
	Size		unsent_len;
	M1Slot	   *slot;			/* the request's, until the segment is detached */
	uint64		request;
	TimestampTz submitted_at;
	TimestampTz running_since;	/* 0 until the worker has forwarded it */
	TimestampTz worker_missed;	/* since when there is no worker; 0 = there is one */
};

/* ---- slots ---- */

static void
free_slot(M1Slot *slot)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_statement_end(slot);
	if (slot->state == M1_SLOT_CLAIMED || slot->state == M1_SLOT_SUBMITTED)
		m1pg_account_unseen(slot);
	/* all of it: the excerpt is part of somebody's prompt */
	memset(slot, 0, sizeof *slot);
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
}

static void
on_detach(dsm_segment *segment, Datum slot)
{
	free_slot((M1Slot *) DatumGetPointer(slot));
}

/* Cuts at a character boundary of the server's encoding. */
static void
copy_excerpt(char *to, const char *from)
{
	int			len = pg_mbcliplen(from, strlen(from), M1PG_EXCERPT - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

/* There are max_requests + max_queue slots: one is free as long as the queue has room. */
static M1Slot *
find_slot(m1_error *error)
{
	for (int i = 0; i < m1pg_shared->n_slots; i++)
		if (m1pg_shared->slots[i].state == M1_SLOT_FREE)
			return &m1pg_shared->slots[i];
	m1_fail(error, M1_E_OVERLOADED, "the request queue is full");
	m1_error_detail(error, "%d requests are running or waiting.", m1pg_shared->n_slots);
	m1_error_hint(error, "Try again later, or raise minimax_m1.max_queue.");
	return NULL;
}

/* What a request brings to its admission. */
typedef struct Claim
{
	const M1Request *request;
	M1Quota		quota;			/* of the role that makes it */
	M1MostTokens most;			/* that it may take */
	int64		token_limit;	/* what the statement leaves it; 0 = no limit */
} Claim;

static void
fill_slot(M1Slot *slot, const Claim *claim, TimestampTz now)
{
	memset(slot, 0, sizeof *slot);
	slot->state = M1_SLOT_CLAIMED;
	slot->request = ++m1pg_shared->last_request;
	slot->proc = MyProc;
	slot->pid = MyProcPid;
	slot->userid = GetUserId();
	slot->databaseid = MyDatabaseId;
	slot->share = claim->quota.share;
	slot->type = claim->request->type;
	slot->submitted_at = slot->state_since = now;
	if (m1pg_request_timeout > 0)
		slot->deadline = TimestampTzPlusMilliseconds(now, m1pg_request_timeout);
	slot->reserved = claim->most.all;
	slot->most_reply = (int) Min(claim->most.reply, INT_MAX);
	slot->token_limit = claim->token_limit;
	strlcpy(slot->function, claim->request->function, sizeof slot->function);
	copy_excerpt(slot->excerpt, claim->request->excerpt);
}

/* Admission: a free slot and room in the role's quota, in one moment. NULL: refused, *error says why. */
static M1Slot *
claim_slot(const Claim *claim, uint64 *request, m1_error *error)
{
	TimestampTz now = GetCurrentTimestamp();
	M1Stats    *stats;
	M1Slot	   *slot;

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	stats = m1pg_function_stats(claim->request->function);
	slot = find_slot(error);
	if (slot != NULL && !m1pg_quota_admits(&claim->quota, GetUserId(), claim->most.all, error))
		slot = NULL;
	if (slot != NULL)
	{
		fill_slot(slot, claim, now);
		*request = slot->request;
		stats->requests++;
	}
	else
		stats->rejected++;
	LWLockRelease(m1pg_shared->lock);
	return slot;
}

static void
submit_slot(M1Slot *slot, dsm_handle handle)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	slot->handle = handle;
	slot->state = M1_SLOT_SUBMITTED;
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
}

/* ---- the request's bytes ---- */

static bool
encode_message(const M1Request *request, m1_buf *out)
{
	switch (request->type)
	{
		case M1W_GENERATE:
			return m1w_encode_generate(out, request->message.generate);
		case M1W_TOKENIZE:
			return m1w_encode_text(out, request->message.text);
		default:
			return m1w_encode_tokens(out, request->message.tokens);
	}
}

/* The payload, palloc'd: nothing that malloc made may be around when an error is raised. */
static char *
encode(const M1Request *request, Size *len)
{
	m1_buf		buf = {0};
	char	   *payload = NULL;

	if (encode_message(request, &buf))
	{
		*len = buf.len;
		payload = palloc_extended(Max(buf.len, 1), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
		if (payload != NULL && buf.len > 0)
			memcpy(payload, buf.data, buf.len);
	}
	m1_buf_free(&buf);
	if (payload == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for a request")));
	return payload;
}

static bool
fits_a_frame(Size len, m1_error *error)
{
	if (len <= M1W_MAX_PAYLOAD)
		return true;
	m1_fail(error, M1_E_CONTEXT_OVERFLOW, "the request is too large");
	m1_error_detail(error, "It has %zu bytes; at most %u are possible.", len, M1W_MAX_PAYLOAD);
	return false;
}

/* ---- opening and closing ---- */

/* Raises an error when a cap of the statement is reached. false: refused, *error says why. */
static bool
admit(M1Exchange *x, const M1Request *request, m1_error *error)
{
	Claim		claim = {.request = request};

	claim.token_limit = m1pg_statement_check(request->function, request->type);
	m1pg_quota_of(GetUserId(), &claim.quota);
	if (request->type == M1W_GENERATE)
		claim.most = m1pg_most_tokens(request->message.generate);
	else if (request->type == M1W_LOGITS)
		claim.most = m1pg_most_tokens_of_ids(request->message.tokens->ids.len);
	x->slot = claim_slot(&claim, &x->request, error);
	x->submitted_at = GetCurrentTimestamp();
	return x->slot != NULL;
}

/* false: the server has no segment left. */
static bool
create_queues(M1Exchange *x)
{
	shm_toc_estimator e;
	shm_toc    *toc;
	shm_mq	   *mq;
	Size		size;

	shm_toc_initialize_estimator(&e);
	shm_toc_estimate_chunk(&e, M1PG_REQUEST_QUEUE_BYTES);
	shm_toc_estimate_chunk(&e, M1PG_EVENT_QUEUE_BYTES);
	shm_toc_estimate_keys(&e, 2);
	size = shm_toc_estimate(&e);

	x->segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (x->segment == NULL)
		return false;
	on_dsm_detach(x->segment, on_detach, PointerGetDatum(x->slot));
	toc = shm_toc_create(M1PG_SEGMENT_MAGIC, dsm_segment_address(x->segment), size);

	mq = shm_mq_create(shm_toc_allocate(toc, M1PG_REQUEST_QUEUE_BYTES), M1PG_REQUEST_QUEUE_BYTES);
	shm_toc_insert(toc, M1PG_KEY_REQUESTS, mq);
	shm_mq_set_sender(mq, MyProc);
	x->requests = shm_mq_attach(mq, x->segment, NULL);

	mq = shm_mq_create(shm_toc_allocate(toc, M1PG_EVENT_QUEUE_BYTES), M1PG_EVENT_QUEUE_BYTES);
	shm_toc_insert(toc, M1PG_KEY_EVENTS, mq);
	shm_mq_set_receiver(mq, MyProc);
	x->events = shm_mq_attach(mq, x->segment, NULL);
	return true;
}

/* Creates the queues, or frees the slot. */
static bool
connect_queues(M1Exchange *x, m1_error *error)
{
	bool		created = false;

	PG_TRY();
	{
		created = create_queues(x);
	}
	PG_FINALLY();
	{
		/* with a segment, its detach callback frees the slot */
		if (x->segment == NULL)
			free_slot(x->slot);
	}
	PG_END_TRY();
	if (created)
		return true;
	m1_fail(error, M1_E_OVERLOADED, "the server has no dynamic shared memory segment left");
	m1_error_hint(error, "Try again later, or raise max_connections, on which their number depends.");
	return false;
}

/* Gives the queue what it takes. true: nothing is left to send. */
static bool
send_request(M1Exchange *x)
{
	M1Message	message = {x->type};
	shm_mq_iovec iov[2];
	shm_mq_result result;

	iov[0].data = (const char *) &message;
	iov[0].len = sizeof message;
	iov[1].data = x->unsent;
	iov[1].len = x->unsent_len;
#if PG_VERSION_NUM >= 150000
	result = shm_mq_sendv(x->requests, iov, 2, true, true);
#else
	result = shm_mq_sendv(x->requests, iov, 2, true);
#endif
	/* Detached: the worker may have refused the request unread, and its answer says why. */
	return result != SHM_MQ_WOULD_BLOCK;
}

/* The worker reads a request only when it is admitted, so a long prompt is sent while its answer is waited for. */
static void
send_unsent(M1Exchange *x)
{
	if (x->unsent == NULL || !send_request(x))
		return;
	pfree(x->unsent);
	x->unsent = NULL;
}

static void
free_exchange(M1Exchange *x)
{
	if (x->unsent != NULL)
		pfree(x->unsent);
	pfree(x);
}

M1Exchange *
m1pg_exchange_try_open(const M1Request *request, m1_error *error)
{
	M1Exchange *x;

	m1pg_require_shared();
	x = palloc0(sizeof *x);
	x->type = request->type;
	x->unsent = encode(request, &x->unsent_len);
	if (!fits_a_frame(x->unsent_len, error) || !admit(x, request, error) || !connect_queues(x, error))
	{
		free_exchange(x);
		return NULL;
	}
	m1pg_statement_call(request->function, request->type);
	submit_slot(x->slot, dsm_segment_handle(x->segment));
	send_unsent(x);
	return x;
}

void
m1pg_exchange_close(M1Exchange *x)
{
	/* the handles first: a statement may make any number of requests, and each has a buffer for its answer */
	shm_mq_detach(x->requests);
	shm_mq_detach(x->events);
	dsm_detach(x->segment);
	free_exchange(x);
}

void
m1pg_exchange_pin(M1Exchange *x)
{
	dsm_pin_mapping(x->segment);
}

bool
m1pg_exchange_reached_engine(const M1Exchange *x)
{
	return x->running_since != 0;
}

double
m1pg_exchange_queue_ms(const M1Exchange *x)
{
	if (x->running_since == 0)
		return 0;
	return Max(0.0, (double) (x->running_since - x->submitted_at) / 1000.0);
}

/* ---- waiting ---- */

static m1w_type
unavailable(m1_error *error, const char *why)
{
	m1_fail(error, M1_E_UNAVAILABLE, "%s", why);
	m1_error_hint(error, "The request was not completed. Try again.");
	return M1W_ERROR;
}

/* A worker that is restarting is waited for; one that stays away is not. */
static bool
worker_stays_away(M1Exchange *x)
{
	TimestampTz now;

	if (m1pg_shared->worker != NULL)
	{
		x->worker_missed = 0;
		return false;
	}
	now = GetCurrentTimestamp();
	if (x->worker_missed == 0)
		x->worker_missed = now;
	return TimestampDifferenceExceeds(x->worker_missed, now, WORKER_ABSENCE_MS);
}

static bool
has_client(void)
{
	return MyProcPort != NULL && whereToSendOutput == DestRemote;
}

/*
 * Rows that the client could read already would otherwise lie in the backend's
 * buffer until that is full. What the connection does not take now is sent
 * later, so that a client that reads slowly does not keep this from waiting.
 */
static void
flush_rows(void)
{
	if (has_client())
		pq_flush_if_writable();
}

/* As client_connection_check_interval does: nobody waits for an answer any more. */
static void
check_client(void)
{
	if (has_client() && !pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
}

/* What pg_stat_activity shows of a backend that waits; before PostgreSQL 17 all extensions share one name. */
static uint32
wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("MiniMaxM1Model");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

void
m1pg_exchange_wait(void)
{
	int			events;

	flush_rows();
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, CHECK_INTERVAL_MS, wait_event());
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (events & WL_TIMEOUT)
		check_client();
	CHECK_FOR_INTERRUPTS();
}

/* ---- events ---- */

/* Notes when the worker handed the request to the engine. */
static void
note_running(M1Exchange *x)
{
	const M1Slot *slot = x->slot;

	if (x->running_since != 0)
		return;
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	if (slot->request == x->request && slot->state == M1_SLOT_RUNNING)
		x->running_since = slot->state_since;
	LWLockRelease(m1pg_shared->lock);
}

m1w_type
m1pg_exchange_poll(M1Exchange *x, const char **payload, Size *len, m1_error *error)
{
	void	   *data;
	Size		size;
	shm_mq_result result;
	M1Message	message;

	send_unsent(x);
	note_running(x);
	result = shm_mq_receive(x->events, &size, &data, true);
	if (result == SHM_MQ_WOULD_BLOCK)
		return worker_stays_away(x) ? unavailable(error, "the background worker is not running") : M1PG_NO_EVENT;
	if (result == SHM_MQ_DETACHED)
		return unavailable(error, "the background worker went away");
	if (size < sizeof message)
		elog(ERROR, "minimax_m1: message of %zu bytes from the worker", size);
	memcpy(&message, data, sizeof message);
	*payload = (const char *) data + sizeof message;
	*len = size - sizeof message;
	if (message.type == M1W_ERROR)
		m1pg_read_failure(*payload, *len, error);
	return message.type;
}

m1w_type
m1pg_exchange_try_receive(M1Exchange *x, const char **payload, Size *len, m1_error *error)
{
	m1w_type	type;

	while ((type = m1pg_exchange_poll(x, payload, len, error)) == M1PG_NO_EVENT)
		m1pg_exchange_wait();
	return type;
}

m1w_type
m1pg_exchange_receive(M1Exchange *x, const char **payload, Size *len)
{
	m1_error	error;
	m1w_type	type = m1pg_exchange_try_receive(x, payload, len, &error);

	if (type == M1W_ERROR)
		m1pg_report(&error);
	return type;
}
