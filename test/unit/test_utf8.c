/*
 * test_utf8.c - bytes that arrive in pieces: every character survives every cut, what can form no
 * character becomes U+FFFD exactly as a plain reference decoder says, and validity agrees with both.
 */
#include "testing.h"

#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

#define REPLACEMENT "\xEF\xBF\xBD"

static bool
is_surrogate(unsigned c)
{
	return c >= 0xD800 && c <= 0xDFFF;
}

/* Pushes text in two pieces cut at `cut`, and finishes. */
static void
push_cut(m1_slice text, size_t cut, m1_buf *out)
{
	m1_utf8 u = {0};

	out->len = 0;
	assert_true(m1_utf8_push(&u, (m1_slice){text.data, cut}, out));
	assert_true(m1_utf8_push(&u, (m1_slice){text.data + cut, text.len - cut}, out));
	assert_true(m1_utf8_finish(&u, out));
	assert_int_equal(u.n_pending, 0);
}

static void
assert_becomes(m1_slice text, const char *want, size_t want_len)
{
	m1_buf out = {0};

	for (size_t cut = 0; cut <= text.len; cut++)
	{
		push_cut(text, cut, &out);
		assert_int_equal(out.len, want_len);
		if (want_len > 0)
			assert_memory_equal(out.data, want, want_len);
	}
	m1_buf_free(&out);
}

/* All of Unicode but NUL and the surrogates passes unchanged; nothing comes out before a character is whole. */
static void
test_every_character(void **state)
{
	m1_buf out = {0};

	(void) state;
	for (unsigned c = 1; c <= 0x10FFFF; c++)
	{
		char bytes[4];
		size_t len = test_put_character(c, bytes);
		m1_utf8 u = {0};

		if (is_surrogate(c))
			continue;
		if (!m1_utf8_valid((m1_slice){bytes, len}))
			fail_msg("U+%04X is said to be invalid", c);
		out.len = 0;
		for (size_t i = 0; i < len; i++)
		{
			if (out.len != 0)
				fail_msg("U+%04X came out after %zu bytes", c, i);
			m1_utf8_push(&u, (m1_slice){bytes + i, 1}, &out);
		}
		if (out.len != len || memcmp(out.data, bytes, len) != 0)
			fail_msg("U+%04X did not survive", c);
	}
	m1_buf_free(&out);
}

static void
test_surrogates_are_refused(void **state)
{
	(void) state;
	for (unsigned c = 0xD800; c <= 0xDFFF; c++)
	{
		char bytes[4];
		m1_slice text = {bytes, test_put_character(c, bytes)};

		assert_false(m1_utf8_valid(text));
		assert_becomes(text, REPLACEMENT REPLACEMENT REPLACEMENT, 9);
	}
}

static void
test_invalid_sequences(void **state)
{
	static const struct
	{
		const char *text, *want;
	} cases[] = {
		{"\x80", REPLACEMENT},				   /* continuation alone */
		{"\xC0\xAF", REPLACEMENT REPLACEMENT}, /* overlong */
		{"\xC1\xBF", REPLACEMENT REPLACEMENT}, /* overlong */
		{"\xE0\x9F\xBF", REPLACEMENT REPLACEMENT REPLACEMENT},
		{"\xF0\x8F\xBF\xBF", REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT},
		{"\xF4\x90\x80\x80", REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT}, /* above U+10FFFF */
		{"\xF5\x80", REPLACEMENT REPLACEMENT},
		{"\xFE\xFF", REPLACEMENT REPLACEMENT},
		{"\xC3", REPLACEMENT},		   /* unfinished at the end */
		{"\xE4\xBD", REPLACEMENT},	   /* one for the part that could have gone on */
		{"\xF0\x9F\x98", REPLACEMENT}, /* likewise */
		{"\xE4\xBD"
		 "a",
		 REPLACEMENT "a"},
		{"\xF0\x9F\xC3\xA9", REPLACEMENT "\xC3\xA9"}, /* the next character is not swallowed */
		{"\xC3\xC3\xA9", REPLACEMENT "\xC3\xA9"},
		{"a\xFF"
		 "b",
		 "a" REPLACEMENT "b"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		assert_false(m1_utf8_valid(m1_slice_of(cases[i].text)));
		assert_becomes(m1_slice_of(cases[i].text), cases[i].want, strlen(cases[i].want));
	}
}

/* NUL is well-formed UTF-8, but SQL text cannot hold it. */
static void
test_nul(void **state)
{
	m1_slice text = {"a\0b", 3};

	(void) state;
	assert_true(m1_utf8_valid(text));
	assert_becomes(text, "a" REPLACEMENT "b", 5);
}

static void
test_nothing(void **state)
{
	m1_utf8 u = {0};
	m1_buf out = {0};

	(void) state;
	assert_true(m1_utf8_valid((m1_slice){NULL, 0}));
	assert_true(m1_utf8_push(&u, (m1_slice){NULL, 0}, &out));
	assert_true(m1_utf8_finish(&u, &out));
	assert_int_equal(out.len, 0);
	/* a second end adds nothing, and the state can be used again */
	assert_true(m1_utf8_push(&u, m1_slice_of("\xC3"), &out));
	assert_true(m1_utf8_finish(&u, &out));
	assert_true(m1_utf8_finish(&u, &out));
	assert_int_equal(out.len, 3);
	assert_true(m1_utf8_push(&u, m1_slice_of("\xC3\xA9"), &out));
	assert_int_equal(out.len, 5);
	m1_buf_free(&out);
}

/* ---- against a reference: decode by the table of well-formed ranges (Unicode, table 3-7) ---- */

static const struct
{
	unsigned char first[2], second[2];
	size_t len;
} ranges[] = {
	{{0x00, 0x7F}, {0, 0}, 1},		 {{0xC2, 0xDF}, {0x80, 0xBF}, 2}, {{0xE0, 0xE0}, {0xA0, 0xBF}, 3},
	{{0xE1, 0xEC}, {0x80, 0xBF}, 3}, {{0xED, 0xED}, {0x80, 0x9F}, 3}, {{0xEE, 0xEF}, {0x80, 0xBF}, 3},
	{{0xF0, 0xF0}, {0x90, 0xBF}, 4}, {{0xF1, 0xF3}, {0x80, 0xBF}, 4}, {{0xF4, 0xF4}, {0x80, 0x8F}, 4},
};

/* How many bytes the character, or the part of one, at s takes; *whole tells which. */
static size_t
reference_step(const unsigned char *s, size_t len, bool *whole)
{
	*whole = false;
	for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
	{
		size_t n = 1;

		if (s[0] < ranges[r].first[0] || s[0] > ranges[r].first[1])
			continue;
		while (n < ranges[r].len && n < len && s[n] >= (n == 1 ? ranges[r].second[0] : 0x80) &&
			   s[n] <= (n == 1 ? ranges[r].second[1] : 0xBF))
			n++;
		*whole = n == ranges[r].len;
		return n;
	}
	return 1;
}

/* Returns whether text is well formed; out is what it becomes. */
static bool
reference(m1_slice text, m1_buf *out)
{
	bool valid = true;

	out->len = 0;
	for (size_t i = 0; i < text.len;)
	{
		bool whole;
		size_t n = reference_step((const unsigned char *) text.data + i, text.len - i, &whole);

		valid = valid && whole;
		if (whole && text.data[i] != '\0')
			m1_buf_append(out, text.data + i, n);
		else
			m1_buf_puts(out, REPLACEMENT);
		i += n;
	}
	return valid;
}

static void
check_against_reference(m1_slice text, m1_buf *want)
{
	bool valid = reference(text, want);

	assert_int_equal(m1_utf8_valid(text), valid);
	assert_becomes(text, want->data, want->len);
	assert_true(m1_utf8_valid((m1_slice){want->data, want->len}));
}

static void
test_all_pairs_of_bytes(void **state)
{
	m1_buf want = {0};

	(void) state;
	for (unsigned pair = 0; pair < 0x10000; pair++)
	{
		const char bytes[2] = {(char) (pair >> 8), (char) pair};

		check_against_reference((m1_slice){bytes, 2}, &want);
	}
	m1_buf_free(&want);
}

static void
test_noise(void **state)
{
	/* bytes at the borders of the ranges, so that characters and near misses are common */
	static const unsigned char borders[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2,
											0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5};
	uint64_t seed = 7;
	m1_buf want = {0};

	(void) state;
	for (int round = 0; round < 50000; round++)
	{
		char bytes[16];
		size_t len = test_random(&seed) % (sizeof bytes + 1);

		for (size_t i = 0; i < len; i++)
			bytes[i] = (char) borders[test_random(&seed) % sizeof borders];
		check_against_reference((m1_slice){bytes, len}, &want);
	}
	m1_buf_free(&want);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_character),
		cmocka_unit_test(test_surrogates_are_refused),
		cmocka_unit_test(test_invalid_sequences),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_all_pairs_of_bytes),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
