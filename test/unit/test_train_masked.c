/*
 * test_train_masked.c - what was sampled under a constraint: log-probabilities and gradients of the distribution that
 * the constraint left.
 */
#include "train_testing.h"

#define LENGTH 6
#define WORDS 5 /* of the bits of tiny-f32's 320 tokens */
#define VOCAB 320
#define LAST (LENGTH - 1)

static const int32_t sampled[LENGTH] = {3, 5, 9, 5, 17, 130};

static void
allow(uint64_t bits[WORDS], int token)
{
	bits[token / 64] |= (uint64_t) 1 << (token % 64);
}

static m1_batch_result
evaluate(bench *b, const m1_sequence *s)
{
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	m1_batch_result result;
	m1_error err;

	assert_ok(m1_trainer_evaluate(b->trainer, s, 1, &o, &result, &err));
	return result;
}

/* Of a token in the last place, without a constraint. */
static double
free_logprob(bench *b, int32_t token)
{
	int32_t tokens[LENGTH];
	float logprob[LENGTH];
	const m1_sequence s = {.tokens = tokens, .n = LENGTH, .prompt = LAST, .share = -1, .logprob = logprob};

	memcpy(tokens, sampled, sizeof tokens);
	tokens[LAST] = token;
	evaluate(b, &s);
	return logprob[LAST];
}

/* Every third token and the one that was sampled. */
static void
test_masked_probabilities(void **state)
{
	bench b = open_bench(TINY);
	uint64_t bits[WORDS] = {0};
	const uint64_t *allowed[LENGTH] = {[LAST] = bits};
	float logprob[LENGTH], entropy[LENGTH];
	const m1_sequence s = {.tokens = sampled,
						   .n = LENGTH,
						   .prompt = 2,
						   .share = -1,
						   .allowed = allowed,
						   .logprob = logprob,
						   .entropy = entropy};
	double sum = 0.0;
	double weighted = 0.0;
	double want;

	(void) state;
	allow(bits, sampled[LAST]);
	for (int token = 0; token < VOCAB; token += 3)
		allow(bits, token);
	for (int token = 0; token < VOCAB; token++)
		if (token % 3 == 0 || token == sampled[LAST])
		{
			const double p = free_logprob(&b, token);

			sum += exp(p);
			weighted += exp(p) * p;
		}
	want = free_logprob(&b, sampled[LAST]) - log(sum);
	evaluate(&b, &s);
	assert_true(fabs(logprob[LAST] - want) < 1e-5);
	assert_true(fabs(entropy[LAST] - (log(sum) - weighted / sum)) < 1e-5);
	close_bench(&b);
}

/* With one token left there was no choice, and nothing is to be learned of it; with all, nothing was forbidden. */
static void
test_forced_and_free(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	uint64_t bits[WORDS] = {0};
	const uint64_t *allowed[LENGTH] = {[LAST] = bits};
	float logprob[LENGTH];
	m1_sequence s = {.tokens = sampled, .n = LENGTH, .prompt = LAST, .share = -1, .logprob = logprob};
	m1_batch_result result;
	m1_error err;
	size_t n;
	float *got, *want;

	(void) state;
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	want = copy_gradients(&b, &n);
	s.allowed = allowed;
	memset(bits, 0xff, sizeof bits);
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	got = copy_gradients(&b, &n);
	assert_memory_equal(got, want, n * sizeof *got);
	free(got);

	memset(bits, 0, sizeof bits);
	allow(bits, sampled[LAST]);
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	assert_true(logprob[LAST] == 0.0f && result.loss == 0.0);
	got = copy_gradients(&b, &n);
	for (size_t i = 0; i < n; i++)
		assert_true(got[i] == 0.0f);
	free(got);
	free(want);
	close_bench(&b);
}

/* The head's gradient is what differences of the loss say, and exactly 0 for a token that was forbidden. */
static void
test_masked_gradients(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	const int rows[] = {130, 3, 6}; /* the target, and two that are allowed */
	const size_t d = (size_t) b.model->config.hidden_size;
	uint64_t bits[WORDS] = {0};
	const uint64_t *allowed[LENGTH] = {[LAST] = bits};
	const m1_sequence s = {.tokens = sampled, .n = LENGTH, .prompt = LAST, .share = -1, .allowed = allowed};
	const m1_parameter *head = parameter_named(&b, "lm_head.weight");
	m1_batch_result result;
	m1_error err;

	(void) state;
	for (int i = 0; i < 3; i++)
		allow(bits, rows[i]);
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	for (size_t j = 0; j < d; j++)
		assert_true(head->gradient[7 * d + j] == 0.0f);
	for (int i = 0; i < 3; i++)
	{
		const size_t at = (size_t) rows[i] * d + 11;
		const float value = head->value[at];
		const double gradient = head->gradient[at];
		double difference;

		head->value[at] = value + 0.01f;
		difference = evaluate(&b, &s).loss;
		head->value[at] = value - 0.01f;
		difference = (difference - evaluate(&b, &s).loss) / 0.02;
		head->value[at] = value;
		assert_true(fabs(gradient) > 1e-4);
		assert_true(fabs(gradient - difference) < 0.01 * fabs(gradient) + 1e-4);
	}
	close_bench(&b);
}

static void
test_what_was_not_allowed(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	uint64_t bits[WORDS] = {0};
	const uint64_t *allowed[LENGTH] = {[LAST] = bits};
	const m1_sequence s = {.tokens = sampled, .n = LENGTH, .prompt = 1, .share = -1, .allowed = allowed};
	m1_batch_result result;
	m1_error err;

	(void) state;
	allow(bits, 4);
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	assert_string_equal(err.message, "sequence 0: its constraint does not allow token 5");
	close_bench(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_masked_probabilities),
		cmocka_unit_test(test_forced_and_free),
		cmocka_unit_test(test_masked_gradients),
		cmocka_unit_test(test_what_was_not_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
