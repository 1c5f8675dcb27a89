/*
 * test_reply.c - a reply taken apart: wherever the tokens cut it, the same reasoning and content come
 * out, and what was streamed is never taken back. Also UTF-8 that arrives in pieces, and tool calls.
 */
#include "testing.h"

#include <stdbool.h>
#include <string.h>

#include "text/reply.h"
#include "base/utf8.h"

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
		before[ch] = m1_reply_text(r, (m1_channel) ch);
		if (before[ch].len > 0)
			memcpy(copy[ch], before[ch].data, before[ch].len);
	}
	assert_true(m1_reply_push(r, byte_ids[c]));
	for (int ch = 0; ch < 2; ch++)
		assert_grows(before[ch], copy[ch], m1_reply_text(r, (m1_channel) ch));
}

static void
assert_channel(const m1_reply *r, m1_channel channel, const char *want, const char *raw)
{
	m1_slice got = m1_reply_text(r, channel);

	if (got.len != strlen(want) || (got.len > 0 && memcmp(got.data, want, got.len) != 0))
		fail_msg("\"%s\": %s is \"%.*s\" instead of \"%s\"", raw, channel == M1_REASONING ? "reasoning" : "content",
				 (int) got.len, got.data, want);
}

static void
check_stops(const char *raw, const char *reasoning, const char *content, const m1_slice *stops, size_t n_stops)
{
	m1_reply *r = m1_reply_create(tokenizer, stops, n_stops);
	m1_ids ids = {0};
	m1_error err;

	/* byte by byte: every possible cut */
	for (size_t i = 0; raw[i] != '\0'; i++)
		push_byte(r, (unsigned char) raw[i]);
	assert_true(m1_reply_finish(r));
	assert_channel(r, M1_REASONING, reasoning, raw);
	assert_channel(r, M1_CONTENT, content, raw);
	m1_reply_free(r);

	/* and in the tokens a model would write */
	r = m1_reply_create(tokenizer, stops, n_stops);
	assert_ok(m1_tokenizer_encode(tokenizer, m1_slice_of(raw), M1_ADDED_PLAIN, &ids, NULL, NULL, &err));
	for (size_t i = 0; i < ids.len; i++)
		assert_true(m1_reply_push(r, ids.data[i]));
	assert_true(m1_reply_push(r, m1_tokenizer_eos(tokenizer)));
	assert_true(m1_reply_finish(r));
	assert_channel(r, M1_REASONING, reasoning, raw);
	assert_channel(r, M1_CONTENT, content, raw);
	m1_reply_free(r);
	m1_ids_free(&ids);
}

static void
check(const char *raw, const char *reasoning, const char *content, const char *stop)
{
	const m1_slice stops[2] = {m1_slice_of(stop), m1_slice_of("@@never@@")};

	check_stops(raw, reasoning, content, stops, stop != NULL ? 2 : 0);
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
	/* without a tag there is no markup that the first line breaks could belong to */
	check("\n\n  line", "", "\n\n  line", NULL);
	check(" <thin", "", " <thin", NULL);
	check("\n", "", "", NULL);
	check("<think>\r\na\n\r\n</think>\r\n\r\nb\r\n", "a", "b", NULL);
	check("<think>\n  indented\n\n\n</think>\n  too\n", "  indented", "  too", NULL);
	check("<think></think>", "", "", NULL);
	check("<think>", "", "", NULL);
	check("<think>\nend\n</think", "end\n</think", "", NULL);
	check("<think>\na\n</\n</think>b", "a\n</", "b", NULL);
	check("<<think>a</think>", "", "<<think>a</think>", NULL);
	check("<think>a<</think>b", "a<", "b", NULL);
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
	check("a\n\nstop", "", "a", "\nstop");
	check("a\n\nsto", "", "a\n\nsto", "\nstop");
	check("a\n\nstall", "", "a\n\nstall", "\nstop");
	check("aabaabaaab", "", "aab", "aabaaa"); /* falls back inside the stop string */
	check("\xe4\xbd\xa0\xe4\xbd\xa1", "", "\xe4\xbd\xa0", "\xe4\xbd\xa1");
	check("<think>a</think>\n\nb", "a", "b", "\n\nb"); /* those line breaks are no content */
	check("\n\nb", "", "", "\n\nb");
}

/* The one that is complete first wins, and of those that end together the longest, however tokens cut the text. */
static void
test_several_stop_strings(void **state)
{
	static const struct
	{
		const char *raw, *content, *stops[3];
	} cases[] = {
		{"xx the more", "xx t", {"he", "the more", "m"}},
		{"xx the more", "xx ", {"he", "the", "e"}},
		{"abcabd", "abc", {"abd", "x", "cabe"}},
		{"the cat sat", "the ", {"sat", "cat", "the dog"}},
		{"the cat sat", "the cat sat", {"sats", "hat", "the dog"}},
		{"the cat", "the cat", {"", "", ""}}, /* empty ones are found nowhere */
		{"the cat", "the ", {"", "cat", ""}},
		{"aaaa", "", {"aa", "aaa", "aaaa"}},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_slice stops[3];

		for (size_t s = 0; s < 3; s++)
			stops[s] = m1_slice_of(cases[i].stops[s]);
		check_stops(cases[i].raw, "", cases[i].content, stops, 3);
	}
	assert_null(m1_reply_create(tokenizer, NULL, M1_MAX_STOPS + 1));
}

/* The place where `stop` is first complete in text, found the plain way; text's length when nowhere. */
static size_t
plain_search(const char *text, const char *const *stops, size_t n_stops)
{
	const size_t len = strlen(text);

	for (size_t end = 1; end <= len; end++)
		for (size_t begin = 0; begin < end; begin++)
			for (size_t s = 0; s < n_stops; s++)
				if (strlen(stops[s]) == end - begin && memcmp(text + begin, stops[s], end - begin) == 0)
					return begin;
	return len;
}

static void
test_stop_strings_against_plain_search(void **state)
{
	uint64_t seed = 5;

	(void) state;
	for (int round = 0; round < 20000; round++)
	{
		char text[25], word[3][7], want[25];
		const char *const words[3] = {word[0], word[1], word[2]};
		m1_slice stops[3];
		size_t len = test_random(&seed) % 24;
		size_t end;

		for (size_t i = 0; i < len; i++)
			text[i] = (char) ('a' + test_random(&seed) % 2);
		text[len] = '\0';
		for (size_t s = 0; s < 3; s++)
		{
			size_t n = 2 + test_random(&seed) % 5;

			for (size_t i = 0; i < n; i++)
				word[s][i] = (char) ('a' + test_random(&seed) % 2);
			word[s][n] = '\0';
			stops[s] = m1_slice_of(word[s]);
		}
		end = plain_search(text, words, 3);
		memcpy(want, text, end);
		want[end] = '\0';
		check_stops(text, "", want, stops, 3);
	}
}

static void
push_text(m1_reply *r, const char *s)
{
	for (; *s != '\0'; s++)
		push_byte(r, (unsigned char) *s);
}

/* What is certain streams at once; only what may yet be markup or a stop string waits. */
static void
test_streaming(void **state)
{
	const m1_slice stop = m1_slice_of("END");
	m1_reply *r = m1_reply_create(tokenizer, &stop, 1);

	(void) state;
	assert_int_equal(m1_reply_where(r), M1_REPLY_OPENING);
	push_text(r, "\n<think");
	assert_int_equal(m1_reply_where(r), M1_REPLY_OPENING);
	push_text(r, ">");
	assert_int_equal(m1_reply_where(r), M1_REPLY_REASONING);
	assert_false(m1_reply_at_line_start(r));
	push_text(r, "\n");
	assert_true(m1_reply_at_line_start(r));
	push_text(r, "a");
	assert_channel(r, M1_REASONING, "a", "a");
	push_text(r, "\n</x");
	assert_channel(r, M1_REASONING, "a\n</x", "</x");
	push_text(r, "\n</thin");
	assert_channel(r, M1_REASONING, "a\n</x", "</thin");
	push_text(r, "k>");
	assert_int_equal(m1_reply_where(r), M1_REPLY_CONTENT);
	assert_channel(r, M1_REASONING, "a\n</x", "</think>");
	push_text(r, "\n\nb");
	assert_channel(r, M1_CONTENT, "b", "b");
	push_text(r, " EN");
	assert_channel(r, M1_CONTENT, "b ", "EN");
	push_text(r, "EN");
	assert_channel(r, M1_CONTENT, "b EN", "ENEN");
	assert_true(m1_reply_push(r, m1_tokenizer_eos(tokenizer))); /* no text: the stop string may go on */
	push_text(r, "D");
	assert_int_equal(m1_reply_where(r), M1_REPLY_STOPPED);
	push_text(r, "more");
	assert_true(m1_reply_finish(r));
	assert_channel(r, M1_CONTENT, "b EN", "END");
	m1_reply_free(r);
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

/* The content of a constrained answer is its every byte; behind the tag, two line breaks are markup. */
static void
test_exact_content(void **state)
{
	static const char *const cases[][3] = {
		{"<think>\n\nwhy\n\n</think>\n\n\n answer\n\n", "why", "\n answer\n\n"},
		{"<think></think>\n\n{}\n", "", "{}\n"},
		{"answer\n", "", "answer\n"},
		{"<think>x</think>\n\n\n\n", "x", "\n\n"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_reply *r = m1_reply_create(tokenizer, NULL, 0);

		m1_reply_keep_breaks(r);
		for (const char *c = cases[i][0]; *c != '\0'; c++)
			push_byte(r, (unsigned char) *c);
		assert_true(m1_reply_finish(r));
		assert_channel(r, M1_REASONING, cases[i][1], cases[i][0]);
		assert_channel(r, M1_CONTENT, cases[i][2], cases[i][0]);
		m1_reply_free(r);
	}
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
	/* numbers and escapes come out as they were meant */
	check_calls("<tool_calls>\n{\"name\":\"f\",\"arguments\":{\"x\":0.1,\"y\":[1e3,\"\\u00e9\\n\"]}}\n",
				"[{\"name\": \"f\", \"arguments\": {\"x\": 0.1, \"y\": [1000.0, \"\xc3\xa9\\n\"]}}]");
	check_calls("<tool_calls>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_calls> and "
				"<tool_calls>\n{\"name\": \"f\", \"arguments\": [1]}\n{\"name\": \"f\", \"arguments\": {}}",
				"[{\"name\": \"f\", \"arguments\": {\"x\": 1}}, {\"name\": \"f\", \"arguments\": {}}]");
	check_calls("<think>\n<tool_calls>\n{\"name\": \"g\", \"arguments\": {}}", "");
	check_calls("<tool_calls>\n</tool_calls>", "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reasoning_and_content),
		cmocka_unit_test(test_stop_strings),
		cmocka_unit_test(test_several_stop_strings),
		cmocka_unit_test(test_stop_strings_against_plain_search),
		cmocka_unit_test(test_streaming),
		cmocka_unit_test(test_utf8_pieces),
		cmocka_unit_test(test_exact_content),
		cmocka_unit_test(test_tool_calls),
	};

	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
