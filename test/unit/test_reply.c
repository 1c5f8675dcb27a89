/*
 * test_reply.c - a reply taken apart: wherever the tokens cut it, the same reasoning and content come
 * out, and what was streamed is never taken back. Also UTF-8 that arrives in pieces, and tool calls.
 */
#include "tokenizer_testing.h"

#include <stdbool.h>
#include <string.h>

#include "text/calls.h"
#include "text/reply.h"
#include "base/utf8.h"

static int32_t byte_ids[256];

static int
open_bytes(void **state)
{
	open_tokenizer(state);
	for (int32_t id = 0; id < VOCAB; id++)
	{
		m1_slice piece = m1_tokenizer_piece(tokenizer, id);

		if (piece.len == 1)
			byte_ids[(unsigned char) piece.data[0]] = id;
	}
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
	char copy[M1_CHANNEL_COUNT][512];
	m1_slice before[M1_CHANNEL_COUNT];

	for (int ch = 0; ch < M1_CHANNEL_COUNT; ch++)
	{
		before[ch] = m1_reply_text(r, (m1_channel) ch);
		if (before[ch].len > 0)
			memcpy(copy[ch], before[ch].data, before[ch].len);
	}
	assert_true(m1_reply_push(r, byte_ids[c]));
	for (int ch = 0; ch < M1_CHANNEL_COUNT; ch++)
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
check_calls(const char *raw, const char *content, const char *want)
{
	m1_reply *r = m1_reply_create(tokenizer, NULL, 0);
	m1_buf json = {0};

	m1_reply_take_calls(r);
	for (size_t i = 0; raw[i] != '\0'; i++)
		push_byte(r, (unsigned char) raw[i]);
	assert_true(m1_reply_finish(r));
	assert_true(m1_reply_tool_calls(r, &json));
	if (json.len != strlen(want) || (json.len > 0 && memcmp(json.data, want, json.len) != 0))
		fail_msg("\"%s\" gave %.*s instead of %s", raw, (int) json.len, json.data, want);
	assert_channel(r, M1_CONTENT, content, raw);
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

#define F "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"
#define G "{\"name\": \"g\", \"arguments\": {}}"
#define LOST(why, text) "{\"error\": \"" why "\", \"text\": \"" text "\"}"

/* All calls, in their order, and nothing of them in the content. */
static void
test_tool_calls(void **state)
{
	(void) state;
	check_calls("<tool_calls>\n" F "\n</tool_calls>", "", "[" F "]");
	check_calls("<tool_calls>\n" F, "", "[" F "]");
	check_calls("<think>\n<tool_calls>\n" G "\n</tool_calls>\n</think>\n\n<tool_calls>\n" F "\n", "", "[" F "]");
	check_calls("<think>\n<tool_calls>\n" G, "", "");
	check_calls("<tool_calls>\n" F "\n" G "\n</tool_calls>", "", "[" F ", " G "]");
	check_calls("<tool_calls>\n" F "," G "\n</tool_calls>", "", "[" F ", " G "]");
	check_calls("<tool_calls>\n" F ",\n" G "</tool_calls>", "", "[" F ", " G "]");
	check_calls("<tool_calls>" F G "</tool_calls>", "", "[" F ", " G "]");
	check_calls("<tool_calls>\n[" F ",\r\n " G "]\n</tool_calls>", "", "[" F ", " G "]");
	check_calls("<tool_calls>\n{\"name\": \"f\",\n \"arguments\": {\n  \"x\": 1\n }\n}\n</tool_calls>", "", "[" F "]");
	check_calls("no calls here", "no calls here", "");
	check_calls("<tool_calls>\n</tool_calls>", "", "");
	check_calls("<tool_calls>", "", "");
	/* the content around them is as it was written */
	check_calls("A\n\n<tool_calls>" F "</tool_calls>", "A", "[" F "]");
	check_calls("\n<tool_calls>" F "</tool_calls>\n\nB\n", "B", "[" F "]");
	check_calls("A\n<tool_calls>\n" F "\n</tool_calls>\nB <tool_calls>\n" G, "A\n\nB ", "[" F ", " G "]");
	check_calls("a < b <tool_call> <tool_calls", "a < b <tool_call> <tool_calls", "");
	check_calls("</tool_calls>", "</tool_calls>", "");
}

/* Arguments are what the model wrote: numbers of any length, keys in their order, the tag in a string. */
static void
test_arguments_of_calls(void **state)
{
	static const char *const arguments[] = {
		"{\"x\": 12345678901234567.89}",
		"{\"x\": 1180591620717411303424, \"y\": -0, \"z\": 1e400}",
		"{\"x\": 1.50, \"y\": 1E+2, \"z\": -0.0}",
		"{\"zz\": 1, \"b\": 2, \"a\": {\"d\": [], \"c\": {}}}",
		"{\"x\": \"</tool_calls>\", \"y\": \"\\\\\\\"</tool_calls>\\\\\"}",
		"{\"x\": \"<tool_calls>\\n{}\"}",
		"{\"x\": \"<think></think>\"}",
	};
	char raw[256];
	char want[256];

	(void) state;
	for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
	{
		snprintf(raw, sizeof raw, "a<tool_calls>\n{\"name\": \"f\", \"arguments\": %s}\n" G "\n</tool_calls>b",
				 arguments[i]);
		snprintf(want, sizeof want, "[{\"name\": \"f\", \"arguments\": %s}, " G "]", arguments[i]);
		check_calls(raw, "ab", want);
	}
	check_calls("<tool_calls>\n{\"name\":\"f\",\"arguments\":{\"x\":0.1,\"y\":[1e3,\"\\u00e9\\n\"]}}\n", "",
				"[{\"name\": \"f\", \"arguments\": {\"x\": 0.1, \"y\": [1e3, \"\xc3\xa9\\n\"]}}]");
}

/* What is no call is kept in its place, with the reason; those beside it are read. */
static void
test_what_is_no_call(void **state)
{
	static const char *const kept[] = {F, G};

	(void) state;
	for (size_t i = 0; i < 2; i++)
	{
		char want[512];

		snprintf(want, sizeof want, "[" LOST("it is not an object", "not json") ", %s]", kept[i]);
		check_calls(i == 0 ? "<tool_calls>\nnot json\n" F : "<tool_calls>\nnot json\n" G, "", want);
	}
	check_calls("<tool_calls>\n{\"name\": 3}\n" F "\n", "", "[" LOST("it has no name", "{\\\"name\\\": 3}") ", " F "]");
	check_calls("<tool_calls>\n" F "\n{\"name\": \"f\", \"arguments\": [1]}", "",
				"[" F
				", " LOST("its arguments are not an object", "{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": [1]}") "]");
	/* what a history would not take back */
	check_calls("<tool_calls>\n{\"name\": \"f\", \"arguments\": {}, \"why\": 1}\n" F, "",
				"[" LOST("it has keys that a call has not",
						 "{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {}, \\\"why\\\": 1}") ", " F "]");
	check_calls("<tool_calls>\n" F "\n{\"name\": \"g\", \"argu", "",
				"[" F ", " LOST("it does not end", "{\\\"name\\\": \\\"g\\\", \\\"argu") "]");
	check_calls("<tool_calls>\n{\"name\": \"g\", \"argu\n" F "\n</tool_calls>x", "x",
				"[" LOST("it does not end", "{\\\"name\\\": \\\"g\\\", \\\"argu") ", " F "]");
	check_calls(
		"<tool_calls>\n{\"name\": \"g\", \"name\": \"h\", \"arguments\": {}}", "",
		"[" LOST("it is JSON that cannot be used: Line 1, column 43: the end of an object that has a key twice.",
				 "{\\\"name\\\": \\\"g\\\", \\\"name\\\": \\\"h\\\", \\\"arguments\\\": {}}") "]");
	check_calls("<tool_calls>\n[" F ", 7]", "", "[" F ", " LOST("it is not an object", "7") "]");
	check_calls("<tool_calls>\n[]", "", "[" LOST("it is not an object", "[]") "]");
	check_calls("<tool_calls>\n[[" F "]]", "",
				"[" LOST("it is not an object", "[{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"x\\\": 1}}]") "]");
	/* lines of one text that is none */
	check_calls("<tool_calls>\nI would call f\nwith 1.\n" F, "",
				"[" LOST("it is not an object", "I would call f\\nwith 1.") ", " F "]");
}

/* A reply to which no tools were offered speaks of tool calls, and makes none. */
static void
test_calls_that_are_content(void **state)
{
	static const char text[] = "<tool_calls>\n" F "\n</tool_calls>";
	m1_reply *r = m1_reply_create(tokenizer, NULL, 0);
	m1_buf json = {0};

	(void) state;
	push_text(r, text);
	assert_true(m1_reply_finish(r));
	assert_true(m1_reply_tool_calls(r, &json));
	assert_int_equal(json.len, 0);
	assert_channel(r, M1_CONTENT, text, text);
	m1_reply_free(r);
}

/* Stop strings belong to the content: one that a call holds ends nothing, one that the tag completes comes first. */
static void
test_calls_and_stop_strings(void **state)
{
	const m1_slice stops[] = {m1_slice_of("\"x\""), m1_slice_of("B<tool"), m1_slice_of("}\n")};
	m1_reply *r = m1_reply_create(tokenizer, stops, 3);
	m1_buf json = {0};

	(void) state;
	m1_reply_take_calls(r);
	push_text(r, "A}<tool_calls>\n" F "\n</tool_calls>\nB");
	assert_channel(r, M1_CONTENT, "A}", "B may begin a stop string");
	push_text(r, "<tool_calls>\n" G);
	assert_int_equal(m1_reply_where(r), M1_REPLY_STOPPED);
	assert_channel(r, M1_CONTENT, "A}", "stopped");
	assert_true(m1_reply_tool_calls(r, &json));
	assert_string_equal(m1_buf_cstr(&json), "[" F "]");
	m1_buf_free(&json);
	m1_reply_free(r);
}

/* In time that grows as the text does. */
static void
test_many_calls(void **state)
{
	static const char begins[] = "[{\"error\": \"it does not end\", \"text\": \"{\\n[";
	m1_buf text = {0};
	m1_buf json = {0};

	(void) state;
	for (int i = 0; i < 200000; i++)
		m1_buf_puts(&text, i % 2 == 0 ? "{\n" : "[\"}\n");
	assert_true(m1_calls_read((m1_slice){text.data, text.len}, &json));
	assert_memory_equal(json.data, begins, strlen(begins));
	m1_buf_free(&json);
	m1_buf_free(&text);
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
		cmocka_unit_test(test_arguments_of_calls),
		cmocka_unit_test(test_what_is_no_call),
		cmocka_unit_test(test_calls_that_are_content),
		cmocka_unit_test(test_calls_and_stop_strings),
		cmocka_unit_test(test_many_calls),
	};

	return cmocka_run_group_tests(tests, open_bytes, close_tokenizer);
}
