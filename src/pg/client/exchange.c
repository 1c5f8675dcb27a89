/*
 * exchange.c
 *	  A backend's side of one request: a slot in the shared table, and a dynamic
 *	  shared memory segment with one queue in each direction.
 *
 *	  The segment belongs to the current resource owner. Its detach callback
 *	  frees the slot, so an error, a cancel, a dropped portal or the end of the
 *	  process all end the request; the worker notices the freed slot and cancels
 *	  in the engine.
 *
 *	  A session that does not read runs no code, so whatever it holds while it
 *	  does not must be little. The slot is freed by the worker once the whole
 *	  reply is in the queue. The segment goes with the session's next request:
 *	  what its queues still have of complete replies is taken over into memory of
 *	  this process. So a session has no more segments than open requests, and
 *	  of these slots.c lets it have few.
 */
#include "pg/client/exchange.h"
#include "pg/client/slots.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"
#include "pg/usage/statement.h"
#include "pg/usage/usage.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Not with the others: it takes in Kerberos' headers, which Debian's server
 * headers do not bring, for a struct that nobody here looks into.
 */
#undef ENABLE_GSS
#include "libpq/libpq.h"

/* Of a request, beside its texts: as much as is usual. */
#define SHORT_FIELDS		4096
/* How often a waiting backend looks whether client and worker are still there. */
#define CHECK_INTERVAL_MS 200
/* How long the worker may be away before a waiting request gives up: its restart takes 2 s. */
#define WORKER_ABSENCE_MS 10000

/* A message that was taken over. */
typedef struct Message
{
	struct Message *next;
	Size		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];
} Message;

struct M1Exchange
{
	dsm_segment *segment;		/* NULL once its reply was taken over */
	struct Open *open;			/* until the segment is detached */
	shm_mq_handle *requests;
	shm_mq_handle *events;
	m1w_type	type;
	char	   *unsent;			/* the payload, while the queue has not taken all of it; else NULL */
	Size		unsent_len;
	Size		sent;			/* of it */
	char	   *answer;			/* one that comes in parts; NULL until there is one */
	Size		answer_len;
	M1Slot	   *slot;			/* the request's, until the segment is detached or the worker has freed it */
	uint64		request;
	M1Slot	   *last;			/* in the segment: what the slot was when the worker freed it */
	Message    *inbox;			/* of what was taken over: the message that was read last, and those that follow */
	bool		inbox_begun;
	TimestampTz submitted_at;
	TimestampTz running_since;	/* 0 until the worker has forwarded it */
	TimestampTz worker_missed;	/* since when there is no worker; 0 = there is one */
};

/* ---- those that have a segment ---- */

/*
 * An exchange may lie in memory that is freed before its segment is detached,
 * when a transaction is aborted; so what the detach callback needs does not.
 */
typedef struct Open
{
	dlist_node	node;
	M1Exchange *exchange;
	M1Slot	   *slot;
	uint64		request;
	M1Slot	   *last;
} Open;

static dlist_head open_exchanges = DLIST_STATIC_INIT(open_exchanges);

static void
make_open(M1Exchange *x)
{
	x->open = MemoryContextAllocZero(TopMemoryContext, sizeof *x->open);
	x->open->exchange = x;
	x->open->slot = x->slot;
	x->open->request = x->request;
}

static void
on_detach(dsm_segment *segment, Datum arg)
{
	Open	   *open = (Open *) DatumGetPointer(arg);

	m1pg_slot_free(open->slot, open->request, open->last);
	dlist_delete(&open->node);
	pfree(open);
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
			return m1w_encode_words(out, request->message.words);
		case M1W_PUT:
		case M1W_FETCH:
			return m1w_encode_bytes(out, request->message.bytes);
		case M1W_TRAINING:
			return m1w_encode_training(out, request->message.training);
		case M1W_LESSON:
			return m1w_encode_lesson(out, request->message.lesson);
		case M1W_FORGET:
			return m1w_encode_forget(out, request->message.forget);
		case M1W_SERVE:
			return m1w_encode_serve(out, request->message.serve);
		default:
			return m1w_encode_tokens(out, request->message.tokens);
	}
}

/* Bytes of what it is made of, for a look before they are copied. */
static Size
least_length(const M1Request *request)
{
	const m1w_generate *g = request->message.generate;
	const m1w_lesson *l = request->message.lesson;

	if (request->type == M1W_LESSON)
		return l->ids.len * sizeof(int32) + l->old_logprobs.len + l->experts.len + l->masks.len;
	if (request->type == M1W_GENERATE)
		return g->prompt.len + g->system.len + g->messages.len + g->tools.len + g->constraint_text.len +
			g->ids.len * sizeof(int32);
	return request->type == M1W_TOKENIZE ? request->message.words->text.len : 0;
}

/* The payload, palloc'd: nothing that malloc made may be around when an error is raised. */
static char *
encode(const M1Request *request, Size *len)
{
	m1_buf		buf = {0};
	char	   *payload = NULL;

	/* at once: what is behind a long text would have all of it copied again */
	m1_buf_reserve(&buf, least_length(request) + SHORT_FIELDS);
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

/* ---- admission and queues ---- */

/* Raises an error when a cap of the statement is reached. false: refused, *error says why. */
static bool
admit(M1Exchange *x, const M1Request *request, m1_error *error)
{
	M1Claim		claim = {.request = request};

	claim.token_limit = m1pg_statement_check(request->function, request->type);
	m1pg_quota_of(GetUserId(), &claim.quota);
	if (request->type == M1W_GENERATE)
		claim.most = m1pg_most_tokens(request->message.generate);
	else if (request->type == M1W_LOGITS)
		claim.most = m1pg_most_tokens_of_ids(request->message.tokens->ids.len);
	else if (request->type == M1W_LESSON)
		claim.most.all = (int64) request->message.lesson->ids.len;
	x->slot = m1pg_slot_claim(&claim, &x->request, error);
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
	shm_toc_estimate_chunk(&e, sizeof *x->last);
	shm_toc_estimate_keys(&e, 3);
	size = shm_toc_estimate(&e);

	make_open(x);
	x->segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (x->segment == NULL)
		return false;
	on_dsm_detach(x->segment, on_detach, PointerGetDatum(x->open));
	dlist_push_tail(&open_exchanges, &x->open->node);
	toc = shm_toc_create(M1PG_SEGMENT_MAGIC, dsm_segment_address(x->segment), size);
	x->last = x->open->last = shm_toc_allocate(toc, sizeof *x->last);
	memset(x->last, 0, sizeof *x->last);
	shm_toc_insert(toc, M1PG_KEY_LAST, x->last);

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
		{
			m1pg_slot_free(x->slot, x->request, NULL);
			if (x->open != NULL)
				pfree(x->open);
		}
	}
	PG_END_TRY();
	if (created)
		return true;
	m1_fail(error, M1_E_OVERLOADED, "the server has no dynamic shared memory segment left");
	m1_error_hint(error, "Try again later, or raise max_connections, on which their number depends.");
	return false;
}

/* Gives the queue the next part, or what it takes of it. */
static shm_mq_result
send_part(M1Exchange *x, Size len)
{
	M1Message	message = {x->type, x->unsent_len - x->sent - len};
	shm_mq_iovec iov[2];

	iov[0].data = (const char *) &message;
	iov[0].len = sizeof message;
	iov[1].data = x->unsent + x->sent;
	iov[1].len = len;
#if PG_VERSION_NUM >= 150000
	return shm_mq_sendv(x->requests, iov, 2, true, true);
#else
	return shm_mq_sendv(x->requests, iov, 2, true);
#endif
}

/* Gives the queue what it takes. true: nothing is left to send. */
static bool
send_request(M1Exchange *x)
{
	shm_mq_result result;

	do
	{
		Size		len = Min(x->unsent_len - x->sent, M1W_MAX_PART);

		if ((result = send_part(x, len)) == SHM_MQ_SUCCESS)
			x->sent += len;
	} while (result == SHM_MQ_SUCCESS && x->sent < x->unsent_len);
	/* Detached: the worker may have refused the request unread, and its answer says why. */
	return result != SHM_MQ_WOULD_BLOCK;
}

/* The worker reads a request only when it is admitted, so a long prompt is sent while its answer is waited for. */
static void
send_unsent(M1Exchange *x)
{
	if (x->unsent == NULL || (x->segment != NULL && !send_request(x)))
		return;
	pfree(x->unsent);
	x->unsent = NULL;
}

/* The handles first: a statement may make any number of requests, and each has a buffer for its answer. */
static void
detach(M1Exchange *x)
{
	if (x->segment == NULL)
		return;
	shm_mq_detach(x->requests);
	shm_mq_detach(x->events);
	dsm_detach(x->segment);
	x->segment = NULL;
	x->open = NULL;
	x->last = NULL;
}

static void
free_exchange(M1Exchange *x)
{
	Message    *next;

	for (Message *m = x->inbox; m != NULL; m = next)
	{
		next = m->next;
		pfree(m);
	}
	if (x->unsent != NULL)
		pfree(x->unsent);
	if (x->answer != NULL)
		pfree(x->answer);
	pfree(x);
}

/* Notes when the worker handed the request to the engine. */
static void
note_running(M1Exchange *x)
{
	if (x->running_since != 0 || x->segment == NULL)
		return;
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	x->running_since = x->slot->request == x->request ? x->slot->forwarded_at : x->last->forwarded_at;
	LWLockRelease(m1pg_shared->lock);
}

/* ---- taking over ---- */

/* The worker has freed the slot: the queue has all of the reply that was not read. */
static bool
is_complete(const Open *open)
{
	bool		complete;

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	complete = open->last->request == open->request;
	LWLockRelease(m1pg_shared->lock);
	return complete;
}

/* Frees the segment of a request whose reply is complete; at most a queue full of it is still to be read. */
static void
take_over(M1Exchange *x)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(x));
	Message   **end = &x->inbox;
	void	   *data;
	Size		len;

	while (shm_mq_receive(x->events, &len, &data, true) == SHM_MQ_SUCCESS)
	{
		Message    *m = palloc(offsetof(Message, data) + len);

		m->next = NULL;
		m->len = len;
		memcpy(m->data, data, len);
		*end = m;
		end = &m->next;
	}
	MemoryContextSwitchTo(old);
	note_running(x);
	detach(x);
}

static void
take_over_complete(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &open_exchanges)
	{
		Open	   *open = dlist_container(Open, node, iter.cur);

		if (is_complete(open))
			take_over(open->exchange);
	}
}

/* The next message of a reply that was taken over. The one before it is not needed any more. */
static shm_mq_result
receive_taken(M1Exchange *x, Size *len, void **data)
{
	Message    *m = x->inbox;

	if (m != NULL && x->inbox_begun)
	{
		x->inbox = m->next;
		pfree(m);
		m = x->inbox;
	}
	x->inbox_begun = true;
	if (m == NULL)
		return SHM_MQ_DETACHED;
	*len = m->len;
	*data = m->data;
	return SHM_MQ_SUCCESS;
}

/* ---- opening and closing ---- */

M1Exchange *
m1pg_exchange_try_open(const M1Request *request, m1_error *error)
{
	M1Exchange *x;

	m1pg_require_shared();
	take_over_complete();
	x = palloc0(sizeof *x);
	x->type = request->type;
	if (fits_a_frame(least_length(request), error))
		x->unsent = encode(request, &x->unsent_len);
	if (x->unsent == NULL || !fits_a_frame(x->unsent_len, error) ||
		!admit(x, request, error) || !connect_queues(x, error))
	{
		free_exchange(x);
		return NULL;
	}
	m1pg_statement_call(request->function, request->type);
	m1pg_slot_submit(x->slot, dsm_segment_handle(x->segment));
	send_unsent(x);
	return x;
}

void
m1pg_exchange_close(M1Exchange *x)
{
	detach(x);
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

static shm_mq_result
next_message(M1Exchange *x, M1Message *message, const char **payload, Size *len)
{
	void	   *data;
	Size		size;
	shm_mq_result result;

	result = x->segment != NULL ? shm_mq_receive(x->events, &size, &data, true) : receive_taken(x, &size, &data);
	if (result != SHM_MQ_SUCCESS)
		return result;
	if (size < sizeof *message)
		elog(ERROR, "minimax_m1: message of %zu bytes from the worker", size);
	memcpy(message, data, sizeof *message);
	*payload = (const char *) data + sizeof *message;
	*len = size - sizeof *message;
	return result;
}

/* Keeps a part of the answer that comes in several, which the worker has judged. */
static void
keep_part(M1Exchange *x, const M1Message *message, const char *part, Size len)
{
	if (x->answer == NULL)
		x->answer = MemoryContextAllocHuge(GetMemoryChunkContext(x), len + message->more);
	memcpy(x->answer + x->answer_len, part, len);
	x->answer_len += len;
}

/* The next message that is all there. */
static shm_mq_result
next_event(M1Exchange *x, M1Message *message, const char **payload, Size *len)
{
	shm_mq_result result;

	while ((result = next_message(x, message, payload, len)) == SHM_MQ_SUCCESS)
	{
		bool		begun = x->answer != NULL && message->type != M1W_ERROR;

		if (!begun && message->more == 0)
			return result;
		keep_part(x, message, *payload, *len);
		CHECK_FOR_INTERRUPTS();
		if (message->more > 0)
			continue;
		*payload = x->answer;
		*len = x->answer_len;
		return result;
	}
	return result;
}

m1w_type
m1pg_exchange_poll(M1Exchange *x, const char **payload, Size *len, m1_error *error)
{
	shm_mq_result result;
	M1Message	message;

	send_unsent(x);
	note_running(x);
	result = next_event(x, &message, payload, len);
	if (result == SHM_MQ_WOULD_BLOCK)
		return worker_stays_away(x) ? unavailable(error, "the background worker is not running") : M1PG_NO_EVENT;
	if (result == SHM_MQ_DETACHED)
		return unavailable(error, "the background worker went away");
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
