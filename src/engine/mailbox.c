/* mailbox.c - see mailbox.h. */
#define _POSIX_C_SOURCE 200809L /* pthread */
#include "engine/mailbox.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

void
m1_mailbox_init(m1_mailbox *b)
{
	b->first = NULL;
	b->last = &b->first;
	pthread_condattr_t clock;

	pthread_mutex_init(&b->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC); /* of m1_now_ms */
	pthread_cond_init(&b->arrived, &clock);
	pthread_condattr_destroy(&clock);
}

void
m1_mailbox_free(m1_mailbox *b)
{
	m1_mail *next;

	for (m1_mail *m = b->first; m != NULL; m = next)
	{
		next = m->next;
		m1_request_free(m->request);
		m1_learn_request_free(m->learn);
		free(m);
	}
	pthread_cond_destroy(&b->arrived);
	pthread_mutex_destroy(&b->lock);
}

static bool
post(m1_mailbox *b, m1_mail mail)
{
	m1_mail *m = calloc(1, sizeof *m);

	if (m == NULL)
		return false;
	*m = mail;
	pthread_mutex_lock(&b->lock);
	*b->last = m;
	b->last = &m->next;
	pthread_cond_signal(&b->arrived);
	pthread_mutex_unlock(&b->lock);
	return true;
}

bool
m1_mailbox_post(m1_mailbox *b, m1_mail_kind kind, uint64_t id, m1_request *request)
{
	return post(b, (m1_mail){.kind = kind, .id = id, .request = request});
}

bool
m1_mailbox_post_learn(m1_mailbox *b, m1_learn_request *learn)
{
	return post(b, (m1_mail){.kind = M1_MAIL_LEARN, .id = learn->id, .learn = learn});
}

static struct timespec
time_of(double ms)
{
	const time_t seconds = (time_t) (ms / 1000.0);

	return (struct timespec){.tv_sec = seconds, .tv_nsec = (long) ((ms - (double) seconds * 1000.0) * 1e6)};
}

void
m1_mailbox_wait(m1_mailbox *b, double ms)
{
	const struct timespec end = time_of(m1_now_ms() + (ms > 0.0 ? ms : 0.0));
	int status = 0;

	pthread_mutex_lock(&b->lock);
	while (b->first == NULL && status == 0)
		status =
			ms < 0.0 ? pthread_cond_wait(&b->arrived, &b->lock) : pthread_cond_timedwait(&b->arrived, &b->lock, &end);
	pthread_mutex_unlock(&b->lock);
}

m1_mail *
m1_mailbox_take(m1_mailbox *b)
{
	m1_mail *first;

	pthread_mutex_lock(&b->lock);
	first = b->first;
	b->first = NULL;
	b->last = &b->first;
	pthread_mutex_unlock(&b->lock);
	return first;
}
