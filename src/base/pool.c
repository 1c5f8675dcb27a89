/*
 * pool.c - see pool.h.
 *
 * A loop's pieces are dealt out in equal runs, one to each worker, who takes them in order; who is done with its own
 * run takes from the others'. So each worker reads one stretch of memory, the same one whenever a loop over the same
 * number of pieces comes again, and a worker that was not scheduled delays nothing.
 *
 * The open loop is described by fn, arg and runs. A helper announces itself in `inside` before it looks at `open`; the
 * caller clears `open` before it waits for `inside` to reach zero. Both use sequentially consistent operations, so
 * either the helper sees the loop closed or the caller sees the helper inside: the description is never changed under a
 * helper's eyes.
 */
#define _GNU_SOURCE /* sched_getaffinity, syscall */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long an idle helper polls for the next loop before it sleeps: longer than the gap between two
 * operations of a forward pass, far shorter than anyone would notice as load. */
#define SPINS_BEFORE_SLEEP 4000

typedef struct helper
{
	m1_pool *pool;
	pthread_t thread;
	int worker;
} helper;

/* Pieces [next, end) of a loop are still to be taken. */
typedef struct run
{
	_Alignas(64) atomic_int next; /* may go beyond end */
	int end;
} run;

struct m1_pool
{
	m1_pool_fn fn;
	void *arg;
	run *runs; /* [n_helpers + 1] */
	unsigned loops;

	_Alignas(64) atomic_uint open;	/* the number of the loop that takes helpers, or 0 */
	_Alignas(64) atomic_int inside; /* helpers that may be looking at the loop */
	_Alignas(64) atomic_uint bell;	/* futex word: rung for each loop while someone sleeps */
	atomic_int sleepers;
	atomic_bool quit;

	int n_helpers;
	helper *helpers;
};

static inline void
relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

static void
futex_wait(atomic_uint *word, unsigned expected)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void
futex_wake_all(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void
take_pieces(m1_pool *pool, int worker)
{
	const int n = pool->n_helpers + 1;

	for (int i = 0; i < n; i++)
	{
		run *r = &pool->runs[(worker + i) % n];
		int piece;

		while ((piece = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed)) < r->end)
			pool->fn(pool->arg, piece, worker);
	}
}

/* Joins the open loop, if there is one; returns its number. Afterwards all its pieces are taken. */
static unsigned
visit(m1_pool *pool, int worker)
{
	unsigned loop;

	atomic_fetch_add(&pool->inside, 1);
	loop = atomic_load(&pool->open);
	if (loop != 0)
		take_pieces(pool, worker);
	atomic_fetch_sub(&pool->inside, 1);
	return loop;
}

/* Waits for a loop other than the one that was visited last; false when the pool ends. */
static bool
wait_for_loop(m1_pool *pool, unsigned last)
{
	for (int spin = 0; spin < SPINS_BEFORE_SLEEP; spin++)
	{
		unsigned loop = atomic_load_explicit(&pool->open, memory_order_relaxed);

		if (atomic_load_explicit(&pool->quit, memory_order_relaxed))
			return false;
		if (loop != 0 && loop != last)
			return true;
		relax();
	}

	unsigned rung = atomic_load(&pool->bell);

	atomic_fetch_add(&pool->sleepers, 1);
	if (!atomic_load(&pool->open) && !atomic_load(&pool->quit))
		futex_wait(&pool->bell, rung);
	atomic_fetch_sub(&pool->sleepers, 1);
	return !atomic_load(&pool->quit);
}

static void *
helper_main(void *arg)
{
	helper *self = arg;
	unsigned last = 0;

	while (wait_for_loop(self->pool, last))
		last = visit(self->pool, self->worker);
	return NULL;
}

static void
ring(m1_pool *pool)
{
	if (atomic_load(&pool->sleepers) > 0)
	{
		atomic_fetch_add(&pool->bell, 1);
		futex_wake_all(&pool->bell);
	}
}

static void
deal_out(m1_pool *pool, int pieces)
{
	const int64_t n = pool->n_helpers + 1;

	for (int64_t i = 0; i < n; i++)
	{
		atomic_store_explicit(&pool->runs[i].next, (int) (i * pieces / n), memory_order_relaxed);
		pool->runs[i].end = (int) ((i + 1) * pieces / n);
	}
}

void
m1_pool_run(m1_pool *pool, int pieces, m1_pool_fn fn, void *arg)
{
	if (pool->n_helpers == 0 || pieces <= 1)
	{
		for (int i = 0; i < pieces; i++)
			fn(arg, i, 0);
		return;
	}
	pool->fn = fn;
	pool->arg = arg;
	deal_out(pool, pieces);
	if (++pool->loops == 0)
		pool->loops = 1;
	atomic_store(&pool->open, pool->loops);
	ring(pool);
	take_pieces(pool, 0);
	atomic_store(&pool->open, 0);
	while (atomic_load(&pool->inside) != 0)
		relax();
}

static int
cores_available(void)
{
	cpu_set_t set;
	int n;

	if (sched_getaffinity(0, sizeof set, &set) == 0 && (n = CPU_COUNT(&set)) > 0)
		return n;
	return 1;
}

int
m1_pool_size(const m1_pool *pool)
{
	return pool->n_helpers + 1;
}

m1_status
m1_pool_create(int threads, m1_pool **out, m1_error *err)
{
	m1_pool *pool;

	*out = NULL;
	if (threads < 0 || threads > 1024)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "number of threads must be between 0 and 1024, not %d", threads);
	if (threads == 0)
		threads = cores_available();
	if ((pool = aligned_alloc(64, sizeof *pool)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the thread pool");
	*pool = (m1_pool){0};
	pool->runs = aligned_alloc(64, (size_t) threads * sizeof *pool->runs);
	if (pool->runs == NULL ||
		(threads > 1 && (pool->helpers = calloc((size_t) threads - 1, sizeof *pool->helpers)) == NULL))
	{
		free(pool->runs);
		free(pool);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the thread pool");
	}
	memset(pool->runs, 0, (size_t) threads * sizeof *pool->runs);
	for (int i = 0; i < threads - 1; i++)
	{
		helper *h = &pool->helpers[i];

		h->pool = pool;
		h->worker = i + 1;
		if (pthread_create(&h->thread, NULL, helper_main, h) != 0)
		{
			m1_pool_free(pool);
			return m1_fail(err, M1_E_NO_MEMORY, "could not start thread %d of %d", i + 2, threads);
		}
		pool->n_helpers++;
	}
	*out = pool;
	return M1_OK;
}

void
m1_pool_free(m1_pool *pool)
{
	if (pool == NULL)
		return;
	atomic_store(&pool->quit, true);
	atomic_fetch_add(&pool->bell, 1);
	futex_wake_all(&pool->bell);
	for (int i = 0; i < pool->n_helpers; i++)
		pthread_join(pool->helpers[i].thread, NULL);
	free(pool->helpers);
	free(pool->runs);
	free(pool);
}
