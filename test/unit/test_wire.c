/*
 * test_wire.c - messages survive the wire; anything cut short, too long or out of range is refused.
 */
#include "testing.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "wire/message.h"

static void
assert_slice(m1_slice got, m1_slice want)
{
	assert_int_equal(got.len, want.len);
	if (want.len > 0)
		assert_memory_equal(got.data, want.data, want.len);
}

/* Decodes every prefix of a payload, and the payload with a byte more: only the whole one is accepted. */
#define ASSERT_ONLY_WHOLE(name, payload)                                                                  \
	do                                                                                                    \
	{                                                                                                     \
		m1w_##name m;                                                                                     \
		m1_error refused;                                                                                 \
		for (size_t n = 0; n < (payload)->len; n++)                                                       \
		{                                                                                                 \
			char *copy = malloc(n + 1); /* exact size, so that a sanitizer sees any byte too far */       \
			memcpy(copy, (payload)->data, n);                                                             \
			char *exact = realloc(copy, n > 0 ? n : 1);                                                   \
			assert_int_equal(m1w_decode_##name(exact, n, &m, &refused), M1_E_CORRUPT);                    \
			free(exact);                                                                                  \
		}                                                                                                 \
		m1_buf_append(payload, "", 1);                                                                    \
		assert_int_equal(m1w_decode_##name((payload)->data, (payload)->len, &m, &refused), M1_E_CORRUPT); \
		m1_buf_free(payload);                                                                             \
	} while (0)

static void
test_generate(void **state)
{
	const int32_t ids[] = {1, -2, 3};
	m1w_generate in = {.prompt = m1_slice_of("prompt"),
					   .template_len = 4,
					   .cache_owner = UINT64_MAX - 1,
					   .system = m1_slice_of("s"),
					   .messages = m1_slice_of("[1]"),
					   .tools = m1_slice_of(""),
					   .tool_choice = m1_slice_of("auto"),
					   .ids = {ids, 3},
					   .max_tokens = 5,
					   .thinking_budget = -1,
					   .temperature = 0.5f,
					   .top_p = 0.25f,
					   .top_k = 7,
					   .seed = UINT64_MAX,
					   .stream = 1,
					   .n_stops = 2,
					   .stops = {m1_slice_of("a"), m1_slice_of("bb")},
					   .constraint = M1W_CONSTRAINT_CHOICES,
					   .constraint_text = m1_slice_of("[\"x\"]"),
					   .logprobs = 1,
					   .top_logprobs = M1W_MAX_TOP_LOGPROBS,
					   .score_choices = 1,
					   .adapter = m1_slice_of("poet"),
					   .keep = 1,
					   .background = 1};
	m1w_generate out;
	m1_buf payload = {0};
	m1_error err;

	(void) state;
	assert_true(m1w_encode_generate(&payload, &in));
	assert_ok(m1w_decode_generate(payload.data, payload.len, &out, &err));
	assert_slice(out.prompt, in.prompt);
	assert_int_equal(out.template_len, 4);
	assert_true(out.cache_owner == UINT64_MAX - 1);
	assert_slice(out.system, in.system);
	assert_slice(out.messages, in.messages);
	assert_slice(out.tools, in.tools);
	assert_slice(out.tool_choice, in.tool_choice);
	assert_int_equal(out.ids.len, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(m1w_id_at(out.ids, i), ids[i]);
	assert_int_equal(out.max_tokens, 5);
	assert_int_equal(out.thinking_budget, -1);
	assert_true(out.temperature == 0.5f && out.top_p == 0.25f && out.top_k == 7);
	assert_true(out.seed == UINT64_MAX && out.stream == 1);
	assert_int_equal(out.n_stops, 2);
	assert_slice(out.stops[1], in.stops[1]);
	assert_int_equal(out.constraint, M1W_CONSTRAINT_CHOICES);
	assert_slice(out.constraint_text, in.constraint_text);
	assert_int_equal(out.logprobs, 1);
	assert_int_equal(out.top_logprobs, M1W_MAX_TOP_LOGPROBS);
	assert_int_equal(out.score_choices, 1);
	assert_slice(out.adapter, in.adapter);
	ASSERT_ONLY_WHOLE(generate, &payload);

	in.n_stops = M1W_MAX_STOPS + 1;
	assert_false(m1w_encode_generate(&payload, &in));
	in.n_stops = 0;
	in.constraint = M1W_CONSTRAINT_COUNT;
	assert_false(m1w_encode_generate(&payload, &in));
	in.constraint = M1W_CONSTRAINT_NONE;
	in.top_logprobs++;
	assert_false(m1w_encode_generate(&payload, &in));
	m1_buf_free(&payload);
}

static void
test_answers(void **state)
{
	const int32_t ids[] = {4, 5};
	const double logprobs[] = {-0.5, -2};
	m1w_done done = {.content = m1_slice_of("c"),
					 .reasoning = m1_slice_of("r"),
					 .tool_calls = m1_slice_of("[]"),
					 .ids = {ids, 2},
					 .finish = M1W_FINISH_LOOP,
					 .seed = 9,
					 .decode_ms = 1.5,
					 .choice_logprobs = {(const char *) logprobs, sizeof logprobs},
					 .logprobs = m1_slice_of("[{}]"),
					 .prompt_ids = {ids, 2},
					 .sampled_logprobs = {(const char *) logprobs, sizeof logprobs},
					 .experts = m1_slice_of("ab"),
					 .masked = {ids, 1},
					 .masks = m1_slice_of("01234567"),
					 .mask_of = {ids + 1, 1}};
	m1w_ready ready = {.name = m1_slice_of("n"), .parameters = (uint64_t) 1 << 60, .has_tokenizer = 1};
	m1w_tokens tokens = {.ids = {ids, 2}, .ends = {ids, 2}};
	m1w_delta delta = {.channel = M1W_REASONING, .text = m1_slice_of("x")};
	m1w_cache cache = {.snapshots = 3, .bytes = (uint64_t) 1 << 40};
	m1w_progress progress = {.phase = M1W_PHASE_DECODE, .generated = 3};
	float floats[] = {1, 2};
	m1w_vector vector = {.values = {(const char *) floats, sizeof floats}};
	m1w_text text = {.text = m1_slice_of("words")};
	m1w_words words = {.text = m1_slice_of("words"), .tags = 1, .wanted = M1W_WANT_COUNT};
	m1w_counted counted = {.tokens = (int64_t) 1 << 40};
	m1w_done done_out;
	m1w_ready ready_out;
	m1_buf payload = {0};
	m1_error err;

	(void) state;
	assert_true(m1w_encode_done(&payload, &done));
	assert_ok(m1w_decode_done(payload.data, payload.len, &done_out, &err));
	assert_slice(done_out.tool_calls, done.tool_calls);
	assert_int_equal(done_out.finish, M1W_FINISH_LOOP);
	assert_true(done_out.decode_ms == 1.5);
	assert_int_equal(done_out.choice_logprobs.len, sizeof logprobs);
	assert_true(m1w_double_at(done_out.choice_logprobs, 1) == -2);
	assert_slice(done_out.logprobs, done.logprobs);
	ASSERT_ONLY_WHOLE(done, &payload);
	assert_true(m1w_encode_ready(&payload, &ready));
	assert_ok(m1w_decode_ready(payload.data, payload.len, &ready_out, &err));
	assert_true(ready_out.parameters == ready.parameters);
	ASSERT_ONLY_WHOLE(ready, &payload);
	assert_true(m1w_encode_tokens(&payload, &tokens));
	ASSERT_ONLY_WHOLE(tokens, &payload);
	assert_true(m1w_encode_delta(&payload, &delta));
	ASSERT_ONLY_WHOLE(delta, &payload);
	assert_true(m1w_encode_cache(&payload, &cache));
	ASSERT_ONLY_WHOLE(cache, &payload);
	assert_true(m1w_encode_progress(&payload, &progress));
	ASSERT_ONLY_WHOLE(progress, &payload);
	assert_true(m1w_encode_vector(&payload, &vector));
	ASSERT_ONLY_WHOLE(vector, &payload);
	assert_true(m1w_encode_words(&payload, &words));
	ASSERT_ONLY_WHOLE(words, &payload);
	assert_true(m1w_encode_counted(&payload, &counted));
	ASSERT_ONLY_WHOLE(counted, &payload);
	assert_true(m1w_encode_text(&payload, &text));
	ASSERT_ONLY_WHOLE(text, &payload);
}

static void
test_learning(void **state)
{
	const int32_t ids[] = {7, 8, 9};
	const float floats[] = {0.5f, -1, 2};
	const uint16_t experts[] = {1, M1W_NO_EXPERT, 3};
	const m1_slice array = {(const char *) floats, sizeof floats};
	const m1w_bytes bytes = {.name = m1_slice_of("n"), .part = 1, .total = 9, .offset = 4, .bytes = m1_slice_of("ab")};
	const m1w_training training = {
		.name = m1_slice_of("n"), .rank = 16, .targets = m1_slice_of("w1"), .alpha = 0.5f, .seed = UINT64_MAX};
	const m1w_lesson lesson = {.training = m1_slice_of("n"),
							   .loss = M1W_LOSS_DAPO,
							   .update = 1,
							   .cap = 5,
							   .tokens = 0.25,
							   .clip = 3,
							   .lengths = {ids, 1},
							   .prompts = {ids, 2},
							   .shares = {ids, 3},
							   .advantages = array,
							   .ids = {ids + 1, 2},
							   .weights = array,
							   .ref_logprobs = array,
							   .experts = {(const char *) experts, sizeof experts},
							   .masked = {ids, 1},
							   .masks = m1_slice_of("01234567"),
							   .mask_of = {ids + 1, 1}};
	const m1w_learned learned = {.updates = 3, .loss = 0.5, .bytes = 7, .digest = m1_slice_of("d"), .logprobs = array};
	const m1w_serve serve = {.name = m1_slice_of("a"), .from = m1_slice_of("n")};
	const m1w_forget forget = {.kind = M1W_KEPT_ADAPTER, .name = m1_slice_of("a")};
	m1w_lesson lesson_out;
	m1_buf payload = {0};
	m1_error err;

	(void) state;
	assert_true(m1w_encode_lesson(&payload, &lesson));
	assert_ok(m1w_decode_lesson(payload.data, payload.len, &lesson_out, &err));
	assert_true(lesson_out.loss == M1W_LOSS_DAPO && lesson_out.update == 1 && lesson_out.cap == 5 &&
				lesson_out.tokens == 0.25 && lesson_out.clip == 3 && lesson_out.old_logprobs.len == 0);
	assert_int_equal(lesson_out.lengths.len, 1);
	assert_int_equal(m1w_id_at(lesson_out.shares, 2), 9);
	assert_int_equal(m1w_id_at(lesson_out.ids, 1), 9);
	assert_int_equal(m1w_id_at(lesson_out.mask_of, 0), m1w_id_at(lesson.mask_of, 0));
	assert_memory_equal(lesson_out.weights.data, floats, sizeof floats);
	assert_memory_equal(lesson_out.experts.data, experts, sizeof experts);
	ASSERT_ONLY_WHOLE(lesson, &payload);
	assert_true(m1w_encode_bytes(&payload, &bytes));
	ASSERT_ONLY_WHOLE(bytes, &payload);
	assert_true(m1w_encode_training(&payload, &training));
	ASSERT_ONLY_WHOLE(training, &payload);
	assert_true(m1w_encode_learned(&payload, &learned));
	ASSERT_ONLY_WHOLE(learned, &payload);
	assert_true(m1w_encode_serve(&payload, &serve));
	ASSERT_ONLY_WHOLE(serve, &payload);
	assert_true(m1w_encode_forget(&payload, &forget));
	ASSERT_ONLY_WHOLE(forget, &payload);
}

static void
test_learning_out_of_range(void **state)
{
	static const char long_name[M1W_MAX_NAME + 1] = "x";
	const m1w_bytes parts = {.name = m1_slice_of("n"), .part = M1W_PART_COUNT};
	const m1w_training no_name = {.rank = 1};
	const m1w_training too_long = {.name = {long_name, sizeof long_name}};
	const m1w_lesson losses = {.training = m1_slice_of("n"), .loss = M1W_LOSS_COUNT};
	const m1w_lesson ragged = {.training = m1_slice_of("n"), .experts = m1_slice_of("abc")};
	const m1w_learned odd = {.logprobs = m1_slice_of("ab")};
	const m1w_forget kinds = {.kind = M1W_KEPT_COUNT, .name = m1_slice_of("n")};
	m1_buf payload = {0};

	(void) state;
	assert_false(m1w_encode_bytes(&payload, &parts));
	assert_false(m1w_encode_training(&payload, &no_name));
	assert_false(m1w_encode_training(&payload, &too_long));
	assert_false(m1w_encode_lesson(&payload, &losses));
	assert_false(m1w_encode_lesson(&payload, &ragged));
	assert_false(m1w_encode_learned(&payload, &odd));
	assert_false(m1w_encode_forget(&payload, &kinds));
	m1_buf_free(&payload);
}

static void
test_out_of_range(void **state)
{
	m1w_delta delta = {.channel = M1W_CHANNEL_COUNT};
	m1w_done done = {.finish = M1W_FINISH_COUNT};
	m1w_done ragged = {.choice_logprobs = m1_slice_of("abc")};
	m1w_failure none = {.code = M1_OK};
	m1w_failure beyond = {.code = M1_STATUS_COUNT};
	m1w_vector odd = {.values = m1_slice_of("abc")};
	m1_buf payload = {0};

	(void) state;
	assert_false(m1w_encode_delta(&payload, &delta));
	assert_false(m1w_encode_done(&payload, &done));
	assert_false(m1w_encode_done(&payload, &ragged));
	assert_false(m1w_encode_failure(&payload, &none));
	assert_false(m1w_encode_failure(&payload, &beyond));
	assert_false(m1w_encode_vector(&payload, &odd));
	m1_buf_free(&payload);
}

static void
test_errors_travel(void **state)
{
	m1_error in;
	m1_error out;
	m1_error err;
	m1w_failure failure;
	m1w_failure decoded;
	m1_buf payload = {0};

	(void) state;
	m1_fail(&in, M1_E_DEVICE, "the %s", "GPU");
	m1_error_detail(&in, "d");
	m1_error_hint(&in, "h");
	failure = m1w_failure_of(&in);
	assert_true(m1w_encode_failure(&payload, &failure));
	assert_ok(m1w_decode_failure(payload.data, payload.len, &decoded, &err));
	m1w_failure_to_error(&decoded, &out);
	assert_int_equal(out.code, M1_E_DEVICE);
	assert_string_equal(out.message, "the GPU");
	assert_string_equal(out.detail, "d");
	assert_string_equal(out.hint, "h");
	ASSERT_ONLY_WHOLE(failure, &payload);
}

static void
test_frames(void **state)
{
	m1_buf stream = {0};
	m1w_header h;
	m1_error err;
	bool complete;

	(void) state;
	assert_true(m1w_frame_append(&stream, M1W_CANCEL, 7, NULL, 0, 0));
	assert_true(m1w_frame_append(&stream, M1W_TEXT, 8, "abc", 3, 0));
	assert_ok(m1w_frame_peek(stream.data, stream.len, &h, &complete, &err));
	assert_true(complete && h.type == M1W_CANCEL && h.request_id == 7 && h.length == 0);
	for (size_t n = 0; n < sizeof h + 3; n++)
	{
		assert_ok(m1w_frame_peek(stream.data + sizeof h, n, &h, &complete, &err));
		assert_false(complete);
	}
	assert_ok(m1w_frame_peek(stream.data + sizeof h, stream.len - sizeof h, &h, &complete, &err));
	assert_true(complete && h.length == 3);

	m1_buf_free(&stream);
}

static m1_status
judge_header(m1w_header h)
{
	m1w_header read;
	m1_error err;
	bool complete;

	return m1w_frame_peek(&h, sizeof h, &read, &complete, &err);
}

#define HEADER(...) ((m1w_header){.magic = M1W_MAGIC, .version = M1W_VERSION, .type = M1W_TEXT, __VA_ARGS__})

/* Only what can be a part of a message is one: not a short one, and not of more than a message may have. */
static void
test_headers(void **state)
{
	(void) state;
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART)), M1_OK);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART, .more = 1)), M1_OK);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART, .more = M1W_MAX_PAYLOAD - M1W_MAX_PART)), M1_OK);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART + 1)), M1_E_CORRUPT);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART, .more = M1W_MAX_PAYLOAD - M1W_MAX_PART + 1)),
					 M1_E_CORRUPT);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART, .more = UINT32_MAX)), M1_E_CORRUPT);
	assert_int_equal(judge_header(HEADER(.length = M1W_MAX_PART - 1, .more = 1)), M1_E_CORRUPT);
	assert_int_equal(judge_header(HEADER(.length = 0, .more = 1)), M1_E_CORRUPT);
	assert_int_equal(judge_header((m1w_header){.magic = M1W_MAGIC, .version = M1W_VERSION + 1}), M1_E_CORRUPT);
	assert_int_equal(judge_header((m1w_header){.magic = M1W_MAGIC + 1, .version = M1W_VERSION}), M1_E_CORRUPT);
}

/* A message in parts is the same when it has been put together, whatever other messages come between. */
static void
test_parts(void **state)
{
	enum
	{
		LENGTH = 2 * M1W_MAX_PART + 5
	};
	m1_buf message = {0};
	m1w_assembly a = {0};
	size_t done = 0;

	(void) state;
	for (int i = 0; i < LENGTH; i++)
		m1_buf_append(&message, &(char){(char) (i * 7)}, 1);
	while (done < LENGTH)
	{
		const size_t part = LENGTH - done < M1W_MAX_PART ? LENGTH - done : M1W_MAX_PART;
		const m1w_header h = {.type = M1W_TEXT, .length = (uint32_t) part, .more = (uint32_t) (LENGTH - done - part)};

		assert_true(m1w_assembly_add(&a, &h, message.data + done));
		done += part;
		assert_int_equal(a.more, LENGTH - done);
	}
	assert_int_equal(a.payload.len, LENGTH);
	assert_memory_equal(a.payload.data, message.data, LENGTH);
	m1_buf_free(&a.payload);
	m1_buf_free(&message);
}

static void
test_parts_that_do_not_follow(void **state)
{
	m1w_assembly a = {0};

	(void) state;
	assert_true(m1w_assembly_follow(&a, M1W_TEXT, M1W_MAX_PART, 100));
	assert_false(m1w_assembly_follow(&a, M1W_TEXT, 99, 0));
	assert_false(m1w_assembly_follow(&a, M1W_TEXT, 101, 0));
	assert_false(m1w_assembly_follow(&a, M1W_TOKENS, 100, 0));
	assert_true(m1w_assembly_follow(&a, M1W_TEXT, 100, 0));
	assert_true(m1w_assembly_follow(&a, M1W_TOKENS, 8, 0));
}

/* Random bytes are refused or decoded, never read past their end. */
static void
test_noise(void **state)
{
	uint64_t seed = 1;

	(void) state;
	for (int round = 0; round < 20000; round++)
	{
		size_t n = test_random(&seed) % 80;
		unsigned char *noise = malloc(n + (n == 0));
		m1w_generate g;
		m1w_done d;
		m1w_tokens t;
		m1_error err;

		for (size_t i = 0; i < n; i++)
			noise[i] = test_random(&seed) % 3 == 0 ? (unsigned char) test_random(&seed) : 0;
		(void) m1w_decode_generate(noise, n, &g, &err);
		(void) m1w_decode_done(noise, n, &d, &err);
		(void) m1w_decode_tokens(noise, n, &t, &err);
		free(noise);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generate),	 cmocka_unit_test(test_answers),
		cmocka_unit_test(test_learning),	 cmocka_unit_test(test_learning_out_of_range),
		cmocka_unit_test(test_out_of_range), cmocka_unit_test(test_errors_travel),
		cmocka_unit_test(test_frames),		 cmocka_unit_test(test_headers),
		cmocka_unit_test(test_parts),		 cmocka_unit_test(test_parts_that_do_not_follow),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
