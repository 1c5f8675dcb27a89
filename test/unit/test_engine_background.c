/*
 * test_engine_background.c - an engine that draws answers for a training, and learns lessons, beside requests that somebody
 * waits for: without a share of the time they stand still meanwhile, with one they go on, and the tokens of both are the
 * same in any case.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "engine_testing.h"

#define TINY "test/checkpoints/tiny-f32"
#define PROMPT 600 /* tokens: three chunks */

static int32_t long_prompt[PROMPT];

static m1_engine *
open_with_share(double share, int requests)
{
	return open_engine((m1_engine_options){.model_path = TINY,
										   .max_context = 2048,
										   .max_requests = requests,
										   .learning_share = share,
										   .adapter_bytes = 1u << 20,
										   .prefix_cache_bytes = 64u << 20});
}

/* Draws from the first n tokens of the long prompt. */
static void
ask(m1_engine *e, uint64_t id, int n, int max_tokens, bool background)
{
	m1w_generate g = {.ids = {long_prompt, (size_t) n},
					  .max_tokens = max_tokens,
					  .thinking_budget = -1,
					  .temperature = 1.0f,
					  .top_p = 1.0f,
					  .seed = id,
					  .cache_owner = 1,
					  .background = background};

	submit(e, id, &g);
}

/* Until the request is done. */
static void
run_until_done(m1_engine *e, uint64_t id)
{
	bool busy = true;
	m1_error err;

	while (busy && !outcomes[id].done)
		assert_ok(m1_engine_step(e, &busy, &err));
	assert_true(outcomes[id].done);
}

static void
test_stands_still_without_a_share(void **state)
{
	m1_engine *e = open_with_share(0.0, 4);
	int before;

	(void) state;
	ask(e, 1, 4, 300, true);
	ask(e, 2, 5, 300, true);
	run_steps(e, 40);
	before = outcomes[1].progress_events;
	assert_true(before > 0);
	ask(e, 3, 6, 600, false);
	run_until_done(e, 3);
	assert_int_equal(outcomes[1].progress_events, before);
	assert_false(outcomes[1].done || outcomes[2].done);
	run_all(e);
	assert_true(outcomes[1].done && outcomes[2].done);
	m1_engine_close(e);
}

static void
test_goes_on_with_a_share(void **state)
{
	m1_engine *e = open_with_share(0.5, 4);

	(void) state;
	ask(e, 1, 4, 60, true);
	ask(e, 2, 6, 1500, false);
	run_until_done(e, 1);
	assert_false(outcomes[2].done);
	m1_engine_close(e);
}

static void
copy_ids_of(uint64_t id, m1_buf *to)
{
	m1_buf_append(to, outcomes[id].ids.data, outcomes[id].ids.len);
}

/* What is drawn does not depend on when. */
static void
test_same_tokens(void **state)
{
	m1_buf alone[4] = {{0}};
	m1_engine *e = open_with_share(0.0, 4);

	(void) state;
	for (uint64_t id = 1; id < 4; id++)
		ask(e, id, 100 * (int) id, 80, false);
	run_all(e);
	for (uint64_t id = 1; id < 4; id++)
		copy_ids_of(id, &alone[id]);
	m1_engine_close(e);
	e = open_with_share(0.3, 4);
	for (uint64_t id = 1; id < 4; id++)
	{
		ask(e, id, 100 * (int) id, 80, id != 3);
		run_steps(e, 10);
	}
	run_all(e);
	for (uint64_t id = 1; id < 4; id++)
	{
		assert_true(same_text(&outcomes[id].ids, &alone[id]));
		m1_buf_free(&alone[id]);
	}
	m1_engine_close(e);
}

/* Who comes later does not wait for a prompt that a training reads when others leave it the time. */
static void
test_prompt_is_not_waited_for(void **state)
{
	m1_engine *e = open_with_share(0.0, 4);

	(void) state;
	/* so that there is to be a snapshot in it */
	ask(e, 1, PROMPT, 1, false);
	run_all(e);
	m1_engine_close(e);
	e = open_with_share(0.0, 4);
	ask(e, 1, 4, 1000, false);
	ask(e, 2, PROMPT, 4, true);
	ask(e, 4, PROMPT, 4, true);
	run_steps(e, 3);
	ask(e, 3, PROMPT, 4, false);
	run_until_done(e, 3);
	assert_false(outcomes[1].done || outcomes[2].done);
	run_all(e);
	assert_true(outcomes[2].done);
	m1_engine_close(e);
}

/* Of those that wait for a place in the batch, trainings come last, in their order. */
static void
test_waits_behind_others(void **state)
{
	m1_engine *e = open_with_share(0.3, 1);

	(void) state;
	ask(e, 1, 4, 5, true);
	run_steps(e, 2);
	ask(e, 2, 4, 5, true);
	ask(e, 3, 4, 5, true);
	ask(e, 4, 4, 5, false);
	ask(e, 5, 4, 5, false);
	run_all(e);
	assert_true(outcomes[4].first_progress < outcomes[5].first_progress);
	assert_true(outcomes[5].first_progress < outcomes[2].first_progress);
	assert_true(outcomes[2].first_progress < outcomes[3].first_progress);
	m1_engine_close(e);
}

/* Somebody whose reply is not read is not served: trainings have the time. */
static void
test_paused_request(void **state)
{
	m1_engine *e = open_with_share(0.0, 4);

	(void) state;
	ask(e, 1, 4, 300, false);
	run_steps(e, 3);
	m1_engine_pause(e, 1);
	ask(e, 2, 4, 30, true);
	run_until_done(e, 2);
	assert_false(outcomes[1].done);
	m1_engine_resume(e, 1);
	run_all(e);
	assert_true(outcomes[1].done);
	m1_engine_close(e);
}

/* ---- lessons ---- */

/* Takes the payload over. */
static void
learn(m1_engine *e, uint64_t id, m1w_type type, m1_buf *payload)
{
	m1_error err;

	assert_ok(m1_engine_learn(e, id, type, payload, NULL, &err));
}

static void
begin_training(m1_engine *e, uint64_t id)
{
	const m1w_training training = {.name = m1_slice_of("t"),
								   .from = m1_slice_of(""),
								   .rank = 4,
								   .expert_rank = 1,
								   .targets = m1_slice_of("attention,experts,router"),
								   .alpha = 32};
	m1_buf payload = {0};

	assert_true(m1w_encode_training(&payload, &training));
	learn(e, id, M1W_TRAINING, &payload);
	run_until_done(e, id);
}

static void
add_lesson(m1_engine *e, uint64_t id)
{
	static const int32_t length = 90;
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
		.ids = {long_prompt, (size_t) length},
	};
	m1_buf payload = {0};

	assert_true(m1w_encode_lesson(&payload, &lesson));
	learn(e, id, M1W_LESSON, &payload);
}

static void
test_lessons_without_a_share(void **state)
{
	m1_engine *e = open_with_share(0.0, 4);

	(void) state;
	begin_training(e, 1);
	add_lesson(e, 2);
	ask(e, 3, 4, 600, false);
	run_until_done(e, 3);
	assert_false(outcomes[2].done);
	run_all(e);
	assert_true(outcomes[2].done);
	m1_engine_close(e);
}

/* However much of the time is saved up, each step of the others is followed by one piece at most. */
static void
test_lessons_with_a_share(void **state)
{
	m1_engine *e = open_with_share(0.5, 4);
	int steps = 0;

	(void) state;
	begin_training(e, 1);
	add_lesson(e, 2);
	ask(e, 3, 4, 2000, false);
	for (; !outcomes[2].done; steps++)
		run_steps(e, 1);
	assert_true(steps > 5);
	assert_false(outcomes[3].done);
	m1_engine_close(e);
}

static int
setup(void **state)
{
	(void) state;
	for (int i = 0; i < PROMPT; i++)
		long_prompt[i] = 3 + 7 * i % 40;
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stands_still_without_a_share),
		cmocka_unit_test(test_goes_on_with_a_share),
		cmocka_unit_test(test_same_tokens),
		cmocka_unit_test(test_prompt_is_not_waited_for),
		cmocka_unit_test(test_waits_behind_others),
		cmocka_unit_test(test_paused_request),
		cmocka_unit_test(test_lessons_without_a_share),
		cmocka_unit_test(test_lessons_with_a_share),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
