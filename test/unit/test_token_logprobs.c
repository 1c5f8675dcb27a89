/*
 * test_token_logprobs.c - the probabilities of written tokens: their values and order, what each token is part of, and the
 * JSON that tells them.
 */
#include "tokenizer_testing.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/token_logprobs.h"
#include "text/jsonparse.h"
#include "wire/message.h"

static float logits[VOCAB];

/* Writes a text as the model might have, each token with the same logits but for itself, and returns what is told. */
static json_t *
told(const char *text, int top)
{
	m1_token_logprobs *p = m1_token_logprobs_create(tokenizer, top);
	m1_reply *reply = m1_reply_create(tokenizer, NULL, 0);
	m1_ids ids = {0};
	m1_buf json = {0};
	json_t *all;
	m1_error err;

	m1_reply_take_calls(reply);
	assert_ok(m1_tokenizer_encode(tokenizer, m1_slice_of(text), M1_ADDED_PLAIN, &ids, NULL, NULL, &err));
	for (size_t i = 0; i < ids.len; i++)
	{
		const m1_reply_state before = m1_reply_where(reply);

		logits[ids.data[i]] += 3;
		m1_token_logprobs_measure(p, logits, VOCAB, ids.data[i]);
		logits[ids.data[i]] -= 3;
		assert_true(m1_reply_push(reply, ids.data[i]));
		assert_true(m1_token_logprobs_note(p, before, reply));
	}
	assert_true(m1_token_logprobs_write(p, &json));
	all = json_loadb(json.data, json.len, 0, NULL);
	assert_int_equal(json_array_size(all), ids.len);
	m1_token_logprobs_free(p);
	m1_reply_free(reply);
	m1_ids_free(&ids);
	m1_buf_free(&json);
	return all;
}

/* The tokens of a channel, one after the other. */
static void
assert_channel(const json_t *all, const char *channel, const char *want)
{
	m1_buf got = {0};
	const json_t *one;
	size_t i;

	json_array_foreach (all, i, one)
		if (strcmp(json_string_value(json_object_get(one, "channel")), channel) == 0)
			m1_buf_puts(&got, json_string_value(json_object_get(one, "token")));
	assert_string_equal(got.len > 0 ? m1_buf_cstr(&got) : "", want);
	m1_buf_free(&got);
}

static double
number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static void
test_values(void **state)
{
	json_t *all = told("Hello", 3);
	const json_t *first = json_array_get(all, 0);
	const json_t *top = json_object_get(first, "top_logprobs");
	const double share = log(VOCAB - 1 + exp(3));

	(void) state;
	assert_true(fabs(number(first, "logprob") - (3 - share)) < 1e-4);
	assert_int_equal(json_array_size(top), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(top, 0), "token")),
						json_string_value(json_object_get(first, "token")));
	for (size_t i = 1; i < 3; i++) /* of equal ones those with the lowest ids, which are bytes or control tokens */
		assert_true(fabs(number(json_array_get(top, i), "logprob") + share) < 1e-4);
	json_decref(all);
	all = told("Hello", 0);
	assert_int_equal(json_array_size(json_object_get(json_array_get(all, 0), "top_logprobs")), 0);
	json_decref(all);
}

/* A token that nothing speaks for has a number, too; JSON has no infinity. */
static void
test_impossible(void **state)
{
	json_t *all;

	(void) state;
	for (int i = 0; i < VOCAB; i++)
		logits[i] = -1e30f;
	logits[7] = 1e30f;
	all = told("x", 1);
	assert_true(number(json_array_get(all, 0), "logprob") == -9999);
	json_decref(all);
	memset(logits, 0, sizeof logits);
}

static void
test_channels(void **state)
{
	static const struct
	{
		const char *text, *reasoning, *content, *calls;
	} cases[] = {
		{"Hello there.", "", "Hello there.", ""},
		{"<think>\nWell.\n</think>\n\nHello.", "<think>\nWell.\n</think>\n\n", "Hello.", ""},
		{"  Hello", "", "  Hello", ""},
		{"<b>", "", "<b>", ""},
		{"So:\n<tool_calls>\n{}\n</tool_calls>", "", "So:\n", "<tool_calls>\n{}\n</tool_calls>"},
		{"<think>\nA\n</think>\n\n<tool_calls>\n{}", "<think>\nA\n</think>\n\n", "", "<tool_calls>\n{}"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		json_t *all = told(cases[i].text, 1);

		assert_channel(all, "reasoning", cases[i].reasoning);
		assert_channel(all, "content", cases[i].content);
		assert_channel(all, "tool_calls", cases[i].calls);
		json_decref(all);
	}
}

/* The bytes of a character that is several tokens are told, whatever their tokens look like. */
static void
test_bytes(void **state)
{
	const char *text = "\xE2\x82\xAC\xF0\x9F\x98\x80"; /* U+20AC, U+1F600 */
	json_t *all = told(text, 2);
	const json_t *one;
	const json_t *byte;
	size_t at = 0;
	size_t i;
	size_t k;

	(void) state;
	json_array_foreach (all, i, one)
		json_array_foreach (json_object_get(one, "bytes"), k, byte)
			assert_int_equal(json_integer_value(byte), (unsigned char) text[at++]);
	assert_int_equal(at, strlen(text));
	json_decref(all);
}

static double
seconds(void)
{
	return (double) clock() / CLOCKS_PER_SEC;
}

/* As many as may be asked for: the end of such a reply takes no time that others wait for, and its JSON can be read. */
static void
test_many(void **state)
{
	const int top = M1W_MAX_TOP_LOGPROBS;
	const int n = M1_MAX_LOGPROBS / (top + 1);
	m1_token_logprobs *p = m1_token_logprobs_create(tokenizer, top);
	m1_reply *reply = m1_reply_create(tokenizer, NULL, 0);
	m1_buf json = {0};
	m1_json_doc doc;
	double noting = 0;
	double began;
	m1_error err;

	(void) state;
	for (int i = 0; i < n; i++)
	{
		m1_token_logprobs_measure(p, logits, VOCAB, 256 + i % 1000);
		assert_true(m1_reply_push(reply, 256 + i % 1000));
		began = seconds();
		assert_true(m1_token_logprobs_note(p, M1_REPLY_CONTENT, reply));
		noting += seconds() - began;
	}
	began = seconds();
	assert_true(m1_token_logprobs_write(p, &json));
	if (seconds() - began > 0.01 + noting / 4)
		fail_msg("%d tokens took %.3f s to write, and %.3f to note", n, seconds() - began, noting);
	assert_ok(m1_json_parse_up_to((m1_slice){json.data, json.len}, "it", 4 << 20, NULL, &doc, &err));
	assert_int_equal(m1_json_size(doc.root), n);
	m1_json_free(&doc);
	m1_buf_free(&json);
	m1_reply_free(reply);
	m1_token_logprobs_free(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values), cmocka_unit_test(test_impossible), cmocka_unit_test(test_channels),
		cmocka_unit_test(test_bytes),  cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
