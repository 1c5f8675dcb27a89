/* outbox.c - see outbox.h. */
#include "commands/outbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/least.h"

/* How often the socket is written to before the thread looks whether there is something to read. */
#define MOST_WRITES 16

/* A message of several frames, or one that stands behind such a one of its request. */
typedef struct longer
{
	struct longer *next;
	uint64_t id;
	m1w_type type;
	m1_buf payload;
	size_t sent;
	uint64_t turn; /* when it had its last */
	bool paused;
} longer;

struct m1_outbox
{
	m1_outbox_discard *discard;
	void *context;
	int wake; /* eventfd */

	pthread_mutex_t lock; /* of all below */
	m1_buf frames;		  /* to be written next */
	longer *longer;		  /* in the order in which they came */
	uint64_t turns;
	bool broken;
};

m1_outbox *
m1_outbox_create(m1_outbox_discard *discard, void *context)
{
	m1_outbox *o = calloc(1, sizeof *o);

	if (o == NULL)
		return NULL;
	o->discard = discard;
	o->context = context;
	pthread_mutex_init(&o->lock, NULL);
	o->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->wake >= 0)
		return o;
	free(o);
	return NULL;
}

static void
wake(m1_outbox *o)
{
	uint64_t one = 1;

	while (write(o->wake, &one, sizeof one) < 0 && errno == EINTR)
		;
}

/* ---- long messages; under the lock ---- */

static longer *
first_of(m1_outbox *o, uint64_t id)
{
	longer *l = o->longer;

	while (l != NULL && l->id != id)
		l = l->next;
	return l;
}

static bool
keep(m1_outbox *o, m1w_type type, uint64_t id, m1_buf *payload)
{
	longer *l = calloc(1, sizeof *l);
	longer **end = &o->longer;

	if (l == NULL || payload->failed)
	{
		free(l);
		return false;
	}
	l->id = id;
	l->type = type;
	l->payload = *payload;
	l->turn = o->turns;
	*payload = (m1_buf){0};
	while (*end != NULL)
		end = &(*end)->next;
	*end = l;
	return true;
}

/* Whose turn it is, of those that are the first of their request; NULL: nobody's. */
static longer *
next_turn(m1_outbox *o)
{
	longer *next = NULL;

	for (longer *l = o->longer; l != NULL; l = l->next)
		if (!l->paused && first_of(o, l->id) == l && (next == NULL || l->turn < next->turn))
			next = l;
	return next;
}

static void
unlink_longer(m1_outbox *o, longer *l)
{
	longer **at = &o->longer;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
}

/* Makes one more frame. *complete: of whose message it was the last, which is off the list then; else NULL. */
static void
refill(m1_outbox *o, longer **complete)
{
	longer *l = next_turn(o);
	size_t left;
	size_t part;

	*complete = NULL;
	if (l == NULL)
		return;
	left = l->payload.len - l->sent;
	part = m1_min_size(left, M1W_MAX_PART);
	if (!m1w_frame_append(&o->frames, l->type, l->id, l->payload.data + l->sent, part, left - part))
		o->broken = true;
	l->sent += part;
	l->turn = ++o->turns;
	if (left > part)
		return;
	unlink_longer(o, l);
	*complete = l;
}

static void
discard(m1_outbox *o, longer *l)
{
	if (l == NULL)
		return;
	o->discard(o->context, &l->payload);
	free(l);
}

void
m1_outbox_free(m1_outbox *o)
{
	while (o->longer != NULL)
	{
		longer *l = o->longer;

		o->longer = l->next;
		discard(o, l);
	}
	m1_buf_free(&o->frames);
	close(o->wake);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

/* ---- any thread ---- */

void
m1_outbox_put(m1_outbox *o, m1w_type type, uint64_t id, m1_buf *payload)
{
	bool kept;

	pthread_mutex_lock(&o->lock);
	if (payload->len > M1W_MAX_PART || first_of(o, id) != NULL)
		kept = keep(o, type, id, payload);
	else
		kept = !payload->failed && m1w_frame_append(&o->frames, type, id, payload->data, payload->len, 0);
	o->broken |= !kept;
	pthread_mutex_unlock(&o->lock);
	m1_buf_free(payload);
	wake(o);
}

void
m1_outbox_break(m1_outbox *o)
{
	pthread_mutex_lock(&o->lock);
	o->broken = true;
	pthread_mutex_unlock(&o->lock);
	wake(o);
}

/* ---- the writing thread ---- */

int
m1_outbox_fd(const m1_outbox *o)
{
	return o->wake;
}

void
m1_outbox_heard(m1_outbox *o)
{
	uint64_t count;

	while (read(o->wake, &count, sizeof count) < 0 && errno == EINTR)
		;
}

bool
m1_outbox_pending(m1_outbox *o, bool *broken)
{
	bool pending;

	pthread_mutex_lock(&o->lock);
	pending = o->frames.len > 0 || next_turn(o) != NULL;
	*broken = o->broken;
	pthread_mutex_unlock(&o->lock);
	return pending;
}

/* One write. *more: the socket took all of it, and there is more. */
static bool
write_some(m1_outbox *o, int fd, bool *more)
{
	longer *complete = NULL;
	bool ok = true;
	ssize_t n;

	pthread_mutex_lock(&o->lock);
	if (o->frames.len == 0)
		refill(o, &complete);
	n = o->frames.len > 0 ? write(fd, o->frames.data, o->frames.len) : 0;
	if (n < 0)
		ok = errno == EAGAIN || errno == EINTR;
	else
		m1_buf_consume(&o->frames, (size_t) n);
	*more = n > 0 && o->frames.len == 0 && next_turn(o) != NULL;
	if (o->frames.len == 0)
		m1_buf_free(&o->frames);
	pthread_mutex_unlock(&o->lock);
	discard(o, complete);
	return ok;
}

bool
m1_outbox_write(m1_outbox *o, int fd)
{
	bool ok = true;
	bool more = true;

	for (int i = 0; ok && more && i < MOST_WRITES; i++)
		ok = write_some(o, fd, &more);
	return ok;
}

static bool
is_last(m1w_type type)
{
	return type != M1W_DELTA && type != M1W_PROGRESS;
}

bool
m1_outbox_drop(m1_outbox *o, uint64_t id)
{
	longer *dropped = NULL;
	longer *l;
	bool complete = false;

	pthread_mutex_lock(&o->lock);
	for (l = o->longer; l != NULL; l = l->next)
		complete |= l->id == id && is_last(l->type);
	while (complete && (l = first_of(o, id)) != NULL)
	{
		unlink_longer(o, l);
		l->next = dropped;
		dropped = l;
	}
	pthread_mutex_unlock(&o->lock);
	while ((l = dropped) != NULL)
	{
		dropped = l->next;
		discard(o, l);
	}
	return complete;
}

bool
m1_outbox_pause(m1_outbox *o, uint64_t id, bool paused)
{
	bool complete = false;

	pthread_mutex_lock(&o->lock);
	for (longer *l = o->longer; l != NULL; l = l->next)
	{
		if (l->id != id)
			continue;
		l->paused = paused;
		complete |= is_last(l->type);
	}
	pthread_mutex_unlock(&o->lock);
	return complete;
}
