/*
 * test_engine.c - requests in one continuous batch: a reply depends on the request alone, budgets,
 * stop strings, the loop guard, cancellation, pausing and streaming do what they say.
 */
#include "engine_testing.h"

#include "text/reply.h"

static const char *const prompts[] = {
	"What is 47 + 35?",
	"Hello.",
	"Who are you?",
	"Summarize the following text.\n\nDear team, My webcam arrived in a torn box. Could I get a discount? Sami",
	"Answer yes or no: the customer wants a refund.\n\nHi there, My air fryer leaks water. I want a refund. Ana",
	"Add 112 and 29.",
	"What can you do?",
	"Thank you",
};
#define N_PROMPTS ((int) (sizeof prompts / sizeof *prompts))

/* Request i of a mixed load: different prompts, temperatures and budgets. */
static m1w_generate
mixed(int i)
{
	m1w_generate g = prompt(prompts[i % N_PROMPTS]);

	g.temperature = i % 3 == 0 ? 0.0f : 0.8f + 0.1f * (float) (i % 4);
	g.seed = (uint64_t) i * 7919;
	g.max_tokens = 40 + 11 * (i % 5);
	return g;
}

/* Every request alone, then all in batches of several widths, joining at different times: the same bytes. */
static void
test_replies_do_not_depend_on_the_batch(void **state)
{
	enum
	{
		N = 24
	};
	m1_buf alone[N] = {{0}};
	static const struct
	{
		int requests, threads, stagger;
	} loads[] = {{8, 2, 0}, {3, 1, 2}, {N, 2, 1}};

	(void) state;
	for (int i = 0; i < N; i++)
	{
		m1_engine *e = open_engine((m1_engine_options){.max_requests = 1});
		m1w_generate g = mixed(i);

		submit(e, 1, &g);
		run_all(e);
		assert_true(outcomes[1].done);
		m1_buf_append(&alone[i], outcomes[1].reasoning.data, outcomes[1].reasoning.len);
		m1_buf_append(&alone[i], outcomes[1].content.data, outcomes[1].content.len);
		m1_engine_close(e);
	}
	for (size_t l = 0; l < sizeof loads / sizeof *loads; l++)
	{
		m1_engine *e = open_engine((m1_engine_options){.max_requests = loads[l].requests, .threads = loads[l].threads});
		bool busy;
		m1_error err;

		for (int i = 0; i < N; i++)
		{
			m1w_generate g = mixed(i);

			submit(e, (uint64_t) i + 1, &g);
			for (int step = 0; step < loads[l].stagger; step++)
				assert_ok(m1_engine_step(e, &busy, &err));
		}
		run_all(e);
		for (int i = 0; i < N; i++)
		{
			m1_buf together = {0};

			m1_buf_append(&together, outcomes[i + 1].reasoning.data, outcomes[i + 1].reasoning.len);
			m1_buf_append(&together, outcomes[i + 1].content.data, outcomes[i + 1].content.len);
			if (!same_text(&together, &alone[i]))
				fail_msg("load %zu, request %d: \"%.*s\" instead of \"%.*s\"", l, i, (int) together.len, together.data,
						 (int) alone[i].len, alone[i].data);
			m1_buf_free(&together);
		}
		m1_engine_close(e);
	}
	for (int i = 0; i < N; i++)
		m1_buf_free(&alone[i]);
}

/* A prompt of many chunks beside short requests: those end long before its prefill does. */
static void
test_long_prompt_does_not_stall_others(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.prefill_chunk = 32});
	m1_buf text = {0};
	m1w_generate longer;
	m1w_generate shorter = prompt("Hello.");
	bool busy = true;
	m1_error err;

	(void) state;
	for (int i = 0; i < 2000; i++)
		m1_buf_puts(&text, "the box was very large. ");
	longer = prompt("x");
	longer.prompt = (m1_slice){text.data, text.len};
	longer.max_tokens = 1;
	submit(e, 1, &longer);
	submit(e, 2, &shorter);
	while (!outcomes[2].done)
		assert_ok(m1_engine_step(e, &busy, &err));
	assert_false(outcomes[1].done);
	assert_text(&outcomes[2].content, "Hello! How can I help you?");
	m1_engine_cancel(e, 1);
	run_all(e);
	assert_true(outcomes[1].failed);
	assert_int_equal(outcomes[1].error.code, M1_E_CANCELLED);
	m1_buf_free(&text);
	m1_engine_close(e);
}

static void
test_thinking_budget(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt("What is 47 + 35?");

	(void) state;
	for (int budget = 0; budget <= 60; budget += 6)
	{
		const outcome *o = &outcomes[budget + 1];

		g.thinking_budget = budget;
		submit(e, (uint64_t) budget + 1, &g);
		run_all(e);
		assert_true(o->done);
		assert_true(o->facts.reasoning_tokens <= budget);
		assert_true((budget == 0) == (o->reasoning.len == 0));
		/* the unlimited reasoning has 41 tokens */
		assert_int_equal(o->facts.finish, budget > 0 && budget < 41 ? M1W_FINISH_THINKING_BUDGET : M1W_FINISH_STOP);
		assert_true(o->content.len > 0);
		if (budget > 41)
			assert_text(&o->content, "82");
	}
	m1_engine_close(e);
}

static void
test_max_tokens_and_stop(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt("Hello.");

	(void) state;
	g.max_tokens = 7;
	submit(e, 1, &g);
	g.max_tokens = 100;
	g.stops[0] = m1_slice_of("can I");
	g.stops[1] = m1_slice_of("greeting"); /* only in the reasoning, where stops do not count */
	g.n_stops = 2;
	submit(e, 2, &g);
	run_all(e);
	assert_int_equal(outcomes[1].facts.finish, M1W_FINISH_LENGTH);
	assert_int_equal(outcomes[1].facts.completion_tokens, 7);
	assert_int_equal(outcomes[2].facts.finish, M1W_FINISH_STOP);
	assert_text(&outcomes[2].content, "Hello! How ");
	m1_engine_close(e);
}

/* Bounded before anything is made of them. */
static void
test_stop_too_long(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt("Hello.");
	char text[M1_MAX_STOP_BYTES + 1];
	m1_error err;

	(void) state;
	memset(text, 'x', sizeof text);
	g.stops[0] = m1_slice_of("can I");
	g.stops[1] = (m1_slice){text, sizeof text};
	g.n_stops = 2;
	assert_int_equal(m1_engine_generate(e, 1, &g, NULL, &err), M1_E_INVALID_ARGUMENT);
	assert_string_equal(err.message, "stop string 2 has 1025 bytes: more than 1024");
	g.stops[1].len--;
	submit(e, 1, &g);
	run_all(e);
	assert_text(&outcomes[1].content, "Hello! How ");
	m1_engine_close(e);
}

static void
test_stream_is_the_whole_text(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt(prompts[3]);

	(void) state;
	submit(e, 1, &g);
	g.stream = 1;
	submit(e, 2, &g);
	run_all(e);
	assert_true(outcomes[1].content.len > 20 && outcomes[1].reasoning.len > 20);
	assert_true(same_text(&outcomes[1].content, &outcomes[2].streamed[M1W_CONTENT]));
	assert_true(same_text(&outcomes[1].reasoning, &outcomes[2].streamed[M1W_REASONING]));
	assert_int_equal(outcomes[2].content.len, 0);
	m1_engine_close(e);
}

/* A guard of a few tokens ends a reply that the model is sure of. */
static void
test_loop_guard(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.loop_guard = 3});
	m1w_generate g = prompt("Hello.");

	(void) state;
	submit(e, 1, &g);
	run_all(e);
	assert_int_equal(outcomes[1].facts.finish, M1W_FINISH_LOOP);
	m1_engine_close(e);
}

static void
test_pause_and_resume(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt("Hello.");
	bool busy;
	m1_error err;

	(void) state;
	submit(e, 1, &g);
	assert_ok(m1_engine_step(e, &busy, &err));
	m1_engine_pause(e, 1);
	assert_ok(m1_engine_step(e, &busy, &err));
	assert_false(busy);
	m1_engine_resume(e, 1);
	run_all(e);
	assert_text(&outcomes[1].content, "Hello! How can I help you?");
	m1_engine_close(e);
}

/* More requests than places: all are answered, also those cancelled while they wait. */
static void
test_waiting_requests(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.max_requests = 2});
	m1w_generate g = prompt("Hello.");

	(void) state;
	for (uint64_t i = 1; i <= 10; i++)
		submit(e, i, &g);
	m1_engine_cancel(e, 5);
	m1_engine_cancel(e, 999);
	run_all(e);
	for (int i = 1; i <= 10; i++)
		if (i == 5)
			assert_int_equal(outcomes[i].error.code, M1_E_CANCELLED);
		else
			assert_text(&outcomes[i].content, "Hello! How can I help you?");
	m1_engine_close(e);
}

static void
test_context_overflow(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.max_context = 40});
	m1w_generate g = prompt("Hello.");
	m1_error err;

	(void) state;
	submit(e, 1, &g); /* 29 tokens of prompt leave 11 */
	g.prompt = m1_slice_of("What is the weather in Oslo today, and what will it be tomorrow?");
	assert_int_equal(m1_engine_generate(e, 2, &g, NULL, &err), M1_E_CONTEXT_OVERFLOW);
	run_all(e);
	assert_int_equal(outcomes[1].facts.finish, M1W_FINISH_LENGTH);
	assert_int_equal(outcomes[1].facts.completion_tokens, 11);
	m1_engine_close(e);
}

static void
test_bad_requests(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	int32_t outside[] = {1, 1600};
	m1w_generate good = prompt("Hello.");
	m1w_generate bad[8];
	m1_error err;

	(void) state;
	for (int i = 0; i < 8; i++)
		bad[i] = good;
	bad[0].prompt = m1_slice_of("");
	bad[1].max_tokens = 0;
	bad[2].thinking_budget = -2;
	bad[3].temperature = -1;
	bad[4].top_p = 0;
	bad[5].n_stops = 1;
	bad[6].messages = m1_slice_of("[]");
	bad[7].prompt = m1_slice_of("");
	bad[7].ids = (m1w_id_slice){outside, 2};
	for (int i = 0; i < 8; i++)
		if (m1_engine_generate(e, 1, &bad[i], NULL, &err) != M1_E_INVALID_ARGUMENT)
			fail_msg("bad request %d was not refused", i);
	m1_engine_close(e);
}

/* A checkpoint without a tokenizer serves ids, and says why it serves nothing else. */
static void
test_ids_and_logits(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.model_path = "test/checkpoints/tiny-f32"});
	int32_t ids[] = {5, 6, 7, 8};
	m1w_generate g = {.ids = {ids, 4}, .max_tokens = 9, .thinking_budget = -1, .top_p = 1.0f};
	m1w_generate text = prompt("Hello.");
	m1_error err;

	(void) state;
	submit(e, 1, &g);
	assert_ok(m1_engine_logits(e, 2, g.ids, &err));
	run_all(e);
	assert_int_equal(outcomes[1].ids.len, 9 * sizeof(int32_t));
	assert_int_equal(outcomes[2].content.len, 320 * sizeof(float));
	assert_int_equal(m1_engine_generate(e, 3, &text, NULL, &err), M1_E_UNSUPPORTED);
	m1_engine_close(e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replies_do_not_depend_on_the_batch),
		cmocka_unit_test(test_long_prompt_does_not_stall_others),
		cmocka_unit_test(test_thinking_budget),
		cmocka_unit_test(test_max_tokens_and_stop),
		cmocka_unit_test(test_stop_too_long),
		cmocka_unit_test(test_stream_is_the_whole_text),
		cmocka_unit_test(test_loop_guard),
		cmocka_unit_test(test_pause_and_resume),
		cmocka_unit_test(test_waiting_requests),
		cmocka_unit_test(test_context_overflow),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_ids_and_logits),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
