/*
 * work.h - work that somebody has asked for: whether it is still wanted, and how much of it there may be.
 *
 * One thread works and asks now and then, at least every few milliseconds, whether to go on; any thread may cancel.
 * What is counted are units of the worker's choice, so that a bound does not depend on the machine's speed. Functions
 * that take a work allow NULL: wanted for ever, and without a bound.
 */
#ifndef M1_BASE_WORK_H
#define M1_BASE_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct m1_work
{
	atomic_bool cancelled;
	bool exhausted;
	size_t left; /* units */
} m1_work;

#define M1_WORK_UNBOUNDED ((size_t) -1)

/* Work may also be done in turns of so many units, between which others have theirs; this is one turn for all of it. */
#define M1_NO_TURN INT64_MAX

/* most: the units that may be done; M1_WORK_UNBOUNDED for any number. */
static inline void
m1_work_init(m1_work *w, size_t most)
{
	atomic_init(&w->cancelled, false);
	w->exhausted = false;
	w->left = most;
}

static inline void
m1_work_cancel(m1_work *w)
{
	atomic_store_explicit(&w->cancelled, true, memory_order_relaxed);
}

/* Before so many units are done. false: they are not to be, and m1_work_stopped tells why. */
static inline bool
m1_work_goes_on(m1_work *w, size_t units)
{
	if (w == NULL)
		return true;
	if (w->left != M1_WORK_UNBOUNDED)
	{
		w->exhausted |= units > w->left;
		w->left -= units > w->left ? w->left : units;
	}
	return !w->exhausted && !atomic_load_explicit(&w->cancelled, memory_order_relaxed);
}

/* The error of a work that does not go on: M1_E_CANCELLED, or M1_E_UNSUPPORTED for `what`, which takes too long. */
m1_status m1_work_stopped(const m1_work *w, const char *what, m1_error *err);

#endif
