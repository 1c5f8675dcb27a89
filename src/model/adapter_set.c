/* adapter_set.c - see adapter_set.h. */
#define _POSIX_C_SOURCE 200809L /* pthread */
#include "model/adapter_set.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct named
{
	struct named *next;
	int number;
	int users; /* under the lock, as is the next */
	bool dropped;
	bool lent;
	uint64_t used_at; /* when it was acquired or released last, by the set's clock */
	m1_adapter *adapter;
	size_t name_len;
	char name[];
} named;

struct m1_adapter_set
{
	pthread_mutex_t lock;
	named *list; /* changed by the step thread alone, under the lock */
	int last;	 /* number */
	uint64_t clock;
	bool unswept;
};

m1_adapter_set *
m1_adapter_set_create(void)
{
	m1_adapter_set *s = calloc(1, sizeof *s);

	if (s != NULL)
		pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void
free_named(named *n)
{
	m1_adapter_free(n->adapter);
	free(n);
}

void
m1_adapter_set_free(m1_adapter_set *s)
{
	named *next;

	for (named *n = s != NULL ? s->list : NULL; n != NULL; n = next)
	{
		next = n->next;
		free_named(n);
	}
	if (s != NULL)
		pthread_mutex_destroy(&s->lock);
	free(s);
}

/* The one of that name that is not dropped. */
static named *
find(const m1_adapter_set *s, m1_slice name)
{
	for (named *n = s->list; n != NULL; n = n->next)
		if (!n->dropped && n->name_len == name.len && memcmp(n->name, name.data, name.len) == 0)
			return n;
	return NULL;
}

static named *
numbered(const m1_adapter_set *s, int number)
{
	named *n = s->list;

	while (n != NULL && n->number != number)
		n = n->next;
	return n;
}

/* ---- the step thread ---- */

m1_status
m1_adapter_set_add(m1_adapter_set *s, m1_slice name, m1_adapter *adapter, m1_error *err)
{
	named *n;

	if (find(s, name) != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "there are two adapters of the name \"%.*s\"",
					   (int) (name.len < 60 ? name.len : 60), name.data);
	if ((n = calloc(1, sizeof *n + name.len)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	n->adapter = adapter;
	n->name_len = name.len;
	memcpy(n->name, name.data, name.len);
	pthread_mutex_lock(&s->lock);
	n->number = ++s->last;
	n->used_at = ++s->clock;
	n->next = s->list;
	s->list = n;
	pthread_mutex_unlock(&s->lock);
	return M1_OK;
}

bool
m1_adapter_set_drop(m1_adapter_set *s, m1_slice name)
{
	named *n;

	pthread_mutex_lock(&s->lock);
	if ((n = find(s, name)) != NULL)
		n->dropped = s->unswept = true;
	pthread_mutex_unlock(&s->lock);
	m1_adapter_set_sweep(s);
	return n != NULL;
}

void
m1_adapter_set_sweep(m1_adapter_set *s)
{
	pthread_mutex_lock(&s->lock);
	if (s->unswept)
	{
		s->unswept = false;
		for (named **at = &s->list; *at != NULL;)
		{
			named *n = *at;

			if (n->dropped && n->users == 0)
			{
				*at = n->next;
				free_named(n);
				continue;
			}
			s->unswept = s->unswept || n->dropped;
			at = &n->next;
		}
	}
	pthread_mutex_unlock(&s->lock);
}

void
m1_adapter_set_lend(m1_adapter_set *s, m1_slice name)
{
	named *n;

	pthread_mutex_lock(&s->lock);
	if ((n = find(s, name)) != NULL)
		n->lent = true;
	pthread_mutex_unlock(&s->lock);
}

/* Under the lock. */
static named *
least_recently_used(const m1_adapter_set *s)
{
	named *least = NULL;

	for (named *n = s->list; n != NULL; n = n->next)
		if (n->lent && !n->dropped && n->users == 0 && (least == NULL || n->used_at < least->used_at))
			least = n;
	return least;
}

bool
m1_adapter_set_give_up(m1_adapter_set *s)
{
	named *n;

	pthread_mutex_lock(&s->lock);
	if ((n = least_recently_used(s)) != NULL)
		n->dropped = s->unswept = true;
	pthread_mutex_unlock(&s->lock);
	m1_adapter_set_sweep(s);
	return n != NULL;
}

const m1_adapter *
m1_adapter_set_get(const m1_adapter_set *s, int number)
{
	const named *n = number > 0 ? numbered(s, number) : NULL;

	return n != NULL ? n->adapter : NULL;
}

size_t
m1_adapter_set_bytes(const m1_adapter_set *s)
{
	size_t bytes = 0;

	for (const named *n = s->list; n != NULL; n = n->next)
		bytes += m1_adapter_bytes(n->adapter);
	return bytes;
}

int
m1_adapter_set_max_rank(const m1_adapter_set *s)
{
	int most = 0;

	for (const named *n = s->list; n != NULL; n = n->next)
		most = m1_adapter_max_rank(n->adapter) > most ? m1_adapter_max_rank(n->adapter) : most;
	return most;
}

/* ---- any thread ---- */

int
m1_adapter_set_count(m1_adapter_set *s)
{
	int count = 0;

	pthread_mutex_lock(&s->lock);
	for (const named *n = s->list; n != NULL; n = n->next)
		count += !n->dropped;
	pthread_mutex_unlock(&s->lock);
	return count;
}

int
m1_adapter_set_acquire(m1_adapter_set *s, m1_slice name)
{
	int number = 0;
	named *n;

	pthread_mutex_lock(&s->lock);
	if ((n = find(s, name)) != NULL)
	{
		n->users++;
		n->used_at = ++s->clock;
		number = n->number;
	}
	pthread_mutex_unlock(&s->lock);
	return number;
}

void
m1_adapter_set_release(m1_adapter_set *s, int number)
{
	named *n;

	if (number == 0)
		return;
	pthread_mutex_lock(&s->lock);
	n = numbered(s, number);
	n->users--;
	n->used_at = ++s->clock;
	pthread_mutex_unlock(&s->lock);
}
