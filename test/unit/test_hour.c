/*
 * test_hour.c - the window of an hour against a plain list of what was used when, whatever the clock does.
 */
#include "testing.h"

#include <string.h>

#include "base/hour.h"

/* 2026-01-01 00:00 UTC, say; what matters is that it is large. */
#define START 29400000

static void
test_empty(void **state)
{
	m1_hour h = {0};

	(void) state;
	assert_int_equal(m1_hour_used(&h, START), 0);
	assert_int_equal(m1_hour_wait(&h, START, 0), 0);
	assert_int_equal(m1_hour_wait(&h, START, -1), -1);
	m1_hour_add(&h, START, 0);
	assert_int_equal(m1_hour_used(&h, START), 0);
}

static void
test_an_hour_passes(void **state)
{
	m1_hour h = {0};

	(void) state;
	m1_hour_add(&h, START, 100);
	m1_hour_add(&h, START + 30, 10);
	for (int m = 30; m <= 60; m++)
		assert_int_equal(m1_hour_used(&h, START + m), 110);
	for (int m = 61; m <= 90; m++)
		assert_int_equal(m1_hour_used(&h, START + m), 10);
	assert_int_equal(m1_hour_used(&h, START + 91), 0);
	assert_int_equal(m1_hour_used(&h, START + 1000000), 0);
	/* reading changes nothing */
	assert_int_equal(m1_hour_used(&h, START + 30), 110);
}

static void
test_when_it_is_free(void **state)
{
	m1_hour h = {0};

	(void) state;
	m1_hour_add(&h, START, 100);
	m1_hour_add(&h, START + 30, 10);
	assert_int_equal(m1_hour_wait(&h, START + 30, 110), 0);
	assert_int_equal(m1_hour_wait(&h, START + 30, 109), 31);
	assert_int_equal(m1_hour_wait(&h, START + 30, 10), 31);
	assert_int_equal(m1_hour_wait(&h, START + 30, 9), 61);
	assert_int_equal(m1_hour_wait(&h, START + 60, 9), 31);
	assert_int_equal(m1_hour_wait(&h, START + 91, 0), 0);
}

/* A clock that jumps: nothing is forgotten that was used within the hour, nor is a role locked out for longer. */
static void
test_clock_set_back(void **state)
{
	m1_hour h = {0};

	(void) state;
	m1_hour_add(&h, START, 7);
	assert_int_equal(m1_hour_used(&h, START - 5), 7);
	m1_hour_add(&h, START - 5, 1);
	assert_int_equal(m1_hour_used(&h, START), 8);
	assert_int_equal(m1_hour_used(&h, START + 61), 0);
	assert_int_equal(m1_hour_wait(&h, START - 5, 0), 66);
	/* a year back */
	assert_int_equal(m1_hour_used(&h, START - 525600), 8);
	assert_int_equal(m1_hour_wait(&h, START - 525600, 0), 61);
	m1_hour_add(&h, START - 525600, 2);
	assert_int_equal(m1_hour_used(&h, START - 525600), 10);
	assert_int_equal(m1_hour_used(&h, START - 525600 + 61), 0);
}

static void
test_negative_time(void **state)
{
	m1_hour h = {0};

	(void) state;
	m1_hour_add(&h, -1000, 5);
	m1_hour_add(&h, -999, 5);
	assert_int_equal(m1_hour_used(&h, -940), 10);
	assert_int_equal(m1_hour_used(&h, -939), 5);
	assert_int_equal(m1_hour_used(&h, -938), 0);
}

/* Random uses at random times against the list of all of them. */
static void
test_against_a_list(void **state)
{
	enum
	{
		N = 4000
	};
	static int64_t at[N];
	static int64_t amount[N];
	uint64_t seed = 20260101;
	m1_hour h = {0};
	int64_t now = START;

	(void) state;
	for (int n = 0; n < N; n++)
	{
		int64_t want = 0;
		int64_t most;
		int wait;

		now += test_random(&seed) % 8 == 0 ? test_random(&seed) % 90 : test_random(&seed) % 3;
		at[n] = now;
		amount[n] = test_random(&seed) % 1000;
		m1_hour_add(&h, now, amount[n]);
		for (int i = 0; i <= n; i++)
			if (at[i] >= now - 60)
				want += amount[i];
		assert_int_equal(m1_hour_used(&h, now), want);
		most = want > 0 ? test_random(&seed) % (uint32_t) want : 0;
		wait = m1_hour_wait(&h, now, most);
		assert_in_range(wait, 0, 61);
		assert_true(m1_hour_used(&h, now + wait) <= most);
		if (wait > 0)
			assert_true(m1_hour_used(&h, now + wait - 1) > most);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),			cmocka_unit_test(test_an_hour_passes),
		cmocka_unit_test(test_when_it_is_free), cmocka_unit_test(test_clock_set_back),
		cmocka_unit_test(test_negative_time),	cmocka_unit_test(test_against_a_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
