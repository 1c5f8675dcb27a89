/*
 * test_share.c - the ledger of what trainings take of the time beside others: a share of it and no more, whatever steps
 * take on a device; both kinds of work get on; what nobody wanted is nobody's debt. Times are as the tests say.
 */
#include "testing.h"

#include "engine/share.h"

#define SHARE 0.3
#define PIECE_MS 20.0

/* Of so many tokens; a CPU's grow with them, and a GPU's hardly do. */
typedef double (*step_ms)(int tokens);

static double
cpu_ms(int tokens)
{
	return 0.2 * tokens;
}

static double
gpu_ms(int tokens)
{
	return 25.0 + 0.001 * tokens;
}

/* What has been done. */
typedef struct tally
{
	int steps;
	int background; /* steps in which trainings took part */
	int in_a_row;	/* of those, one after the other */
	int pieces;
	double ms;		  /* of all */
	double trainings; /* ms of it that the others would not have waited without them */
} tally;

static void
step(m1_share *s, tally *t, step_ms takes, int others, int background)
{
	const bool with = background > 0 && m1_share_has_turn(s, M1_SHARE_REQUESTS);
	const double own = takes(others);
	const double ms = with ? takes(others + background) : own;

	m1_share_step(s, others, with ? background : 0, ms);
	t->steps++;
	t->background += with;
	t->in_a_row = with ? t->in_a_row + 1 : 0;
	assert_true(t->in_a_row < 2);
	t->ms += ms;
	t->trainings += ms - own;
}

static void
piece(m1_share *s, tally *t)
{
	if (!m1_share_has_turn(s, M1_SHARE_LESSONS))
		return;
	m1_share_piece(s, true, PIECE_MS);
	t->pieces++;
	t->ms += PIECE_MS;
	t->trainings += PIECE_MS;
}

/* So many steps of others, with `background` tokens of trainings where they have their turn, and lessons or none. */
static tally
serve(m1_share *s, step_ms takes, int steps, int others, int background, bool lessons)
{
	tally t = {0};

	m1_share_want(s, M1_SHARE_REQUESTS, background > 0);
	m1_share_want(s, M1_SHARE_LESSONS, lessons);
	for (int i = 0; i < steps; i++)
	{
		step(s, &t, takes, others, background);
		if (lessons)
			piece(s, &t);
	}
	return t;
}

static void
assert_share(const tally *t)
{
	assert_true(t->trainings <= SHARE * t->ms);
	assert_true(t->trainings >= 0.9 * SHARE * t->ms);
}

static void
test_answers(void **state)
{
	m1_share s = {.share = SHARE};
	tally t;

	(void) state;
	t = serve(&s, cpu_ms, 10000, 1, 8, false);
	assert_share(&t);
	t = serve(&s, cpu_ms, 10000, 5, 30, false);
	assert_share(&t);
}

/* Where they cost next to nothing, they take part in every other step. */
static void
test_cheap_answers(void **state)
{
	m1_share s = {.share = SHARE};
	const tally t = serve(&s, gpu_ms, 1000, 1, 8, false);

	(void) state;
	assert_true(t.background > 480);
	assert_true(t.trainings < 0.01 * t.ms);
}

static void
test_lessons(void **state)
{
	m1_share s = {.share = SHARE};
	const tally t = serve(&s, cpu_ms, 10000, 1, 0, true);

	(void) state;
	assert_true(t.pieces > 0);
	assert_share(&t);
}

static void
test_answers_and_lessons(void **state)
{
	m1_share s = {.share = SHARE};
	const tally t = serve(&s, cpu_ms, 10000, 1, 8, true);

	(void) state;
	assert_true(t.pieces > 30);
	assert_in_range(t.background, t.pieces - 1, t.pieces + 1);
	assert_share(&t);
}

static void
test_no_share(void **state)
{
	m1_share s = {.share = 0.0};
	const tally t = serve(&s, cpu_ms, 1000, 1, 8, true);

	(void) state;
	assert_int_equal(t.background, 0);
	assert_int_equal(t.pieces, 0);
}

/* A prompt that is read for a long time is paid for before the next turn. */
static void
test_debt(void **state)
{
	m1_share s = {.share = SHARE};
	tally t;

	(void) state;
	serve(&s, cpu_ms, 100, 1, 8, false);
	m1_share_step(&s, 1, 256, cpu_ms(257));
	t = serve(&s, cpu_ms, (int) (256 * (1 - SHARE) / SHARE), 1, 8, false);
	assert_int_equal(t.background, 0);
	t = serve(&s, cpu_ms, 1000, 1, 8, false);
	assert_true(t.background > 0);
}

/* What trainings did while nobody else was there is no debt, and what others did while no training was is no credit. */
static void
test_free_time(void **state)
{
	m1_share s = {.share = SHARE};
	tally t;

	(void) state;
	m1_share_want(&s, M1_SHARE_REQUESTS, true);
	for (int i = 0; i < 100; i++)
		m1_share_free_step(&s, 8, cpu_ms(8));
	t = serve(&s, cpu_ms, 40, 1, 8, false);
	assert_true(t.background > 0);
	serve(&s, cpu_ms, 10000, 1, 0, false);
	t = serve(&s, cpu_ms, 100, 1, 8, false);
	assert_true(t.trainings <= SHARE * t.ms);
}

/* One that others are beside for a moment only, as a short request is, meets no turn of a training. */
static void
test_short_request(void **state)
{
	m1_share s = {.share = SHARE};

	(void) state;
	for (int i = 0; i < 100; i++)
	{
		tally t;

		for (int k = 0; k < 20; k++)
			m1_share_free_step(&s, 8, cpu_ms(8));
		t = serve(&s, cpu_ms, 8, 1, 8, false);
		assert_int_equal(t.background, 0);
	}
}

/* The time of a step that has no tokens is that of a mask, which others wait for. */
static void
test_steps_without_tokens(void **state)
{
	m1_share s = {.share = SHARE};

	(void) state;
	m1_share_want(&s, M1_SHARE_LESSONS, true);
	m1_share_piece(&s, false, PIECE_MS);
	for (int i = 0; i < 1000; i++)
		m1_share_step(&s, 0, 0, 1.0);
	assert_true(m1_share_has_turn(&s, M1_SHARE_LESSONS));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_cheap_answers),
		cmocka_unit_test(test_lessons),
		cmocka_unit_test(test_answers_and_lessons),
		cmocka_unit_test(test_no_share),
		cmocka_unit_test(test_debt),
		cmocka_unit_test(test_free_time),
		cmocka_unit_test(test_short_request),
		cmocka_unit_test(test_steps_without_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
