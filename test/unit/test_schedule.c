/* test_schedule.c - learning rates of a warm-up, a constant part and a decay, worked out by hand. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "train/schedule.h"

static void
assert_rate(const m1_schedule *s, uint64_t step, double wanted)
{
	const double rate = m1_schedule_rate(s, step);

	if (fabs(rate - wanted) > 1e-12 * wanted)
		fail_msg("step %llu: %.17g instead of %.17g", (unsigned long long) step, rate, wanted);
}

static void
test_shapes(void **state)
{
	/* 4 steps of warm-up, 8 constant ones, 8 of decay */
	m1_schedule s = {
		.rate = 8e-5, .last = 8e-6, .steps = 20, .warmup_steps = 4, .decay_steps = 8, .decay = M1_DECAY_LINEAR};
	m1_error err;

	(void) state;
	assert_ok(m1_schedule_check(&s, &err));
	assert_rate(&s, 0, 2e-5);
	assert_rate(&s, 2, 6e-5);
	assert_rate(&s, 3, 8e-5);
	assert_rate(&s, 11, 8e-5);
	assert_rate(&s, 12, 7.1e-5); /* an eighth of the way */
	assert_rate(&s, 15, 4.4e-5); /* half of it */
	assert_rate(&s, 19, 8e-6);
	assert_rate(&s, 1000, 8e-6);

	s.decay = M1_DECAY_EXPONENTIAL;
	assert_rate(&s, 11, 8e-5);
	assert_rate(&s, 15, 8e-5 * sqrt(0.1));
	assert_rate(&s, 19, 8e-6);

	s.decay = M1_DECAY_COSINE;
	assert_rate(&s, 13, 8e-6 + 7.2e-5 * 0.5 * (1.0 + sqrt(0.5)));
	assert_rate(&s, 15, 4.4e-5);
	assert_rate(&s, 19, 8e-6);

	s.decay_steps = 0; /* all 16 after the warm-up */
	assert_rate(&s, 3, 8e-5);
	assert_rate(&s, 11, 4.4e-5);
	assert_rate(&s, 19, 8e-6);

	s.decay = M1_DECAY_NONE;
	assert_rate(&s, 1, 4e-5);
	assert_rate(&s, 19, 8e-5);
	s.warmup_steps = 0;
	assert_rate(&s, 0, 8e-5);
}

static void
test_impossible(void **state)
{
	const m1_schedule fine = {.rate = 1e-3, .last = 1e-4, .steps = 10, .decay = M1_DECAY_EXPONENTIAL};
	m1_schedule bad[8];
	m1_decay decay;
	m1_error err;

	(void) state;
	assert_ok(m1_schedule_check(&fine, &err));
	for (int i = 0; i < 8; i++)
		bad[i] = fine;
	bad[0].rate = 0.0;
	bad[1].rate = NAN;
	bad[2].last = -1.0;
	bad[3].last = 0.0;
	bad[4].steps = 0;
	bad[5].warmup_steps = 11;
	bad[6].warmup_steps = 5;
	bad[6].decay_steps = 6;
	bad[7].rate = INFINITY;
	for (int i = 0; i < 8; i++)
		assert_int_equal(m1_schedule_check(&bad[i], &err), M1_E_INVALID_ARGUMENT);
	assert_true(m1_decay_parse("cosine", &decay) && decay == M1_DECAY_COSINE);
	assert_false(m1_decay_parse("quadratic", &decay));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_impossible)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
