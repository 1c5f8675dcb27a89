/*
 * test_learning_share.c - how much learning goes on beside requests: one piece at most after each of their steps, as many
 * as its share of the time allows, and none without one. Steps take as long as the tests say.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "engine_testing.h"

#include "base/clock.h"
#include "engine/learning.h"

#define SHARE 0.3
#define TOKENS 90

static m1_model *model;
static m1_learning *learning;
static uint64_t last_id;

/* Takes the payload over. */
static void
add(m1w_type type, m1_buf *payload)
{
	m1_learn_request *r;
	m1_error err;

	assert_ok(m1_learn_request_create(model, ++last_id, type, payload, &r, &err));
	m1_learning_add(learning, r);
}

static void
add_lesson(void)
{
	static int32_t ids[TOKENS];
	static const int32_t length = TOKENS;
	static const int32_t prompt = 1;
	const m1w_lesson lesson = {
		.training = m1_slice_of("t"),
		.loss = M1W_LOSS_CE,
		.temperature = 1,
		.rate = 1e-4f,
		.beta1 = 0.9f,
		.beta2 = 0.95f,
		.eps = 1e-15f,
		.clip = 1,
		.update = 1,
		.lengths = {&length, 1},
		.prompts = {&prompt, 1},
		.ids = {ids, TOKENS},
	};
	m1_buf payload = {0};

	for (int i = 0; i < TOKENS; i++)
		ids[i] = 7 * i % model->config.vocab_size;
	assert_true(m1w_encode_lesson(&payload, &lesson));
	add(M1W_LESSON, &payload);
}

/* An engine's learning without the engine, with a training that has begun. */
static void
open_learning(double share)
{
	const m1_model_options options = {.path = "test/checkpoints/tiny-f32",
									  .device = "cpu",
									  .threads = 1,
									  .max_context = 256,
									  .max_sequences = 1,
									  .max_batch_tokens = 256};
	const m1w_training training = {.name = m1_slice_of("t"),
								   .from = m1_slice_of(""),
								   .rank = 4,
								   .expert_rank = 1,
								   .targets = m1_slice_of("attention,experts,router"),
								   .alpha = 32};
	m1_buf payload = {0};
	m1_error err;

	assert_ok(m1_model_open(&options, &model, &err));
	learning = m1_learning_create(model, &engine_events, share, 1u << 20);
	assert_non_null(learning);
	assert_true(m1w_encode_training(&payload, &training));
	add(M1W_TRAINING, &payload);
	m1_learning_piece(learning);
	assert_false(m1_learning_pending(learning));
}

static void
close_learning(void)
{
	m1_learning_free(learning);
	m1_model_close(model);
}

/* Of a lesson that nothing is beside, the pieces and, in ms, what one of them takes. */
static int
pieces_of_lesson(double *ms)
{
	const double began = m1_now_ms();
	int pieces = 0;

	add_lesson();
	for (; m1_learning_pending(learning); pieces++)
		m1_learning_piece(learning);
	assert_true(outcomes[last_id].done);
	*ms = (m1_now_ms() - began) / pieces;
	return pieces;
}

static int
steps_of_lessons(int lessons, double step_ms, int most)
{
	int steps = 0;

	for (int i = 0; i < lessons; i++)
		add_lesson();
	for (; m1_learning_pending(learning) && steps < most; steps++)
		m1_learning_beside(learning, step_ms);
	return steps;
}

/* However long the steps were, a request waits for one piece. */
static void
test_one_piece_at_a_time(void **state)
{
	double ms;
	int pieces;

	(void) state;
	open_learning(SHARE);
	pieces = pieces_of_lesson(&ms);
	assert_true(pieces > 4);
	assert_int_equal(steps_of_lessons(1, 1e9, 10 * pieces), pieces);
	close_learning();
}

/* What a piece takes where nothing else keeps the machine busy, or as near to that as some lessons come. */
static double
least_piece_ms(int *pieces)
{
	double least = 1e9;

	for (int i = 0; i < 10; i++)
	{
		double ms;

		*pieces = pieces_of_lesson(&ms);
		least = ms < least ? ms : least;
	}
	return least;
}

/* Steps that pay for a tenth of a piece: about ten of them for each, and not one as soon as the first was paid for. */
static void
test_share(void **state)
{
	double ms;
	int pieces;
	int steps;

	(void) state;
	open_learning(SHARE);
	ms = least_piece_ms(&pieces);
	steps = steps_of_lessons(20, ms / 10 * (1 - SHARE) / SHARE, 1000000 * pieces);
	assert_true(steps > 3 * 20 * pieces);
	assert_false(m1_learning_pending(learning));
	close_learning();
}

static void
test_no_share(void **state)
{
	(void) state;
	open_learning(0.0);
	assert_int_equal(steps_of_lessons(1, 1e9, 1000), 1000);
	close_learning();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_piece_at_a_time),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_no_share),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
