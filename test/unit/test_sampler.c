/* test_sampler.c - greedy choice, the distribution of samples, top_p, top_k, dead tokens and seeds. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "model/sampler.h"

#define VOCAB 50

static void
fill(float *logits)
{
	for (int i = 0; i < VOCAB; i++)
		logits[i] = sinf((float) i) * 3.0f;
}

static m1_sampler *
open_sampler(const bool *alive)
{
	m1_sampler *s;
	m1_error err;

	assert_ok(m1_sampler_create(VOCAB, alive, &s, &err));
	return s;
}

/* Frequencies of n draws. */
static void
draw_many(m1_sampler *s, m1_sampling sampling, int n, double *share)
{
	float logits[VOCAB];

	memset(share, 0, VOCAB * sizeof *share);
	for (int i = 0; i < n; i++)
	{
		fill(logits);
		share[m1_sampler_pick(s, &sampling, (uint64_t) i, NULL, logits).id] += 1.0 / n;
	}
}

static void
probabilities(double *p, double temperature)
{
	float logits[VOCAB];
	double sum = 0;

	fill(logits);
	for (int i = 0; i < VOCAB; i++)
		sum += p[i] = exp(logits[i] / temperature);
	for (int i = 0; i < VOCAB; i++)
		p[i] /= sum;
}

static void
test_greedy(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	m1_sampling greedy = {.temperature = 0, .top_p = 0.5f};
	float logits[VOCAB] = {0};
	m1b_pick sample;

	(void) state;
	logits[7] = logits[9] = 2.0f;
	sample = m1_sampler_pick(s, &greedy, 0, NULL, logits);
	assert_int_equal(sample.id, 7); /* the lower id wins a tie */
	assert_true(fabs(sample.probability - exp(2.0) / (2 * exp(2.0) + VOCAB - 2)) < 1e-6);
	m1_sampler_free(s);
}

static void
test_distribution(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	double share[VOCAB];
	double p[VOCAB];

	(void) state;
	draw_many(s, (m1_sampling){.temperature = 1.5f, .top_p = 1.0f, .seed = 3}, 200000, share);
	probabilities(p, 1.5);
	for (int i = 0; i < VOCAB; i++)
		assert_true(fabs(share[i] - p[i]) < 5 * sqrt(p[i] / 200000) + 1e-4);
	m1_sampler_free(s);
}

/* Only the smallest set that holds top_p of the probability is drawn from, in the right proportions. */
static void
test_top_p(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	double share[VOCAB];
	double p[VOCAB];
	double kept = 0;
	int inside = 0;

	(void) state;
	draw_many(s, (m1_sampling){.temperature = 1.0f, .top_p = 0.6f, .seed = 4}, 100000, share);
	probabilities(p, 1.0);
	for (int i = 0; i < VOCAB; i++)
		if (share[i] > 0)
		{
			kept += p[i];
			inside++;
		}
	assert_true(kept >= 0.6);
	for (int i = 0; i < VOCAB; i++)
		if (share[i] > 0)
		{
			assert_true(fabs(share[i] - p[i] / kept) < 0.01);
			assert_true(kept - p[i] < 0.6); /* without any one of them it would be less than top_p */
		}
	assert_true(inside > 1);
	m1_sampler_free(s);
}

static void
test_top_k(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	double share[VOCAB];
	int inside = 0;

	(void) state;
	draw_many(s, (m1_sampling){.temperature = 5.0f, .top_p = 1.0f, .top_k = 4, .seed = 5}, 20000, share);
	for (int i = 0; i < VOCAB; i++)
		inside += share[i] > 0;
	assert_int_equal(inside, 4);
	m1_sampler_free(s);
}

static void
test_dead_tokens_never_come(void **state)
{
	bool alive[VOCAB];
	m1_sampler *s;
	double share[VOCAB];
	float logits[VOCAB];

	(void) state;
	for (int i = 0; i < VOCAB; i++)
		alive[i] = i % 3 != 0;
	s = open_sampler(alive);
	draw_many(s, (m1_sampling){.temperature = 10.0f, .top_p = 1.0f, .seed = 6}, 20000, share);
	for (int i = 0; i < VOCAB; i++)
		assert_true((share[i] > 0) == alive[i]);
	memset(logits, 0, sizeof logits);
	logits[0] = 100.0f;
	assert_int_equal(m1_sampler_pick(s, &(m1_sampling){.top_p = 1.0f}, 0, NULL, logits).id, 1);
	m1_sampler_free(s);
}

/* A mask leaves tokens out as if they were dead; the probability is still that of the whole distribution. */
static void
test_masked_tokens_never_come(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	const uint64_t allowed[] = {0x3000000000020u}; /* 5, 48 and 49 */
	const m1_sampling hot = {.temperature = 10.0f, .top_p = 1.0f, .seed = 6};
	float logits[VOCAB] = {0};
	int seen[VOCAB] = {0};
	m1b_pick sample;

	(void) state;
	for (uint64_t step = 0; step < 1000; step++)
		seen[m1_sampler_pick(s, &hot, step, allowed, logits).id]++;
	for (int i = 0; i < VOCAB; i++)
		assert_true((seen[i] > 200) == (i == 5 || i >= 48));
	logits[0] = 1000.0f;
	logits[48] = 2.0f;
	sample = m1_sampler_pick(s, &(m1_sampling){.top_p = 1.0f}, 0, allowed, logits);
	assert_int_equal(sample.id, 48);
	assert_true(sample.probability >= 0 && sample.probability < 1e-6f);
	m1_sampler_free(s);
}

/* A model that computes nonsense still gives tokens, and the same ones, and tells by their probability what they are. */
static void
test_values_that_are_no_numbers(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	const uint64_t nothing[] = {0};
	const m1_sampling samplings[] = {
		{.top_p = 1.0f}, {.temperature = 1.0f, .top_p = 1.0f}, {.temperature = 1.0f, .top_p = 0.9f, .top_k = 3}};
	float logits[VOCAB];

	(void) state;
	for (size_t i = 0; i < sizeof samplings / sizeof *samplings; i++)
	{
		for (int j = 0; j < VOCAB; j++)
			logits[j] = NAN;
		assert_int_equal(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).id, 0);
		assert_true(isnan(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).probability));
		logits[9] = -INFINITY;
		assert_int_equal(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).id, 9);
		logits[30] = 2.0f;
		assert_int_equal(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).id, 30);
		logits[40] = INFINITY;
		assert_int_equal(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).id, 40);
		assert_true(isnan(m1_sampler_pick(s, &samplings[i], 0, NULL, logits).probability));
		assert_int_equal(m1_sampler_pick(s, &samplings[i], 0, nothing, logits).id, 0);
	}
	m1_sampler_free(s);
}

static void
test_same_seed_same_tokens(void **state)
{
	m1_sampler *s = open_sampler(NULL);
	float a[VOCAB];
	float b[VOCAB];
	int different = 0;

	(void) state;
	for (uint64_t step = 0; step < 200; step++)
	{
		m1_sampling one = {.temperature = 1.0f, .top_p = 0.95f, .seed = 11};
		m1_sampling other = {.temperature = 1.0f, .top_p = 0.95f, .seed = 12};
		int first;

		fill(a);
		fill(b);
		first = m1_sampler_pick(s, &one, step, NULL, a).id;
		assert_int_equal(first, m1_sampler_pick(s, &one, step, NULL, b).id);
		fill(b);
		different += first != m1_sampler_pick(s, &other, step, NULL, b).id;
	}
	assert_true(different > 100);
	m1_sampler_free(s);
}

static void
test_bad_values(void **state)
{
	static const m1_sampling bad[] = {
		{.temperature = -1, .top_p = 1},  {.temperature = NAN, .top_p = 1},
		{.temperature = 1, .top_p = 0},	  {.temperature = 1, .top_p = 1.1f},
		{.temperature = 1, .top_p = NAN}, {.temperature = 1, .top_p = 1, .top_k = -1},
	};
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(m1_sampling_check(&bad[i], &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_sampling_check(&(m1_sampling){.temperature = 0, .top_p = 1}, &err), M1_OK);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greedy),
		cmocka_unit_test(test_distribution),
		cmocka_unit_test(test_top_p),
		cmocka_unit_test(test_top_k),
		cmocka_unit_test(test_dead_tokens_never_come),
		cmocka_unit_test(test_masked_tokens_never_come),
		cmocka_unit_test(test_values_that_are_no_numbers),
		cmocka_unit_test(test_same_seed_same_tokens),
		cmocka_unit_test(test_bad_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
