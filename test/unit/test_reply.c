/*
 * test_reply.c - a reply taken apart: wherever the tokens cut it, the same reasoning and content come
 * out, and what was streamed is never taken back. Also UTF-8 that arrives in pieces, and tool calls.
 */
#include "testing.h"

#include <stdbool.h>
#include <string.h>

#include "model/reply.h"
#include "model/utf8.h"

static m1_tokenizer *tokenizer;
static int32_t byte_ids[256];

static int
open_tokenizer(void **state)
{
	m1_error err;

	(void) state;
	assert_ok(m1_tokenizer_open("models/m1-nano", 1600, &tokenizer, &err));
	for (int32_t id = 0; id < 1600; id++)
	{
		m1_slice piece = m1_tokenizer_piece(tokenizer, id);

		if (piece.len == 1)
			byte_ids[(unsigned char) piece.data[0]] = id;
	}
	return 0;
}

static int
close_tokenizer(void **state)
{
	(void) state;
	m1_tokenizer_close(tokenizer);
	return 0;
}

/* What is streamed only grows: the text of a channel keeps its beginning. */
static void
assert_grows(m1_slice before, const char *copy, m1_slice after)
{
	assert_true(after.len >= before.len);
	if (before.len > 0)
		assert_memory_equal(after.data, copy, before.len);
}

static void
push_byte(m1_reply *r, unsigned char c)
{
	char copy[2][512];
	m1_slice before[2];

	for (int ch = 0; ch < 2; ch++)
	{
		before[ch] = m1_reply_text(r, (m1w_channel) ch);
		if (before[ch].len > 0)
			memcpy(copy[ch], before[ch].data, before[ch].len);
	}
	assert_true(m1_reply_push(r, byte_ids[c]));
	for (int ch = 0; ch < 2; ch++)
		assert_grows(before[ch], copy[ch], m1_reply_text(r, (m1w_channel) ch));
}

static void
assert_channel(const m1_reply *r, m1w_channel channel, const char *want, const char *raw)
{
	m1_slice got = m1_reply_text(r, channel);

	if (got.len != strlen(want) || (got.len > 0 && memcmp(got.data, want, got.len) != 0))
		fail_msg("\"%s\": %s is \"%.*s\" instead of \"%s\"", raw, m1w_channel_name(channel), (int) got.len, got.data,
				 want);
}

static void
check(const char *raw, const char *reasoning, const char *content, const char *stop)
{
	m1_slice stops[2] = {m1_slice_of(stop), m1_slice_of("@@never@@")};
	m1_reply *r = m1_reply_create(tokenizer, stop != NULL ? stops : NULL, stop != NULL ? 2 : 0);
	m1_ids ids = {0};
	m1_error err;

	/* byte by byte: every possible cut */
	for (size_t i = 0; raw[i] != '\0'; i++)
		push_byte(r, (unsigned char) raw[i]);
	assert_true(m1_reply_finish(r));
	assert_channel(r, M1W_REASONING, reasoning, raw);
	assert_channel(r, M1W_CONTENT, content, raw);
	m1_reply_free(r);

	/* and in the tokens a model would write */
	r = m1_reply_create(tokenizer, stop != NULL ? stops : NULL, stop != NULL ? 2 : 0);
	assert_ok(m1_tokenizer_encode(tokenizer, m1_slice_of(raw), M1_ADDED_PLAIN, &ids, NULL, &err));
	for (size_t i = 0; i < ids.len; i++)
		assert_true(m1_reply_push(r, ids.data[i]));
	assert_true(m1_reply_push(r, m1_tokenizer_eos(tokenizer)));
	assert_true(m1_reply_finish(r));
	assert_channel(r, M1W_REASONING, reasoning, raw);
	assert_channel(r, M1W_CONTENT, content, raw);
	m1_reply_free(r);
	m1_ids_free(&ids);
}

static void
test_reasoning_and_content(void **state)
{
	(void) state;
	check("<think>\nHm.\nYes.\n</think>\n\nThe answer.", "Hm.\nYes.", "The answer.", NULL);
	check("The answer.", "", "The answer.", NULL);
	check("\n <think>a</think>b", "a", "b", NULL);
	check("<think>\n\n</think>\n\nOnly this.", "", "Only this.", NULL);
	check("<think>\nnever closed", "never closed", "", NULL);
	check("<think>\na < b </thin k> </ think\n</think>\nc\n", "a < b </thin k> </ think", "c", NULL);
	check("<thinking> is not a tag", "", "<thinking> is not a tag", NULL);
	check("<thi", "", "<thi", NULL);
	check("", "", "", NULL);
	check("x <think>y</think>", "", "x <think>y</think>", NULL);
	check("<think>a</think>b</think>c", "a", "b</think>c", NULL);
	check("line\n\nline\n\n", "", "line\n\nline", NULL);
	check("<think>\nna\xc3\xafve \xe4\xbd\xa0\n</think>\n\n\xf0\x9f\x98\x80!", "na\xc3\xafve \xe4\xbd\xa0",
		  "\xf0\x9f\x98\x80!", NULL);
}

static void
test_stop_strings(void **state)
{
	(void) state;
	check("one two three", "", "one ", "two");
	check("aab", "", "a", "ab");
	check("ababac", "", "ab", "abac");
	check("no such thing", "", "no such thing", "thingy");
	check("<think>two</think>one two", "two", "one ", "two");
	check("a\n\nb", "", "a", "\n\n");
	check("stop", "", "", "stop");
}

/* Bytes that form no character become U+FFFD, wherever they are cut. */
static void
test_utf8_pieces(void **state)
{
	static const char raw[] = "a\xe4\xbd\xa0\xff\xe4\xbd"
							  "b\xed\xa0\x80\xf0\x9f\x98\x80\0c\xc3";
	static const char want[] = "a\xe4\xbd\xa0\xef\xbf\xbd\xef\xbf\xbd"
							   "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
							   "\xf0\x9f\x98\x80\xef\xbf\xbd"
							   "c\xef\xbf\xbd";

	(void) state;
	for (size_t cut = 0; cut < sizeof raw; cut++)
	{
		m1_utf8 u = {0};
		m1_buf out = {0};

		assert_true(m1_utf8_push(&u, (m1_slice){raw, cut}, &out));
		assert_true(m1_utf8_push(&u, (m1_slice){raw + cut, sizeof raw - 1 - cut}, &out));
		assert_true(m1_utf8_finish(&u, &out));
		assert_int_equal(out.len, sizeof want - 1);
		assert_memory_equal(out.data, want, out.len);
		m1_buf_free(&out);
	}
}

static void
check_calls(const char *raw, const char *want)
{
	m1_reply *r = m1_reply_create(tokenizer, NULL, 0);
	m1_buf json = {0};

	for (size_t i = 0; raw[i] != '\0'; i++)
		push_byte(r, (unsigned char) raw[i]);
	assert_true(m1_reply_finish(r));
	assert_true(m1_reply_tool_calls(r, &json));
	if (json.len != strlen(want) || (json.len > 0 && memcmp(json.data, want, json.len) != 0))
		fail_msg("\"%s\" gave %.*s instead of %s", raw, (int) json.len, json.data, want);
	m1_buf_free(&json);
	m1_reply_free(r);
}

static void
test_tool_calls(void **state)
{
	const char *one = "[{\"name\": \"f\", \"arguments\": {\"x\": 1}}]";

	(void) state;
	check_calls("<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_calls>", one);
	check_calls("<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}", one);
	check_calls("<think>\n<tool_calls>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_calls>\n</think>\n\n"
				"<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n",
				one);
	check_calls(
		"<tool_calls>\nnot json\n{\"name\": 3}\n[1]\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n{\"name\": \"h",
		one);
	check_calls(
		"<tool_calls>\n{\"name\": \"a\", \"arguments\": {}}\n{\"name\": \"b\", \"arguments\": {}}\n</tool_calls>",
		"[{\"name\": \"a\", \"arguments\": {}}, {\"name\": \"b\", \"arguments\": {}}]");
	check_calls("no calls here", "");
	check_calls("<tool_calls>\n</tool_calls>", "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reasoning_and_content),
		cmocka_unit_test(test_stop_strings),
		cmocka_unit_test(test_utf8_pieces),
		cmocka_unit_test(test_tool_calls),
	};

	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
