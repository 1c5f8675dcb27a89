/*
 * pool.h - a fixed set of threads that share one loop at a time.
 *
 * The calling thread works too. A thread that the operating system has not scheduled never holds up a loop: the caller
 * takes the remaining pieces itself and waits only for threads that have already begun one. That matters here because
 * the engine shares its cores with PostgreSQL.
 */
#ifndef M1_BASE_POOL_H
#define M1_BASE_POOL_H

#include "base/status.h"

typedef struct m1_pool m1_pool;

/* One piece of a loop; worker is in [0, m1_pool_size()) and unique among pieces that run at the same time. */
typedef void (*m1_pool_fn)(void *arg, int piece, int worker);

/* threads >= 1 counts the caller; 0 means one per core this process may use. */
m1_status m1_pool_create(int threads, m1_pool **out, m1_error *err);
void m1_pool_free(m1_pool *pool);
int m1_pool_size(const m1_pool *pool);

/*
 * Calls fn(arg, i, worker) once for each i in [0, pieces), in any order, and returns when all are done.
 * Not reentrant: one loop at a time, always from the same thread.
 */
void m1_pool_run(m1_pool *pool, int pieces, m1_pool_fn fn, void *arg);

#endif
