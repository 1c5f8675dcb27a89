/*
 * channel.c
 *	  A backend's side of one request: a slot in the shared table, and a dynamic
 *	  shared memory segment with one queue in each direction.
 *
 *	  The segment belongs to the current resource owner. Its detach callback
 *	  frees the slot, so an error, a cancel, a dropped portal or the end of the
 *	  process all end the request; the worker notices the freed slot and cancels
 *	  in the engine.
 */
#include "m1pg.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"

/*
 * From libpq/libpq.h, which needs the Kerberos headers that Debian's server
 * headers do not bring.
 */
extern bool pq_check_connection(void);

/* How often a waiting backend looks whether client and worker are still there. */
#define CHECK_INTERVAL_MS 200
/* How long the worker may be away before a waiting request gives up: its restart takes 2 s. */
#define WORKER_ABSENCE_MS 10000

struct M1Channel
{
	dsm_segment *segment;
	shm_mq_handle *requests;
	shm_mq_handle *events;
	int			slot;
	uint64		request;
	TimestampTz submitted_at;
	TimestampTz running_since;	/* 0 until the worker has forwarded it */
	TimestampTz worker_missed;	/* since when there is no worker; 0 = there is one */
};

/* ---- slots ---- */

static void
free_slot(int index)
{
	M1Slot	   *slot = &m1pg_shared->slots[index];

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	/* all of it: the excerpt is part of somebody's prompt */
	memset(slot, 0, sizeof *slot);
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
}

static void
on_detach(dsm_segment *segment, Datum slot)
{
	free_slot(DatumGetInt32(slot));
}

static int
find_free_slot(void)
{
	for (int i = 0; i < m1pg_shared->n_slots; i++)
		if (m1pg_shared->slots[i].state == M1_SLOT_FREE)
			return i;
	return -1;
}

/* Cuts at a character boundary of the server's encoding. */
static void
copy_excerpt(char *to, const char *from)
{
	int			len = pg_mbcliplen(from, strlen(from), M1PG_EXCERPT - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

static void pg_attribute_noreturn()
refuse_overload(void)
{
	m1pg_shared->stats.rejected++;
	LWLockRelease(m1pg_shared->lock);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("minimax_m1: the request queue is full"),
			 errdetail("%d requests are running or waiting.", m1pg_shared->n_slots),
			 errhint("Try again later, or raise minimax_m1.max_queue.")));
	pg_unreachable();
}

/* There are max_requests + max_queue slots: one is free as long as the queue has room. */
static int
claim_slot(m1w_type type, const char *function, const char *excerpt, uint64 *request)
{
	int			index;
	TimestampTz now = GetCurrentTimestamp();
	M1Slot	   *slot;

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if ((index = find_free_slot()) < 0)
		refuse_overload();		/* releases the lock */
	slot = &m1pg_shared->slots[index];
	memset(slot, 0, sizeof *slot);
	slot->state = M1_SLOT_CLAIMED;
	slot->request = *request = ++m1pg_shared->last_request;
	slot->proc = MyProc;
	slot->pid = MyProcPid;
	slot->userid = GetUserId();
	slot->databaseid = MyDatabaseId;
	slot->type = type;
	slot->submitted_at = slot->state_since = now;
	if (m1pg_request_timeout > 0)
		slot->deadline = TimestampTzPlusMilliseconds(now, m1pg_request_timeout);
	strlcpy(slot->function, function, sizeof slot->function);
	copy_excerpt(slot->excerpt, excerpt);
	m1pg_shared->stats.requests++;
	LWLockRelease(m1pg_shared->lock);
	return index;
}

static void
submit_slot(int index, dsm_handle handle)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->slots[index].handle = handle;
	m1pg_shared->slots[index].state = M1_SLOT_SUBMITTED;
	m1pg_wake_worker();
	LWLockRelease(m1pg_shared->lock);
}

/* ---- waiting ---- */

static void
unavailable(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("minimax_m1: %s", why),
			 errhint("The request was not completed. Try again.")));
}

/* A worker that is restarting is waited for; one that stays away is an error. */
static void
check_worker(M1Channel *c)
{
	TimestampTz now;

	if (m1pg_shared->worker != NULL)
	{
		c->worker_missed = 0;
		return;
	}
	now = GetCurrentTimestamp();
	if (c->worker_missed == 0)
		c->worker_missed = now;
	else if (TimestampDifferenceExceeds(c->worker_missed, now, WORKER_ABSENCE_MS))
		unavailable("the background worker is not running");
}

/* As client_connection_check_interval does: nobody waits for an answer any more. */
static void
check_client(void)
{
	if (MyProcPort != NULL && whereToSendOutput == DestRemote && !pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
}

static void
wait_for_worker(M1Channel *c)
{
	int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								   CHECK_INTERVAL_MS, PG_WAIT_EXTENSION);

	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (events & WL_TIMEOUT)
		check_client();
	CHECK_FOR_INTERRUPTS();
	check_worker(c);
}

/* ---- the request ---- */

static void
create_queues(M1Channel *c)
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

	c->segment = dsm_create(size, 0);
	on_dsm_detach(c->segment, on_detach, Int32GetDatum(c->slot));
	toc = shm_toc_create(M1PG_CHANNEL_MAGIC, dsm_segment_address(c->segment), size);

	mq = shm_mq_create(shm_toc_allocate(toc, M1PG_REQUEST_QUEUE_BYTES), M1PG_REQUEST_QUEUE_BYTES);
	shm_toc_insert(toc, M1PG_KEY_REQUESTS, mq);
	shm_mq_set_sender(mq, MyProc);
	c->requests = shm_mq_attach(mq, c->segment, NULL);

	mq = shm_mq_create(shm_toc_allocate(toc, M1PG_EVENT_QUEUE_BYTES), M1PG_EVENT_QUEUE_BYTES);
	shm_toc_insert(toc, M1PG_KEY_EVENTS, mq);
	shm_mq_set_receiver(mq, MyProc);
	c->events = shm_mq_attach(mq, c->segment, NULL);
}

static void
send_request(M1Channel *c, m1w_type type, const char *payload, Size len)
{
	M1Message	message = {type};
	shm_mq_iovec iov[2];

	iov[0].data = (const char *) &message;
	iov[0].len = sizeof message;
	iov[1].data = payload;
	iov[1].len = len;
	for (;;)
	{
#if PG_VERSION_NUM >= 150000
		shm_mq_result result = shm_mq_sendv(c->requests, iov, 2, true, true);
#else
		shm_mq_result result = shm_mq_sendv(c->requests, iov, 2, true);
#endif
		if (result == SHM_MQ_SUCCESS)
			return;
		/* The worker may have refused the request unread: its answer says why. */
		if (result == SHM_MQ_DETACHED)
			return;
		wait_for_worker(c);
	}
}

M1Channel *
m1pg_channel_open(m1w_type type, const char *payload, Size len,
				  const char *function, const char *excerpt)
{
	M1Channel  *c;

	m1pg_require_shared();
	if (len > M1W_MAX_PAYLOAD)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the request is too large"),
				 errdetail("It has %zu bytes; at most %u are possible.", len, M1W_MAX_PAYLOAD)));
	c = palloc0(sizeof *c);
	c->slot = claim_slot(type, function, excerpt, &c->request);
	c->submitted_at = GetCurrentTimestamp();
	PG_TRY();
	{
		create_queues(c);
	}
	PG_CATCH();
	{
		/* with a segment, its detach callback frees the slot */
		if (c->segment == NULL)
			free_slot(c->slot);
		PG_RE_THROW();
	}
	PG_END_TRY();
	submit_slot(c->slot, dsm_segment_handle(c->segment));
	send_request(c, type, payload, len);
	return c;
}

double
m1pg_channel_queue_ms(const M1Channel *c)
{
	if (c->running_since == 0)
		return 0;
	return Max(0.0, (double) (c->running_since - c->submitted_at) / 1000.0);
}

/* Notes when the worker handed the request to the engine. */
static void
note_running(M1Channel *c)
{
	const M1Slot *slot = &m1pg_shared->slots[c->slot];

	if (c->running_since != 0)
		return;
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	if (slot->request == c->request && slot->state == M1_SLOT_RUNNING)
		c->running_since = slot->state_since;
	LWLockRelease(m1pg_shared->lock);
}

static void
raise_failure(const char *payload, Size len)
{
	m1w_failure failure;
	m1_error	error;

	if (m1w_decode_failure(payload, len, &failure, &error) == M1_OK)
		m1w_failure_to_error(&failure, &error);
	m1pg_report(&error);
}

m1w_type
m1pg_channel_receive(M1Channel *c, const char **payload, Size *len)
{
	for (;;)
	{
		void	   *data;
		Size		size;
		shm_mq_result result = shm_mq_receive(c->events, &size, &data, true);
		M1Message	message;

		if (result == SHM_MQ_DETACHED)
			unavailable("the background worker went away");
		if (result == SHM_MQ_WOULD_BLOCK)
		{
			wait_for_worker(c);
			continue;
		}
		if (size < sizeof message)
			elog(ERROR, "minimax_m1: message of %zu bytes from the worker", size);
		memcpy(&message, data, sizeof message);
		*payload = (const char *) data + sizeof message;
		*len = size - sizeof message;
		note_running(c);
		if (message.type == M1W_ERROR)
			raise_failure(*payload, *len);
		return message.type;
	}
}

void
m1pg_channel_close(M1Channel *c)
{
	dsm_detach(c->segment);
	pfree(c);
}
