/*
 * hour.h - how much was used within the last hour: a sliding window of minutes.
 *
 * A plain struct of fixed size, so that it can live in shared memory and in a file; zero-initialised is valid and
 * empty. The caller does the locking and tells the time, in minutes since any epoch. The minute that is under way and
 * the 60 before it count, so never more than a limit fits into any 60 minutes, wherever they begin.
 */
#ifndef M1_BASE_HOUR_H
#define M1_BASE_HOUR_H

#include <stdint.h>

#define M1_HOUR_SLOTS 61

typedef struct m1_hour
{
	int64_t minute;				 /* the latest one that anything was added in */
	int64_t used[M1_HOUR_SLOTS]; /* of minute m in [m % M1_HOUR_SLOTS] */
} m1_hour;

void m1_hour_add(m1_hour *h, int64_t minute, int64_t n);
int64_t m1_hour_used(const m1_hour *h, int64_t minute);
/*
 * How many minutes after `minute` at most `most` will be used if nothing is added: 0 = it is so now. -1 = never,
 * for a `most` below 0.
 */
int m1_hour_wait(const m1_hour *h, int64_t minute, int64_t most);

#endif
