/*
 * relay.c
 *	  The worker's side of requests: takes them up from the shared table, forwards
 *	  them to the engine when they have a place there (places.c), and delivers
 *	  what comes back.
 *
 *	  A relay outlives its slot: when the client goes away the slot is free at
 *	  once, and the relay stays until the engine has confirmed the end. A request
 *	  is read from its queue only when it is admitted, so the prompts of waiting
 *	  requests take no memory here.
 */
#include "pg/worker/relay.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"
#include "pg/worker/answer.h"
#include "pg/worker/engine_process.h"
#include "pg/worker/places.h"
#include "pg/worker/readiness.h"
#include "pg/worker/relays.h"

#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Undelivered output of one request above which it pauses, and below which it goes on. */
#define PAUSE_BYTES		(64 * 1024)
#define RESUME_BYTES	(16 * 1024)
/*
 * What an engine may have sent of a reply before it hears that it is to pause,
 * beyond what is kept of streams that need not: however late it hears of it, an
 * honest one sends less. The rest is not for the server's memory.
 */
#define FLOOD_BYTES		(16 * 1024 * 1024)

HTAB	   *m1pg_relays;

static Size undelivered = 0;	/* bytes of all requests */

/* ---- life ---- */

void
m1pg_relays_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(uint64), .entrysize = sizeof(M1Relay), .hcxt = TopMemoryContext};

	m1pg_relays = hash_create("minimax_m1 relays", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	m1pg_places_init();
}

/* The handles first: they are this process's memory, with a buffer as large as the longest message. */
static void
detach(M1Relay *r)
{
	if (r->requests != NULL)
		shm_mq_detach(r->requests);
	if (r->events != NULL)
		shm_mq_detach(r->events);
	if (r->segment != NULL)
		dsm_detach(r->segment);
	r->segment = NULL;
	r->requests = r->events = NULL;
	r->last = NULL;
	m1_buf_free(&r->pending);
	m1_buf_free(&r->answer.payload);
}

static void
forget(M1Relay *r)
{
	detach(r);
	hash_search(m1pg_relays, &r->request, HASH_REMOVE, NULL);
}

/* Whether the slot is still the request's: its client has not gone. The lock is to be held. */
static bool
has_slot(const M1Relay *r)
{
	return r->slot->request == r->request;
}

static void
set_slot_state(const M1Relay *r, M1SlotState state)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if (has_slot(r))
	{
		r->slot->state = state;
		r->slot->state_since = GetCurrentTimestamp();
		if (state == M1_SLOT_RUNNING)
			r->slot->forwarded_at = r->slot->state_since;
	}
	LWLockRelease(m1pg_shared->lock);
}

/* ---- delivery ---- */

/*
 * Whether the request is to produce nothing for now. It would have to be kept
 * here, and it keeps its place in the batch all the same: where others want
 * that, it had better come to its end, as long as there is memory for what it
 * produces.
 */
static bool
should_pause(const M1Relay *r)
{
	if (r->type == M1W_GENERATE && m1pg_places_wanted && undelivered < (Size) m1pg_unread_memory * 1024)
		return false;
	return r->pending.len > (r->paused_since != 0 ? RESUME_BYTES : PAUSE_BYTES);
}

static void
pause_or_resume(M1Relay *r)
{
	bool		pause = r->in_engine && should_pause(r);

	if (!r->in_engine || pause == (r->paused_since != 0))
		return;
	r->paused_since = pause ? GetCurrentTimestamp() : 0;
	m1pg_engine_note(pause ? M1W_PAUSE : M1W_RESUME, r->request);
}

/* Gives the client's queue what it takes. false when the client is gone. */
static bool
deliver(M1Relay *r)
{
	while (r->pending.len > 0)
	{
		uint32		len;
		shm_mq_result result;

		memcpy(&len, r->pending.data, sizeof len);
#if PG_VERSION_NUM >= 150000
		result = shm_mq_send(r->events, len, r->pending.data + sizeof len, true, true);
#else
		result = shm_mq_send(r->events, len, r->pending.data + sizeof len, true);
#endif
		if (result == SHM_MQ_DETACHED)
			return false;
		if (result == SHM_MQ_WOULD_BLOCK)
			break;
		m1_buf_consume(&r->pending, sizeof len + len);
	}
	if (r->pending.len == 0)
		m1_buf_free(&r->pending);
	pause_or_resume(r);
	return true;
}

/* A message, or a part of one of which `more` bytes follow. */
static void
post(M1Relay *r, m1w_type type, const char *payload, Size len, Size more)
{
	M1Message	message = {type, more};
	uint32		total = sizeof message + len;

	if (r->segment == NULL)
		return;
	m1_buf_append(&r->pending, &total, sizeof total);
	m1_buf_append(&r->pending, &message, sizeof message);
	m1_buf_append(&r->pending, payload, len);
	/* Without memory for its answer, the request is lost but not left hanging: detaching tells the client. */
	if (r->pending.failed)
		detach(r);
}

/* The last event of a request, which has failed unless it was said already how it ended. */
static void
post_error(M1Relay *r, const m1_error *error)
{
	m1w_failure failure = m1w_failure_of(error);
	m1_buf		payload = {0};

	if (m1w_encode_failure(&payload, &failure))
		post(r, M1W_ERROR, payload.data, payload.len, 0);
	m1_buf_free(&payload);
	m1pg_account_close(&r->account, M1_FAILED);
	r->state = RELAY_ENDING;
}

static void
end_with(M1Relay *r, m1_status code, const char *message, const char *hint)
{
	m1_error	error;

	m1_fail(&error, code, "%s", message);
	if (hint != NULL)
		m1_error_hint(&error, "%s", hint);
	post_error(r, &error);
}

/* ---- leaving ---- */

/* Nobody waits for this request any more. */
static void
abandon(M1Relay *r)
{
	m1pg_account_close(&r->account, M1_CANCELLED);
	detach(r);
	if (!r->in_engine)
	{
		forget(r);
		return;
	}
	r->state = RELAY_ABANDONED;
	if (!r->cancelled)
		m1pg_engine_note(M1W_CANCEL, r->request);
	r->cancelled = true;
}

/*
 * The client's queue has all of the reply. Whether and when it is read is the
 * client's affair: the slot is free for others, and what it has counted stays in
 * the segment.
 */
static void
retire(M1Relay *r)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if (has_slot(r))
	{
		*r->last = *r->slot;
		explicit_bzero(r->last->excerpt, sizeof r->last->excerpt);
		m1pg_slot_clear(r->slot);
	}
	LWLockRelease(m1pg_shared->lock);
	forget(r);
}

/* ---- taking up ---- */

static void
attach(M1Relay *r, dsm_handle handle)
{
	shm_toc    *toc;
	shm_mq	   *mq;

	PG_TRY();
	{
		r->segment = dsm_attach(handle);
	}
	PG_CATCH();
	{
		/* this worker ends; the next one takes the request up, and counts it */
		set_slot_state(r, M1_SLOT_SUBMITTED);
		hash_search(m1pg_relays, &r->request, HASH_REMOVE, NULL);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (r->segment == NULL)
		return;					/* the client has gone in between */
	dsm_pin_mapping(r->segment);
	toc = shm_toc_attach(M1PG_SEGMENT_MAGIC, dsm_segment_address(r->segment));
	if (toc == NULL)
	{
		detach(r);
		return;
	}
	mq = shm_toc_lookup(toc, M1PG_KEY_REQUESTS, false);
	shm_mq_set_receiver(mq, MyProc);
	r->requests = shm_mq_attach(mq, r->segment, NULL);
	mq = shm_toc_lookup(toc, M1PG_KEY_EVENTS, false);
	shm_mq_set_sender(mq, MyProc);
	r->events = shm_mq_attach(mq, r->segment, NULL);
	r->last = shm_toc_lookup(toc, M1PG_KEY_LAST, false);
}

static void
take_up(M1Slot *slot, const M1Slot *copy)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	M1Relay	   *r = hash_search(m1pg_relays, &copy->request, HASH_ENTER, NULL);

	memset((char *) r + sizeof r->request, 0, sizeof *r - sizeof r->request);
	r->slot = slot;
	r->type = copy->type;
	r->share = copy->share;
	r->background = copy->background;
	r->state = RELAY_WAITING;
	r->submitted_at = copy->submitted_at;
	r->deadline = copy->deadline;
	m1pg_note_asked(&r->asked, copy);
	attach(r, copy->handle);
	m1pg_account_open(&r->account, slot, copy);
	MemoryContextSwitchTo(old);
	if (r->segment == NULL)
		abandon(r);
}

static void
take_up_submitted(void)
{
	for (int i = 0; i < m1pg_shared->n_slots; i++)
	{
		M1Slot	   *slot = &m1pg_shared->slots[i];
		M1Slot		copy;

		/* a peek without the lock: a backend that submits later wakes us */
		if (slot->state != M1_SLOT_SUBMITTED)
			continue;
		LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
		copy = *slot;
		/* from here on it is the worker that counts how the request ends */
		if (copy.state == M1_SLOT_SUBMITTED)
		{
			slot->state = M1_SLOT_QUEUED;
			slot->state_since = GetCurrentTimestamp();
		}
		LWLockRelease(m1pg_shared->lock);
		if (copy.state == M1_SLOT_SUBMITTED)
			take_up(slot, &copy);
	}
}

/* ---- looking after the client ---- */

/* The client still waits; the request is over for it, and in the engine as soon as that hears of it. */
static void
cut_short(M1Relay *r, M1Ending ending, m1_status code, const char *message, const char *hint)
{
	m1pg_account_close(&r->account, ending);
	if (r->in_engine && !r->cancelled)
		m1pg_engine_note(M1W_CANCEL, r->request);
	r->cancelled = true;
	end_with(r, code, message, hint);
}

/* It stands still until it is read, and somebody wants its place. */
static bool
holds_unread_place(const M1Relay *r)
{
	return r->state == RELAY_RUNNING && r->paused_since != 0 && m1pg_places_wanted;
}

static bool
floods(const M1Relay *r, Size more)
{
	return r->pending.len + more > (Size) m1pg_unread_memory * 1024 + FLOOD_BYTES;
}

static TimestampTz
end_of_pause(const M1Relay *r)
{
	return TimestampTzPlusMilliseconds(r->paused_since, m1pg_unread_timeout);
}

static void
look_at_client(M1Relay *r)
{
	bool		gone;
	bool		cancel;

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	gone = !has_slot(r);
	cancel = r->slot->cancel;
	LWLockRelease(m1pg_shared->lock);
	if (r->state == RELAY_ABANDONED)
		return;
	if (gone || r->segment == NULL)
		abandon(r);
	else if (r->state == RELAY_ENDING)
		return;
	else if (cancel)
		cut_short(r, M1_CANCELLED, M1_E_CANCELLED, "the request was cancelled", NULL);
	else if (holds_unread_place(r) && GetCurrentTimestamp() >= end_of_pause(r))
		cut_short(r, M1_CANCELLED, M1_E_OVERLOADED, "the reply was not read, while others waited for its place",
				  "Read streams as they come; minimax_m1.unread_timeout is how long one may stand still.");
	else if (r->deadline != 0 && GetCurrentTimestamp() >= r->deadline)
		cut_short(r, M1_TIMED_OUT, M1_E_TIMEOUT, "canceling request due to request timeout",
				  "minimax_m1.request_timeout limits how long a request may take, waiting included.");
}

/* ---- admission and forwarding ---- */

static Size
count_undelivered(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	Size		sum = 0;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		sum += r->pending.len;
	return sum;
}

/* Receives the next part of the request's message, if it is there, and passes it on. */
static void
forward(M1Relay *r)
{
	void	   *data;
	Size		len;
	M1Message	message;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	shm_mq_result result = shm_mq_receive(r->requests, &len, &data, true);

	MemoryContextSwitchTo(old);
	if (result == SHM_MQ_DETACHED)
		abandon(r);
	if (result != SHM_MQ_SUCCESS)
		return;
	memset(&message, 0, sizeof message);
	if (len >= sizeof message)
		memcpy(&message, data, sizeof message);
	if (message.type != r->type ||
		!m1w_assembly_follow(&r->question, r->type, len - sizeof message, message.more) ||
		!m1pg_engine_send_part(r->type, r->request, (char *) data + sizeof message, len - sizeof message, message.more))
	{
		cut_short(r, M1_FAILED, M1_E_CORRUPT, "malformed request", NULL);
		return;
	}
	r->in_engine = true;
	if (message.more == 0)
	{
		set_slot_state(r, M1_SLOT_RUNNING);
		r->state = RELAY_RUNNING;
		r->forwarded_at = GetCurrentTimestamp();
	}
	else
		SetLatch(MyLatch);		/* the next part may be there already */
	/* whose memory it is next is not known */
	explicit_bzero(data, len);
}

static void
refuse_waiting(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	m1_error	refusal = m1pg_refusal();

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		if (r->state == RELAY_WAITING || r->state == RELAY_READING)
			post_error(r, &refusal);
}

void
m1pg_relays_pump(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	M1EngineState state = m1pg_readiness()->state;
	bool		round;

	take_up_submitted();
	undelivered = count_undelivered();
	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		look_at_client(r);
	if (state == M1_ENGINE_FAILED)
		refuse_waiting();
	else if (state == M1_ENGINE_READY)
		m1pg_places_give();
	else if (state == M1_ENGINE_DRAINING)
		m1pg_places_wanted = true;	/* all of them: the engine is to be stopped */
	/* of each request one part, and the next when the engine has taken all of these: long ones are in nobody's way */
	round = m1pg_engine_serves(state) && m1pg_engine_takes_more();
	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
	{
		if (r->state == RELAY_READING && round)
			forward(r);
		if (r->state == RELAY_ABANDONED || r->segment == NULL)
			continue;
		if (!deliver(r))
			abandon(r);
		else if (r->state == RELAY_ENDING && r->pending.len == 0 && !r->in_engine)
			retire(r);
	}
}

/* ---- what the engine says ---- */

static void
note_progress(M1Relay *r, const char *payload, Size len)
{
	m1w_progress p;
	m1_error	error;
	bool		within_limit;

	if (m1w_decode_progress(payload, len, &p, &error) != M1_OK)
		return;
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if (has_slot(r))
	{
		if (r->slot->phase != p.phase)
			r->slot->state_since = GetCurrentTimestamp();
		r->slot->phase = p.phase;
	}
	within_limit = m1pg_account_progress(&r->account, &p);
	LWLockRelease(m1pg_shared->lock);
	if (!within_limit && r->state == RELAY_RUNNING)
		cut_short(r, M1_CANCELLED, M1_E_OVERLOADED, "the statement has reached minimax_m1.max_tokens_per_statement",
				  "Raise it, or ask for shorter replies (max_tokens); 0 means no limit.");
}

static void
note_done(M1Relay *r, const char *payload, Size len)
{
	m1w_done	done;
	m1_error	error;

	if (m1w_decode_done(payload, len, &done, &error) == M1_OK)
		m1pg_account_done(&r->account, &done, (double) (r->forwarded_at - r->submitted_at) / 1000.0);
}

/* The last of a request. */
static void
note_end(M1Relay *r, m1w_type type, const char *payload, Size len)
{
	r->in_engine = false;
	SetLatch(MyLatch);			/* a place is free: the loop goes round once more */
	if (type == M1W_DONE)
		note_done(r, payload, len);
	else
		m1pg_account_close(&r->account, type == M1W_ERROR ? M1_FAILED : M1_COMPLETED);
}

/* A message that was judged, or a part of one. */
static void
take_message(M1Relay *r, m1w_type type, const char *payload, Size len, Size more)
{
	if (type == M1W_PROGRESS)
	{
		note_progress(r, payload, len);
		return;
	}
	if (type != M1W_DELTA && more == 0)
		note_end(r, type, payload, len);
	if (r->state == RELAY_ABANDONED)
	{
		if (!r->in_engine)
			forget(r);
		return;
	}
	if (r->state != RELAY_RUNNING && r->state != RELAY_READING)
		return;					/* the client already has its last event */
	if (type == M1W_DELTA && floods(r, len))
		cut_short(r, M1_FAILED, M1_E_UNAVAILABLE, "the engine sent more of the reply than there is memory for",
				  "It was told to pause. The request was not completed; it is safe to try again.");
	else
		post(r, type, payload, len, more);
	if (!r->in_engine)
		r->state = RELAY_ENDING;
	if (r->segment == NULL || !deliver(r))
		abandon(r);
}

static void
forget_answer(M1Relay *r)
{
	m1_buf_free(&r->answer.payload);
	r->answer.more = 0;
}

static const char *
judge_and_take(M1Relay *r, m1w_type type, const char *payload, Size len)
{
	const char *wrong = m1pg_judge_answer(&r->asked, type, payload, len);

	if (wrong == NULL)
		take_message(r, type, payload, len, 0);
	return wrong;
}

/* Whole messages are judged; one that came in parts is kept until it is whole. */
static const char *
take_frame(M1Relay *r, const m1w_header *header, const char *payload)
{
	m1_buf		whole;
	const char *wrong;

	if (r->answer.more == 0 && header->more == 0)
		return judge_and_take(r, header->type, payload, header->length);
	if (!m1w_assembly_add(&r->answer, header, payload))
		return "It sent a message in parts that do not belong to each other.";
	if (r->answer.more > 0)
		return NULL;
	whole = r->answer.payload;
	memset(&r->answer, 0, sizeof r->answer);
	wrong = whole.failed ? "Out of memory for its answers." : judge_and_take(r, header->type, whole.data, whole.len);
	m1_buf_free(&whole);
	return wrong;
}

static const char *
pass_on_part(M1Relay *r, const m1w_header *header, const char *part)
{
	const char *wrong = m1pg_judge_part(&r->asked, header->type, part, header->length, header->more);

	if (wrong == NULL && !m1w_assembly_follow(&r->answer, header->type, header->length, header->more))
		wrong = "It sent a message in parts that do not belong to each other.";
	if (wrong == NULL)
		take_message(r, header->type, part, header->length, header->more);
	return wrong;
}

const char *
m1pg_relays_frame(const m1w_header *header, const char *payload)
{
	uint64		request = header->request_id;
	M1Relay	   *r = hash_search(m1pg_relays, &request, HASH_FIND, NULL);

	if (r == NULL || !r->in_engine)
		return NULL;			/* ended here before the engine heard of it */
	/* an error may come instead of the rest of an answer: the request was cancelled */
	if (header->type == M1W_ERROR)
		forget_answer(r);
	if (m1pg_answers_in_parts(header->type))
		return pass_on_part(r, header, payload);
	return take_frame(r, header, payload);
}

void
m1pg_relays_fail_running(const m1_error *error)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
	{
		if (!r->in_engine)
			continue;
		r->in_engine = false;
		r->paused_since = 0;
		if (r->state == RELAY_ABANDONED)
			forget(r);
		else if (r->state == RELAY_RUNNING || r->state == RELAY_READING)
			post_error(r, error);
	}
	m1pg_wake_worker();			/* the errors are delivered in the next round */
}

void
m1pg_relays_end(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;

	if (m1pg_relays == NULL)
		return;
	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		m1pg_account_close(&r->account, M1_FAILED);
}

/* 0 = never */
static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return a == 0 || b == 0 ? Max(a, b) : Min(a, b);
}

long
m1pg_relays_timeout(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	TimestampTz next = 0;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
	{
		if (r->state == RELAY_WAITING || r->state == RELAY_READING || r->state == RELAY_RUNNING)
			next = earlier(next, r->deadline);
		if (holds_unread_place(r))
			next = earlier(next, end_of_pause(r));
	}
	if (next == 0)
		return -1;
	return Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next));
}
