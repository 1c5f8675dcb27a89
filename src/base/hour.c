/* hour.c - see hour.h. */
#include "base/hour.h"

#include <string.h>

static int
slot_of(int64_t minute)
{
	return (int) (((minute % M1_HOUR_SLOTS) + M1_HOUR_SLOTS) % M1_HOUR_SLOTS);
}

/* The minute that stands in slot i: the last one up to h->minute that belongs there. */
static int64_t
minute_of(const m1_hour *h, int i)
{
	return h->minute - (slot_of(h->minute) - i + M1_HOUR_SLOTS) % M1_HOUR_SLOTS;
}

/*
 * A clock that was set back a little stands still here until it has caught up. After a large step back that would
 * take too long: what was used is then taken to have been used just now.
 */
static int64_t
not_before(const m1_hour *h, int64_t minute)
{
	return minute < h->minute && minute > h->minute - M1_HOUR_SLOTS ? h->minute : minute;
}

static void
step_back(m1_hour *h, int64_t minute)
{
	int64_t sum = 0;

	for (int i = 0; i < M1_HOUR_SLOTS; i++)
		sum += h->used[i];
	memset(h, 0, sizeof *h);
	h->minute = minute;
	h->used[slot_of(minute)] = sum;
}

void
m1_hour_add(m1_hour *h, int64_t minute, int64_t n)
{
	minute = not_before(h, minute);
	if (minute < h->minute)
		step_back(h, minute);
	if (minute - h->minute >= M1_HOUR_SLOTS)
		memset(h->used, 0, sizeof h->used);
	else
		for (int64_t m = h->minute + 1; m <= minute; m++)
			h->used[slot_of(m)] = 0;
	h->minute = minute;
	h->used[slot_of(minute)] += n;
}

int64_t
m1_hour_used(const m1_hour *h, int64_t minute)
{
	int64_t sum = 0;

	minute = not_before(h, minute);
	for (int i = 0; i < M1_HOUR_SLOTS; i++)
		if (minute < h->minute || minute_of(h, i) > minute - M1_HOUR_SLOTS)
			sum += h->used[i];
	return sum;
}

int
m1_hour_wait(const m1_hour *h, int64_t minute, int64_t most)
{
	m1_hour copy = *h;
	const int64_t now = not_before(h, minute);

	if (most < 0)
		return -1;
	m1_hour_add(&copy, now, 0);
	for (int wait = 0; wait < M1_HOUR_SLOTS; wait++)
		if (m1_hour_used(&copy, now + wait) <= most)
			return wait + (int) (now - minute);
	return M1_HOUR_SLOTS + (int) (now - minute);
}
