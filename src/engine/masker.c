/* masker.c - see masker.h. Known masks are copied by the caller itself: that takes no longer than waking a thread. */
#define _POSIX_C_SOURCE 200809L /* pthread */
#include "engine/masker.h"

#include <pthread.h>
#include <stdlib.h>

/* What may be done in one step, in turns as long as an ordinary mask takes. */
#define STEP_TURNS 4

struct m1_masker
{
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	m1_request **requests; /* [max_requests] */
	int n;				   /* that are to be done; the thread sets it to 0 when they are */
	bool quit;
	uint64_t turns; /* so far, of all requests */
};

/* Whose turn it is: who had none for the longest time. NULL: all masks are done. */
static m1_request *
next_request(const m1_masker *m)
{
	m1_request *next = NULL;

	for (int i = 0; i < m->n; i++)
		if (!m->requests[i]->mask_done && (next == NULL || m->requests[i]->mask_turn < next->mask_turn))
			next = m->requests[i];
	return next;
}

/* A turn that is begun is a whole one: less may lead to nothing. What it does not take is for others. */
static void
do_turns(m1_masker *m)
{
	const int64_t one = m1_cursor_ordinary_work(m->requests[0]->cursor);
	int64_t left = STEP_TURNS * one;
	m1_request *r;

	while (left >= one && (r = next_request(m)) != NULL)
	{
		int64_t turn = one;

		r->mask_turn = ++m->turns;
		m1_request_fill_mask(r, &turn);
		left -= one - turn;
	}
}

static void *
masker_main(void *arg)
{
	m1_masker *m = arg;

	pthread_mutex_lock(&m->lock);
	for (;;)
	{
		while (m->n == 0 && !m->quit)
			pthread_cond_wait(&m->changed, &m->lock);
		if (m->quit)
			break;
		pthread_mutex_unlock(&m->lock);
		do_turns(m);
		pthread_mutex_lock(&m->lock);
		m->n = 0;
		pthread_cond_broadcast(&m->changed);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

m1_status
m1_masker_create(int max_requests, m1_masker **out, m1_error *err)
{
	m1_masker *m = calloc(1, sizeof *m);

	*out = NULL;
	if (m == NULL || (m->requests = calloc((size_t) max_requests, sizeof *m->requests)) == NULL)
	{
		free(m);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the masks");
	}
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	if (pthread_create(&m->thread, NULL, masker_main, m) != 0)
	{
		pthread_cond_destroy(&m->changed);
		pthread_mutex_destroy(&m->lock);
		free(m->requests);
		free(m);
		return m1_fail(err, M1_E_NO_MEMORY, "could not start the thread that makes masks");
	}
	*out = m;
	return M1_OK;
}

void
m1_masker_free(m1_masker *m)
{
	if (m == NULL)
		return;
	pthread_mutex_lock(&m->lock);
	m->quit = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m->requests);
	free(m);
}

void
m1_masker_start(m1_masker *m, m1_request *const *requests, int n)
{
	int unknown = 0;

	for (int i = 0; i < n; i++)
		if (requests[i]->cursor != NULL && !m1_request_known_mask(requests[i]))
			m->requests[unknown++] = requests[i];
	if (unknown == 0)
		return;
	pthread_mutex_lock(&m->lock);
	m->n = unknown;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

void
m1_masker_wait(m1_masker *m)
{
	pthread_mutex_lock(&m->lock);
	while (m->n > 0)
		pthread_cond_wait(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}
