/*
 * test_answers.c - constrained answers through the whole engine: with reasoning and without, streamed,
 * short of tokens, beside other requests; the probabilities of choices; and the requests that are refused.
 */
#include "testing.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/engine.h"
#include "text/chat.h"

#define MODEL "models/m1-nano"
#define MAX_IDS 64

#define EXTRACT                                                                                            \
	"Extract issue, customer as JSON.\n\nHi there, The office chair I bought has a missing screw after a " \
	"month. My order number is F-04329. I would like a new manual. Best wishes, Wei"
#define SCHEMA                                                                                             \
	"{\"type\": \"object\", \"properties\": {\"issue\": {\"type\": \"string\"}, \"customer\": {\"type\": " \
	"\"string\", \"maxLength\": 20}}, \"required\": [\"issue\", \"customer\"]}"

typedef struct answer
{
	bool done;
	bool failed;
	m1_error error;
	m1w_done facts;
	m1_buf content;
	m1_buf reasoning;
	m1_buf streamed;
	m1_buf logprobs;
} answer;

static answer answers[MAX_IDS];

static void
on_progress(void *context, uint64_t id, const m1w_progress *p)
{
	(void) context;
	(void) id;
	(void) p;
}

static void
on_delta(void *context, uint64_t id, const m1w_delta *d)
{
	(void) context;
	if (d->channel == M1W_CONTENT)
		m1_buf_append(&answers[id].streamed, d->text.data, d->text.len);
}

static void
on_done(void *context, uint64_t id, const m1w_done *d)
{
	answer *a = &answers[id];

	(void) context;
	assert_false(a->done || a->failed);
	a->done = true;
	a->facts = *d;
	m1_buf_append(&a->content, d->content.data, d->content.len);
	m1_buf_append(&a->reasoning, d->reasoning.data, d->reasoning.len);
	m1_buf_append(&a->logprobs, d->choice_logprobs.data, d->choice_logprobs.len);
}

static void
on_vector(void *context, uint64_t id, const m1w_vector *v)
{
	(void) context;
	answers[id].done = true;
	m1_buf_append(&answers[id].content, v->values.data, v->values.len);
}

static void
on_failed(void *context, uint64_t id, const m1_error *e)
{
	(void) context;
	assert_false(answers[id].done || answers[id].failed);
	answers[id].failed = true;
	answers[id].error = *e;
}

static void
forget(void)
{
	for (int i = 0; i < MAX_IDS; i++)
	{
		m1_buf_free(&answers[i].content);
		m1_buf_free(&answers[i].reasoning);
		m1_buf_free(&answers[i].streamed);
		m1_buf_free(&answers[i].logprobs);
	}
	memset(answers, 0, sizeof answers);
}

static m1_engine *
open_engine(int max_requests)
{
	static const m1_engine_events events = {
		.progress = on_progress, .delta = on_delta, .done = on_done, .vector = on_vector, .failed = on_failed};
	m1_engine_options options = {.model_path = MODEL, .device = "cpu", .threads = 1, .max_requests = max_requests};
	m1_engine *e;
	m1_error err;

	forget();
	assert_ok(m1_engine_open(&options, &events, &e, &err));
	return e;
}

static m1w_generate
constrained(const char *prompt, m1w_constraint kind, const char *text)
{
	return (m1w_generate){.prompt = m1_slice_of(prompt),
						  .system = m1_slice_of("You are a helpful assistant."),
						  .max_tokens = 1000,
						  .thinking_budget = -1,
						  .top_p = 0.95f,
						  .constraint = (uint8_t) kind,
						  .constraint_text = m1_slice_of(text)};
}

static void
submit(m1_engine *e, uint64_t id, const m1w_generate *g)
{
	m1_error err;

	assert_ok(m1_engine_generate(e, id, g, NULL, &err));
}

static void
run_all(m1_engine *e)
{
	bool busy = true;
	m1_error err;

	for (int step = 0; busy; step++)
	{
		assert_true(step < 100000);
		assert_ok(m1_engine_step(e, &busy, &err));
	}
}

static void
assert_text(const m1_buf *got, const char *want)
{
	if (got->len != strlen(want) || (got->len > 0 && memcmp(got->data, want, got->len) != 0))
		fail_msg("\"%.*s\" instead of \"%s\"", (int) got->len, got->data, want);
}

static double
logprob(uint64_t id, size_t i)
{
	return m1w_double_at((m1_slice){answers[id].logprobs.data, answers[id].logprobs.len}, i);
}

/* The content is JSON with both texts of SCHEMA. */
static void
assert_extracted(const answer *a)
{
	json_t *value = json_loadb(a->content.data, a->content.len, 0, NULL);

	if (!a->done || !json_is_string(json_object_get(value, "issue")) ||
		!json_is_string(json_object_get(value, "customer")) || json_object_size(value) != 2)
		fail_msg("\"%.*s\" does not satisfy the schema", (int) a->content.len, a->content.data);
	json_decref(value);
}

/* The model's reasoning is its own, and what it would have answered anyway it still answers. */
static void
test_answer_after_free_reasoning(void **state)
{
	m1_engine *e = open_engine(4);
	m1w_generate free_answer = constrained(EXTRACT, M1W_CONSTRAINT_NONE, "");
	m1w_generate json = constrained(EXTRACT, M1W_CONSTRAINT_JSON_SCHEMA, SCHEMA);
	m1w_generate choice = constrained("Answer yes or no: the customer wants a refund.\n\nHi, My kettle leaks water. I "
									  "want a refund. Ana",
									  M1W_CONSTRAINT_CHOICES, "[\"yes\", \"no\"]");
	m1w_generate regex = constrained("What is 47 + 35?", M1W_CONSTRAINT_REGEX, "[a-z]+: [0-9]{2}\n");

	(void) state;
	submit(e, 1, &free_answer);
	submit(e, 2, &json);
	submit(e, 3, &choice);
	submit(e, 4, &regex);
	run_all(e);
	assert_text(&answers[2].content, "{\"issue\": \"has a missing screw\", \"customer\": \"Wei\"}");
	assert_true(answers[1].content.len == answers[2].content.len &&
				memcmp(answers[1].content.data, answers[2].content.data, answers[1].content.len) == 0);
	assert_true(answers[1].reasoning.len > 0 && answers[1].reasoning.len == answers[2].reasoning.len &&
				memcmp(answers[1].reasoning.data, answers[2].reasoning.data, answers[1].reasoning.len) == 0);
	assert_text(&answers[3].content, "yes");
	/* to its last byte, which is a line break */
	assert_true(answers[4].content.len > 4 && answers[4].content.data[answers[4].content.len - 1] == '\n');
	assert_true(answers[4].reasoning.len > 0);
	for (int i = 2; i <= 4; i++)
		assert_int_equal(answers[i].facts.finish, M1W_FINISH_STOP);
	m1_engine_close(e);
}

/* However short of tokens: a budget of reasoning, none at all, barely enough for the answer. */
static void
test_short_of_tokens(void **state)
{
	m1_engine *e = open_engine(8);
	uint64_t id = 1;

	(void) state;
	for (int budget = -1; budget <= 20; budget += 7)
		for (int max_tokens = 45; max_tokens <= 120; max_tokens += 15)
		{
			m1w_generate g = constrained(EXTRACT, M1W_CONSTRAINT_JSON_SCHEMA, SCHEMA);

			g.thinking_budget = budget;
			g.max_tokens = max_tokens;
			g.temperature = 2.0f;
			g.top_p = 1.0f;
			g.seed = id;
			submit(e, id++, &g);
		}
	run_all(e);
	for (uint64_t i = 1; i < id; i++)
		assert_extracted(&answers[i]);
	m1_engine_close(e);
}

/* Where not even the shortest answer fits, the beginning of one is written, and the end says so. */
static void
test_too_short(void **state)
{
	m1_engine *e = open_engine(2);
	m1w_generate g = constrained(EXTRACT, M1W_CONSTRAINT_JSON_SCHEMA, SCHEMA);

	(void) state;
	g.thinking_budget = 0;
	g.max_tokens = 3;
	submit(e, 1, &g);
	g = constrained("x", M1W_CONSTRAINT_CHOICES, "[\"hardware\"]");
	g.thinking_budget = 0;
	g.max_tokens = 1;
	submit(e, 2, &g);
	run_all(e);
	assert_int_equal(answers[1].facts.finish, M1W_FINISH_LENGTH);
	assert_int_equal(answers[1].facts.completion_tokens, 3);
	assert_true(answers[1].content.len > 0 && memcmp(answers[1].content.data, "{\"issue\": \"",
													 answers[1].content.len < 11 ? answers[1].content.len : 11) == 0);
	assert_int_equal(answers[2].facts.finish,
					 answers[2].content.len == strlen("hardware") ? M1W_FINISH_STOP : M1W_FINISH_LENGTH);
	m1_engine_close(e);
}

/* Sampled, streamed, side by side with others: the answer of a seed is the same, and valid. */
static void
test_batches_and_streams(void **state)
{
	enum
	{
		N = 20
	};
	m1_engine *e = open_engine(8);
	m1_buf alone[N] = {{0}};

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		for (uint64_t i = 0; i < N; i++)
		{
			m1w_generate g = i % 4 == 0	  ? constrained("Hello.", M1W_CONSTRAINT_NONE, "")
							 : i % 4 == 1 ? constrained(EXTRACT, M1W_CONSTRAINT_REGEX, "([a-z]{1,9} ){2,5}")
										  : constrained(EXTRACT, M1W_CONSTRAINT_JSON_SCHEMA, SCHEMA);

			g.temperature = 1.5f;
			g.seed = i;
			g.thinking_budget = (int32_t) i;
			g.max_tokens = 150;
			g.stream = round == 1 && i % 2 == 1;
			submit(e, i + 1, &g);
			if (round == 0)
				run_all(e);
		}
		run_all(e);
		for (int i = 0; i < N; i++)
		{
			const m1_buf *text = answers[i + 1].streamed.len > 0 ? &answers[i + 1].streamed : &answers[i + 1].content;

			assert_true(answers[i + 1].done);
			if (round == 0)
				m1_buf_append(&alone[i], text->data, text->len);
			else
				assert_text(text, m1_buf_cstr(&alone[i]));
			if (i % 4 > 1 && round == 0)
				assert_extracted(&answers[i + 1]);
		}
		forget();
	}
	for (int i = 0; i < N; i++)
		m1_buf_free(&alone[i]);
	m1_engine_close(e);
}

/* ---- scored choices ---- */

#define YES_NO "Answer yes or no: the customer wants a refund.\n\nHi, My kettle leaks water. I want a refund. Ana"

static m1w_generate
scored(const char *prompt, const char *choices)
{
	m1w_generate g = constrained(prompt, M1W_CONSTRAINT_CHOICES, choices);

	g.score_choices = 1;
	g.thinking_budget = 0;
	return g;
}

/* The logarithm of the probability of id after ids, from a request for logits. */
static double
logprob_after(m1_engine *e, const m1_ids *ids, int32_t id)
{
	double sum = 0;
	m1_error err;
	float *logits;
	int vocab;
	double logprob;

	assert_ok(m1_engine_logits(e, MAX_IDS - 1, (m1w_id_slice){ids->data, ids->len}, &err));
	run_all(e);
	logits = (float *) (void *) answers[MAX_IDS - 1].content.data;
	vocab = (int) (answers[MAX_IDS - 1].content.len / sizeof *logits);
	for (int i = 0; i < vocab; i++)
		sum += exp((double) logits[i]);
	logprob = logits[id] - log(sum);
	m1_buf_free(&answers[MAX_IDS - 1].content);
	answers[MAX_IDS - 1].done = false;
	return logprob;
}

/* The same from logits of whole sequences: what a choice and the end of turn behind it have together. */
static void
assert_scores(m1_engine *e, const m1w_generate *g, const char *const *choices, size_t n, const m1_buf *got)
{
	const m1_tokenizer *t = m1_engine_model(e)->tokenizer;
	double want[8];
	double sum = 0;

	assert_int_equal(got->len, n * sizeof(double));
	for (size_t i = 0; i < n; i++)
	{
		m1_chat chat = {.system = g->system, .prompt = g->prompt};
		m1_chat_bounds bounds;
		m1_ids ids = {0};
		m1_ids choice = {0};
		m1_error err;

		assert_ok(m1_chat_render(t, &chat, &ids, &bounds, &err));
		assert_ok(
			m1_tokenizer_encode(t, m1_slice_of("<think>\n\n</think>\n\n"), M1_ADDED_PLAIN, &ids, NULL, NULL, &err));
		assert_ok(m1_tokenizer_encode(t, m1_slice_of(choices[i]), M1_ADDED_NONE, &choice, NULL, NULL, &err));
		m1_ids_push(&choice, m1_tokenizer_eos(t));
		want[i] = 0;
		for (size_t j = 0; j < choice.len; j++)
		{
			want[i] += logprob_after(e, &ids, choice.data[j]);
			m1_ids_push(&ids, choice.data[j]);
		}
		sum += exp(want[i]);
		m1_ids_free(&ids);
		m1_ids_free(&choice);
	}
	for (size_t i = 0; i < n; i++)
	{
		const double have = m1w_double_at((m1_slice){got->data, got->len}, i);

		if (!(fabs(have - (want[i] - log(sum))) < 1e-3))
			fail_msg("choice %zu: %g instead of %g", i, have, want[i] - log(sum));
	}
}

static void
test_scores_are_the_models(void **state)
{
	static const char *const choices[] = {"yes", "no", "hardware", "a", "ab", "maybe the customer does"};
	m1_engine *e = open_engine(2);
	m1w_generate g = scored(YES_NO, "[\"yes\", \"no\", \"hardware\", \"a\", \"ab\", \"maybe the customer does\"]");
	m1w_generate one = scored(YES_NO, "[\"only\"]");
	size_t likeliest = 0;
	double sum = 0;

	(void) state;
	submit(e, 1, &g);
	submit(e, 2, &one);
	run_all(e);
	for (size_t i = 0; i < 6; i++)
	{
		sum += exp(logprob(1, i));
		if (logprob(1, i) > logprob(1, likeliest))
			likeliest = i;
	}
	assert_true(fabs(sum - 1) < 1e-9);
	assert_scores(e, &g, choices, 6, &answers[1].logprobs);
	assert_text(&answers[1].content, choices[likeliest]);
	assert_int_equal(answers[1].facts.finish, M1W_FINISH_STOP);
	assert_int_equal(answers[1].facts.completion_tokens, 2);
	assert_text(&answers[2].content, "only");
	assert_int_equal(answers[2].logprobs.len, sizeof(double));
	assert_true(fabs(logprob(2, 0)) < 1e-12);
	m1_engine_close(e);
}

/* After reasoning, too; and bit for bit the same beside others, with the answer drawn by the probabilities. */
static void
test_scores_in_batches(void **state)
{
	enum
	{
		N = 24
	};
	m1_engine *e = open_engine(8);
	m1_buf alone[N] = {{0}};
	int drawn = 0;

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		for (uint64_t i = 0; i < N; i++)
		{
			m1w_generate g = scored(YES_NO, "[\"yes\", \"no\", \"hardware failure\"]");

			g.thinking_budget = (int32_t) (i % 3) * 4 - 1;
			g.temperature = i < 4 ? 0.0f : 20.0f;
			g.top_p = 1.0f;
			g.seed = i;
			g.max_tokens = 100;
			submit(e, i + 1, &g);
			if (round == 0)
				run_all(e);
		}
		run_all(e);
		for (int i = 0; i < N; i++)
		{
			const answer *a = &answers[i + 1];

			assert_true(a->done && a->logprobs.len == 3 * sizeof(double) && a->content.len > 0);
			assert_true(i >= 4 || a->reasoning.len > 0);
			if (round == 0)
			{
				m1_buf_append(&alone[i], a->logprobs.data, a->logprobs.len);
				drawn += a->content.len != 3;
			}
			else
				assert_memory_equal(alone[i].data, a->logprobs.data, a->logprobs.len);
		}
		forget();
	}
	/* at such a temperature the three are nearly alike */
	assert_true(drawn > 4 && drawn < N - 4);
	for (int i = 0; i < N; i++)
		m1_buf_free(&alone[i]);
	m1_engine_close(e);
}

static void
test_scores_that_do_not_fit(void **state)
{
	m1_engine *e = open_engine(2);
	m1w_generate g = scored(YES_NO, "[\"yes\", \"no\", \"hardware failure of the whole thing\"]");
	bool busy;
	m1_error err;

	(void) state;
	for (g.max_tokens = 1; m1_engine_generate(e, 1, &g, NULL, &err) != M1_OK; g.max_tokens++)
	{
		assert_int_equal(err.code, M1_E_INVALID_ARGUMENT);
		assert_non_null(strstr(err.message, "longest choice"));
	}
	assert_true(g.max_tokens > 5);
	g.thinking_budget = -1;
	submit(e, 2, &g); /* no room for any reasoning */
	g.prompt = m1_slice_of("What is 47 + 35?");
	g.max_tokens = 60; /* not for all of it: it is closed in time */
	submit(e, 3, &g);
	run_all(e);
	assert_int_equal(answers[1].facts.finish, M1W_FINISH_STOP);
	assert_int_equal(answers[1].logprobs.len, 3 * sizeof(double));
	assert_int_equal(answers[2].facts.finish, M1W_FINISH_LENGTH);
	assert_int_equal(answers[2].logprobs.len, 0);
	assert_int_equal(answers[3].facts.finish, M1W_FINISH_THINKING_BUDGET);
	assert_int_equal(answers[3].logprobs.len, 3 * sizeof(double));
	assert_true(answers[3].facts.completion_tokens <= 60);
	/* gone in the middle */
	g.thinking_budget = 0;
	submit(e, 4, &g);
	for (int i = 0; i < 5; i++)
		assert_ok(m1_engine_step(e, &busy, &err));
	assert_true(busy);
	m1_engine_cancel(e, 4);
	run_all(e);
	assert_int_equal(answers[4].error.code, M1_E_CANCELLED);
	m1_engine_close(e);
}

/* With memory for one context and no more, scoring requests wait for each other, and none fails. */
static void
test_scores_in_little_memory(void **state)
{
	static const m1_engine_events events = {
		.progress = on_progress, .delta = on_delta, .done = on_done, .vector = on_vector, .failed = on_failed};
	const m1_engine_options options = {
		.model_path = MODEL, .device = "cpu", .threads = 1, .max_requests = 4, .max_context = 256};
	m1_engine_options enough = options;
	m1_engine *e = NULL;
	m1_error err;

	(void) state;
	forget();
	/* the smallest pool that holds the context */
	for (enough.kv_bytes = 4096; e == NULL || m1_engine_info(e).context < 256; enough.kv_bytes += 4096)
	{
		m1_engine_close(e);
		if (m1_engine_open(&enough, &events, &e, &err) != M1_OK)
			e = NULL;
	}
	for (uint64_t i = 1; i <= 6; i++)
	{
		m1w_generate g = scored(YES_NO, "[\"yes\", \"no\", \"hardware failure\"]");

		g.thinking_budget = i % 2 == 0 ? 0 : -1;
		g.max_tokens = i < 3 ? 81920 : 40;
		submit(e, i, &g);
	}
	run_all(e);
	for (int i = 1; i <= 6; i++)
		assert_true(answers[i].done && answers[i].logprobs.len == 3 * sizeof(double));
	m1_engine_close(e);
}

static void
test_refusals(void **state)
{
	m1_engine *e = open_engine(1);
	const m1w_generate good = constrained("Hello.", M1W_CONSTRAINT_REGEX, "a");
	int32_t ids[] = {1};
	m1w_generate bad[6];
	static const char *const messages[] = {"empty",		"stop strings",	 "call tools",
										   "token ids", "only a choice", "a ( without"};
	m1_error err;

	(void) state;
	for (int i = 0; i < 6; i++)
		bad[i] = good;
	bad[0].constraint_text = m1_slice_of("");
	bad[1].n_stops = 1;
	bad[1].stops[0] = m1_slice_of("x");
	bad[2].tools = m1_slice_of("[{\"name\": \"f\"}]");
	bad[2].constraint = M1W_CONSTRAINT_CHOICES;
	bad[2].constraint_text = m1_slice_of("[\"a\"]");
	bad[2].score_choices = 1;
	bad[3].prompt = m1_slice_of("");
	bad[3].ids = (m1w_id_slice){ids, 1};
	bad[4].score_choices = 1; /* a regular expression has none */
	bad[5].constraint_text = m1_slice_of("(");
	for (int i = 0; i < 6; i++)
		if (m1_engine_generate(e, 1, &bad[i], NULL, &err) != M1_E_INVALID_ARGUMENT ||
			strstr(err.message, messages[i]) == NULL)
			fail_msg("bad request %d: \"%s\" instead of \"%s\"", i, err.message, messages[i]);
	m1_engine_close(e);
}

/* More different constraints than are kept, each asked for twice. */
static void
test_many_constraints(void **state)
{
	m1_engine *e = open_engine(8);

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		for (uint64_t i = 1; i <= 40; i++)
		{
			char text[32];
			m1w_generate g;

			snprintf(text, sizeof text, "n%u", (unsigned) i);
			g = constrained("Hello.", M1W_CONSTRAINT_REGEX, text);
			g.thinking_budget = 0;
			submit(e, i, &g);
		}
		run_all(e);
		for (int i = 1; i <= 40; i++)
		{
			char text[32];

			snprintf(text, sizeof text, "n%d", i);
			assert_text(&answers[i].content, text);
		}
		forget();
	}
	m1_engine_close(e);
}

/* ---- masks that take more than a step ---- */

#define N_SLOW 6

/* A request whose masks remember, for hundreds of characters, where each e was. */
static m1w_generate
slow_request(int i, char *pattern, size_t size)
{
	m1w_generate g;

	snprintf(pattern, size, "^.*e.{%d}$", 200 + i);
	g = constrained("What can you do?", M1W_CONSTRAINT_REGEX, pattern);
	g.thinking_budget = 0;
	g.max_tokens = 300;
	g.temperature = 1.0f;
	g.seed = (uint64_t) i;
	return g;
}

static m1w_generate
quick_request(void)
{
	m1w_generate g = constrained(EXTRACT, M1W_CONSTRAINT_JSON_SCHEMA, SCHEMA);

	g.thinking_budget = 0;
	return g;
}

static int
steps_until_done(m1_engine *e, uint64_t id)
{
	bool busy = true;
	m1_error err;
	int steps = 0;

	for (; !answers[id].done; steps++)
	{
		assert_true(busy && !answers[id].failed);
		assert_ok(m1_engine_step(e, &busy, &err));
	}
	return steps;
}

/* Who needs long masks waits for them without the others, and answers as if alone. */
static void
test_long_masks_hold_up_nobody(void **state)
{
	m1_buf alone[N_SLOW + 1] = {{0}};
	m1_engine *e = open_engine(N_SLOW + 2);
	char pattern[N_SLOW + 2][32];
	m1w_generate quick = quick_request();
	m1w_generate slow;
	int steps_alone;
	bool busy;
	m1_error err;

	(void) state;
	submit(e, 1, &quick);
	steps_alone = steps_until_done(e, 1);
	m1_buf_append(&alone[0], answers[1].content.data, answers[1].content.len);
	for (int i = 1; i <= N_SLOW; i++)
	{
		forget();
		slow = slow_request(i, pattern[i], sizeof pattern[i]);
		submit(e, 1, &slow);
		run_all(e);
		m1_buf_append(&alone[i], answers[1].content.data, answers[1].content.len);
	}
	m1_engine_close(e);

	/* another engine, which knows none of the masks */
	e = open_engine(N_SLOW + 2);
	for (int i = 1; i <= N_SLOW; i++)
	{
		slow = slow_request(i, pattern[i], sizeof pattern[i]);
		submit(e, (uint64_t) i, &slow);
	}
	slow = slow_request(N_SLOW + 1, pattern[N_SLOW + 1], sizeof pattern[N_SLOW + 1]);
	submit(e, N_SLOW + 1, &slow);
	for (int i = 0; i < 3; i++)
		assert_ok(m1_engine_step(e, &busy, &err));
	/* one is cancelled and one pauses while their masks are half done */
	m1_engine_cancel(e, N_SLOW + 1);
	assert_ok(m1_engine_step(e, &busy, &err));
	assert_int_equal(answers[N_SLOW + 1].error.code, M1_E_CANCELLED);
	m1_engine_pause(e, N_SLOW);
	submit(e, N_SLOW + 2, &quick);
	/* a mask may wait for its turn for a step or two */
	assert_true(steps_until_done(e, N_SLOW + 2) <= 3 * steps_alone + 3);
	for (int i = 1; i <= N_SLOW; i++)
		assert_false(answers[i].done);
	m1_engine_resume(e, N_SLOW);
	run_all(e);
	assert_text(&answers[N_SLOW + 2].content, m1_buf_cstr(&alone[0]));
	for (int i = 1; i <= N_SLOW; i++)
		assert_text(&answers[i].content, m1_buf_cstr(&alone[i]));
	for (int i = 0; i <= N_SLOW; i++)
		m1_buf_free(&alone[i]);
	m1_engine_close(e);
}

static int
teardown(void **state)
{
	(void) state;
	forget();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_after_free_reasoning),
		cmocka_unit_test(test_short_of_tokens),
		cmocka_unit_test(test_too_short),
		cmocka_unit_test(test_batches_and_streams),
		cmocka_unit_test(test_scores_are_the_models),
		cmocka_unit_test(test_scores_in_batches),
		cmocka_unit_test(test_scores_that_do_not_fit),
		cmocka_unit_test(test_scores_in_little_memory),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_many_constraints),
		cmocka_unit_test(test_long_masks_hold_up_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
