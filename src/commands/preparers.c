/* preparers.c - see preparers.h. */
#define _GNU_SOURCE /* gettid */
#include "commands/preparers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SHORT_BYTES 16384	 /* of a payload: what is longer goes into the long lane */
#define LONG_BYTES (1 << 20) /* of memory that takes time to be freed */
#define LANE_THREADS 16
#define LONG_NICE 10

/* Tasks that wait, first come, first served, and those that run. Those without a type are only to be freed. */
typedef struct lane
{
	m1_preparers *all;
	int nice;
	pthread_cond_t arrived;
	m1_task *waiting;
	m1_task *running;
	int threads;
	int idle; /* of them */
} lane;

struct m1_preparers
{
	m1_preparer preparer;
	pthread_mutex_t lock; /* of the lanes */
	lane brief, lengthy;
};

static void
init_lane(m1_preparers *p, lane *l, int nice)
{
	l->all = p;
	l->nice = nice;
	pthread_cond_init(&l->arrived, NULL);
}

m1_preparers *
m1_preparers_create(const m1_preparer *preparer)
{
	m1_preparers *p = calloc(1, sizeof *p);

	if (p == NULL)
		return NULL;
	p->preparer = *preparer;
	pthread_mutex_init(&p->lock, NULL);
	init_lane(p, &p->brief, 0);
	init_lane(p, &p->lengthy, LONG_NICE);
	return p;
}

/* ---- lists ---- */

static void
append(m1_task **list, m1_task *task)
{
	while (*list != NULL)
		list = &(*list)->next;
	task->next = NULL;
	*list = task;
}

/* Where the list has the task, or its end. */
static m1_task **
find(m1_task **list, uint64_t id)
{
	while (*list != NULL && (*list)->id != id)
		list = &(*list)->next;
	return list;
}

static m1_task *
take(m1_task **at)
{
	m1_task *task = *at;

	*at = task->next;
	return task;
}

static void
free_task(m1_task *task)
{
	m1_buf_free(&task->payload);
	free(task);
}

/* ---- the threads ---- */

/* Under the lock, which is given up meanwhile. */
static void
run(lane *l, m1_task *task)
{
	m1_preparers *p = l->all;
	bool cancelled;

	if (task->type == 0)
	{
		pthread_mutex_unlock(&p->lock);
		free_task(task);
		pthread_mutex_lock(&p->lock);
		return;
	}
	append(&l->running, task);
	pthread_mutex_unlock(&p->lock);
	p->preparer.prepare(p->preparer.context, task);
	pthread_mutex_lock(&p->lock);
	take(find(&l->running, task->id));
	cancelled = atomic_load(&task->work.cancelled);
	pthread_mutex_unlock(&p->lock);
	/* whoever cancelled it before it was off the list has left it to this thread, whoever does later knows better */
	if (cancelled)
		p->preparer.cancelled(p->preparer.context, task->id);
	free_task(task);
	pthread_mutex_lock(&p->lock);
}

static void *
lane_main(void *arg)
{
	lane *l = arg;

	/* on Linux, of this thread alone; without it, the lane is no worse than the other */
	if (l->nice > 0)
		(void) setpriority(PRIO_PROCESS, (id_t) gettid(), l->nice);
	pthread_mutex_lock(&l->all->lock);
	for (;;)
	{
		while (l->waiting == NULL)
		{
			l->idle++;
			pthread_cond_wait(&l->arrived, &l->all->lock);
			l->idle--;
		}
		run(l, take(&l->waiting));
	}
	return NULL;
}

/* One thread more, if all are busy and there may be. false: there is none at all. */
static bool
staff(lane *l)
{
	pthread_t thread;

	if (l->idle == 0 && l->threads < LANE_THREADS && pthread_create(&thread, NULL, lane_main, l) == 0)
	{
		pthread_detach(thread);
		l->threads++;
	}
	return l->threads > 0;
}

/* ---- adding and cancelling ---- */

/* Has the payload then. NULL: there is no memory. */
static m1_task *
new_task(m1w_type type, uint64_t id, m1_buf *payload)
{
	m1_task *task = calloc(1, sizeof *task);

	if (task == NULL)
		return NULL;
	task->type = type;
	task->id = id;
	m1_work_init(&task->work, M1_WORK_UNBOUNDED);
	task->payload = *payload;
	*payload = (m1_buf){0};
	return task;
}

/* false: no thread can be had for it. */
static bool
enter(m1_preparers *p, lane *l, m1_task *task)
{
	bool staffed;

	pthread_mutex_lock(&p->lock);
	if ((staffed = staff(l)))
	{
		append(&l->waiting, task);
		pthread_cond_signal(&l->arrived);
	}
	pthread_mutex_unlock(&p->lock);
	return staffed;
}

m1_status
m1_preparers_add(m1_preparers *p, m1w_type type, uint64_t id, m1_buf *payload, m1_error *err)
{
	const size_t len = payload->len;
	m1_task *task = payload->failed ? NULL : new_task(type, id, payload);

	if (task == NULL)
	{
		m1_buf_free(payload);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a request of %zu bytes", len);
	}
	if (enter(p, len > SHORT_BYTES ? &p->lengthy : &p->brief, task))
		return M1_OK;
	free_task(task);
	return m1_fail(err, M1_E_NO_MEMORY, "no thread could be started for the request");
}

void
m1_preparers_discard(m1_preparers *p, m1_buf *payload)
{
	m1_task *task = payload->cap + payload->consumed < LONG_BYTES ? NULL : new_task(0, 0, payload);

	if (task == NULL)
		m1_buf_free(payload);
	else if (!enter(p, &p->lengthy, task))
		free_task(task);
}

static m1_cancelled
cancel_in(lane *l, uint64_t id)
{
	m1_task **at = find(&l->waiting, id);

	if (*at != NULL)
	{
		/* it stays in the line, for its thread to free */
		(*at)->type = 0;
		(*at)->id = 0;
		return M1_CANCEL_DROPPED;
	}
	if (*(at = find(&l->running, id)) == NULL)
		return M1_CANCEL_UNKNOWN;
	m1_work_cancel(&(*at)->work);
	return M1_CANCEL_RUNNING;
}

m1_cancelled
m1_preparers_cancel(m1_preparers *p, uint64_t id)
{
	m1_cancelled what;

	pthread_mutex_lock(&p->lock);
	if ((what = cancel_in(&p->brief, id)) == M1_CANCEL_UNKNOWN)
		what = cancel_in(&p->lengthy, id);
	pthread_mutex_unlock(&p->lock);
	return what;
}
