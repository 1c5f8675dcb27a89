/*
 * latency.h - a histogram of how long requests took.
 *
 * A plain struct of fixed size, so that it can live in shared memory; zero-initialised is valid and empty. The caller
 * does the locking.
 */
#ifndef M1_BASE_LATENCY_H
#define M1_BASE_LATENCY_H

#include <stdint.h>

#define M1_LATENCY_BOUNDS 20

/* In seconds, rising: those that dashboards for vLLM have. */
extern const double m1_latency_bounds[M1_LATENCY_BOUNDS];

typedef struct m1_latency
{
	int64_t counts[M1_LATENCY_BOUNDS + 1]; /* that took at most as long as a bound, and longer than the one before it */
	double seconds;						   /* all together */
} m1_latency;

void m1_latency_add(m1_latency *l, double seconds);

#endif
