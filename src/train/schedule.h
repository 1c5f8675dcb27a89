/*
 * schedule.h - the learning rate of every step: it warms up linearly, stays, and decays. MiniMax-M1's was 8e-5,
 * constant and then decayed to 8e-6.
 *
 * Stateless; any thread.
 */
#ifndef M1_TRAIN_SCHEDULE_H
#define M1_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* How it decays. */
typedef enum m1_decay
{
	M1_DECAY_NONE,
	M1_DECAY_LINEAR,
	M1_DECAY_EXPONENTIAL,
	M1_DECAY_COSINE,
} m1_decay;

typedef struct m1_schedule
{
	double rate;	/* after the warm-up */
	double last;	/* of the last step; unless there is no decay */
	uint64_t steps; /* of all */
	uint64_t warmup_steps;
	uint64_t decay_steps; /* the last ones, in which it decays; 0: all after the warm-up */
	m1_decay decay;
} m1_schedule;

/* "none", "linear", "exponential", "cosine"; false when there is no such decay */
bool m1_decay_parse(const char *name, m1_decay *decay);

/* The error names the value that is impossible. */
m1_status m1_schedule_check(const m1_schedule *s, m1_error *err);

/* Of step 0, 1, ... Beyond the last step it stays. */
double m1_schedule_rate(const m1_schedule *s, uint64_t step);

#endif
