/*
 * test_json.c - JSON keeps its order and its numbers; what is none is refused by its place; memory is in proportion.
 */
#include "testing.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/jsontext.h"

static void
assert_rewritten(const char *text, const char *want)
{
	m1_json_doc doc;
	m1_buf out = {0};
	m1_error err;

	assert_ok(m1_json_parse(m1_slice_of(text), "it", NULL, &doc, &err));
	assert_int_equal(doc.root->span <= M1_JSON_MAX_VALUES, 1);
	assert_true(m1_json_write(&out, doc.root, M1_JSON_AS_GIVEN));
	assert_string_equal(m1_buf_cstr(&out), want);
	m1_buf_free(&out);
	m1_json_free(&doc);
}

static void
test_texts_that_stay(void **state)
{
	static const char *const same[] = {
		"1180591620717411303424",
		"12345678901234567.89",
		"-0",
		"-0.0",
		"1.50",
		"1e400",
		"1E-400",
		"0.10e+05",
		"-123456789012345678901234567890.5e-7",
		"null",
		"[true, false, null]",
		"{\"z\": 1, \"\": 2, \"a\": {\"y\": [], \"x\": {}}, \"B\": [{}]}",
		"\"\xc3\xa9\xf0\x9f\x98\x80\x7f/\"",
		"[[[[[[[[[[]]]]]]]]]]",
	};

	(void) state;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		assert_rewritten(same[i], same[i]);
	assert_rewritten(" \t\r\n[ 1 ,\n2,{\"a\" :3 } ] ", "[1, 2, {\"a\": 3}]");
	assert_rewritten("\"\\u00e9\\ud83d\\uDE00\\/\\b\\f\\n\\r\\t\\\"\\\\\\u0001\"",
					 "\"\xc3\xa9\xf0\x9f\x98\x80/\\b\\f\\n\\r\\t\\\"\\\\\\u0001\"");
	assert_rewritten("[\"\\u0041\\u07ff\\u0800\\uffff\\ud800\\udc00\\udbff\\udfff\"]",
					 "[\"A\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"]");
}

static void
test_what_is_refused(void **state)
{
	static const struct
	{
		const char *text, *detail;
		bool valid; /* and cannot be used */
	} cases[] = {
		{"", "Line 1, column 1: no value"},
		{"  ", "Line 1, column 3: no value"},
		{"nul", "no value"},
		{"nullx", "Line 1, column 5: something behind"},
		{"[1,]", "Line 1, column 4: no value"},
		{"[1 2]", "Line 1, column 4: no comma"},
		{"[1", "no comma between two values, or no end"},
		{"]", "no value"},
		{"{\"a\":1,}", "no key"},
		{"{a:1}", "no key"},
		{"{\"a\" 1}", "no colon"},
		{"{\"a\":}", "no value"},
		{"{\"a\":1,\n \"b\":2,\n \"a\":3}", "Line 3, column 7: the end of an object that has a key twice", true},
		{"{\"a\":1,\"\\u0061\":2}", "a key twice", true},
		{"01", "not written as JSON's"},
		{"-", "not written as JSON's"},
		{"1.", "not written as JSON's"},
		{".5", "no value"},
		{"1e", "not written as JSON's"},
		{"+1", "no value"},
		{"0x10", "something behind"},
		{"NaN", "no value"},
		{"\"a", "a string without its end"},
		{"\"a\nb\"", "a string without its end, or a control"},
		{"\"\\x\"", "a backslash"},
		{"\"\\", "a backslash"},
		{"\"\\u12", "hexadecimal"},
		{"\"\\u0000\"", "\\u0000", true},
		{"\"\\ud800\"", "half of a surrogate", true},
		{"\"\\ud800\\u0041\"", "half of a surrogate", true},
		{"\"\\udc00\\ud800\"", "half of a surrogate", true},
		{"\"\xff\"", "not UTF-8"},
		{"\"\xed\xa0\x80\"", "not UTF-8"},
		{"[\"\xc3\xa9\xc3\xa9\" x]", "Line 1, column 7: "},
		{"/* c */ 1", "no value"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_json_doc doc;
		m1_error err;

		if (m1_json_parse(m1_slice_of(cases[i].text), "x", NULL, &doc, &err) != M1_E_INVALID_ARGUMENT ||
			strcmp(err.message, cases[i].valid ? "x is JSON that cannot be used" : "x is not valid JSON") != 0 ||
			strstr(err.detail, cases[i].detail) == NULL)
			fail_msg("%s: %s %s", cases[i].text, err.message, err.detail);
		assert_null(doc.root);
		assert_null(doc.values);
	}
}

/* A text that ends anywhere, or has a byte of NUL. */
static void
test_every_end(void **state)
{
	static const char text[] = "{\"a\": [1.5e3, \"\\u00e9\\ud83d\\ude00\", true], \"b\": {\"c\": null}}";

	(void) state;
	for (size_t n = 0; n < sizeof text; n++)
	{
		char *copy = malloc(n + 1); /* so that sanitizers see what is read behind it */
		m1_json_doc doc;
		m1_error err;

		memcpy(copy, text, n);
		assert_int_equal(m1_json_parse((m1_slice){copy, n}, "x", NULL, &doc, &err),
						 n == sizeof text - 1 ? M1_OK : M1_E_INVALID_ARGUMENT);
		m1_json_free(&doc);
		free(copy);
	}
	for (size_t n = 0; n + 1 < sizeof text; n++)
	{
		char copy[sizeof text];
		m1_json_doc doc;
		m1_error err;

		memcpy(copy, text, sizeof text);
		copy[n] = '\0';
		assert_int_equal(m1_json_parse((m1_slice){copy, sizeof text - 1}, "x", NULL, &doc, &err),
						 M1_E_INVALID_ARGUMENT);
	}
}

static void
test_looking_up(void **state)
{
	m1_buf text = {0};
	m1_json_doc doc;
	m1_error err;
	char key[32];
	int i = 0;

	(void) state;
	m1_buf_puts(&text, "{\"list\": [10, 11], \"\": \"none\"");
	for (i = 0; i < 1000; i++)
	{
		snprintf(key, sizeof key, ", \"%d\": %d", i * 7919 % 1000, i);
		m1_buf_puts(&text, key);
	}
	m1_buf_puts(&text, "}");
	assert_ok(m1_json_parse((m1_slice){text.data, text.len}, "x", NULL, &doc, &err));
	assert_int_equal(m1_json_size(doc.root), 1002);
	for (i = 0; i < 1000; i++)
	{
		snprintf(key, sizeof key, "%d", i * 7919 % 1000);
		assert_int_equal((int) m1_json_real(m1_json_get(doc.root, key)), i);
	}
	assert_null(m1_json_get(doc.root, "1000"));
	assert_true(m1_json_is_text(m1_json_get(doc.root, ""), "none"));
	assert_int_equal((int) m1_json_real(m1_json_at(m1_json_get(doc.root, "list"), 1)), 11);
	assert_null(m1_json_at(m1_json_get(doc.root, "list"), 2));
	i = -2;
	m1_json_foreach (doc.root, member)
		if (i++ >= 0)
			assert_int_equal((int) m1_json_real(member), i - 1);
	/* what is not there, or of another kind, has nothing */
	assert_null(m1_json_get(NULL, "a"));
	assert_null(m1_json_get(m1_json_get(doc.root, "list"), "a"));
	assert_null(m1_json_first(m1_json_get(doc.root, "")));
	assert_int_equal(m1_json_text(m1_json_get(doc.root, "0")).len, 0);
	m1_json_free(&doc);
	m1_buf_free(&text);
}

static void
test_numbers(void **state)
{
	static const struct
	{
		const char *text;
		bool whole, int64;
		double real;
	} cases[] = {
		{"0", true, true, 0},
		{"-0", true, true, 0},
		{"-0.0", true, false, 0},
		{"0.000e-5", true, false, 0},
		{"1.0", true, false, 1},
		{"1.50", false, false, 1.5},
		{"1.50e1", true, false, 15},
		{"1.55e1", false, false, 15.5},
		{"100e-2", true, false, 1},
		{"100e-3", false, false, 0.1},
		{"1e400", true, false, INFINITY},
		{"1e-400", false, false, 0},
		{"9223372036854775807", true, true, 9223372036854775807.0},
		{"9223372036854775808", true, false, 9223372036854775808.0},
		{"-9223372036854775808", true, true, -9223372036854775808.0},
		{"1e99999999999999999999", true, false, INFINITY},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_json_doc doc;
		m1_error err;
		int64_t n;

		assert_ok(m1_json_parse(m1_slice_of(cases[i].text), "x", NULL, &doc, &err));
		if (m1_json_is_whole(doc.root) != cases[i].whole || m1_json_is_int64(doc.root, &n) != cases[i].int64 ||
			m1_json_real(doc.root) != cases[i].real)
			fail_msg("%s", cases[i].text);
		m1_json_free(&doc);
	}
}

/* The whole numbers on both sides of a number, whatever a 64-bit real would make of it. */
static void
test_to_whole(void **state)
{
	static const struct
	{
		const char *text, *below, *above; /* "": beyond 64 bits */
	} cases[] = {
		{"0", "0", "0"},
		{"-0.0", "0", "0"},
		{"1.5", "1", "2"},
		{"-1.5", "-2", "-1"},
		{"-0.001", "-1", "0"},
		{"0.1e1", "1", "1"},
		{"0.12e1", "1", "2"},
		{"123e-2", "1", "2"},
		{"100e-2", "1", "1"},
		{"9007199254740993.0", "9007199254740993", "9007199254740993"},
		{"8999999999999998.4", "8999999999999998", "8999999999999999"},
		{"-8999999999999998.4", "-8999999999999999", "-8999999999999998"},
		{"9.223372036854775807e18", "9223372036854775807", "9223372036854775807"},
		{"9223372036854775807.5", "9223372036854775807", ""},
		{"-9223372036854775808", "-9223372036854775808", "-9223372036854775808"},
		{"-9223372036854775808.5", "", "-9223372036854775808"},
		{"9223372036854775808", "", ""},
		{"18446744073709551615.5", "", ""},
		{"1e400", "", ""},
		{"-1e99999999999999999999", "", ""},
		{"1e-99999999999999999999", "0", "1"},
		{"0e99999999999999999999", "0", "0"},
		{"0.00000000000000000000000000000000000000012e40", "1", "2"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int up = 0; up < 2; up++)
		{
			const char *expected = up ? cases[i].above : cases[i].below;
			char got[32] = "";
			m1_json_doc doc;
			m1_error err;
			int64_t n;

			assert_ok(m1_json_parse(m1_slice_of(cases[i].text), "x", NULL, &doc, &err));
			if (m1_json_to_whole(doc.root, up, &n))
				snprintf(got, sizeof got, "%lld", (long long) n);
			if (strcmp(got, expected) != 0)
				fail_msg("%s, %s: %s", cases[i].text, up ? "up" : "down", got);
			m1_json_free(&doc);
		}
}

/* What a list of many takes, and that no more than so many are taken. */
static void
test_memory(void **state)
{
	static const char *const items[] = {"{}", "1", "[]", "\"\"", "{\"a\":1}"};

	(void) state;
	for (size_t i = 0; i < sizeof items / sizeof *items; i++)
	{
		m1_buf text = {0};
		m1_json_doc doc;
		m1_error err;
		size_t before;

		m1_buf_puts(&text, "[");
		while (text.len < 600000)
		{
			m1_buf_puts(&text, items[i]);
			m1_buf_puts(&text, ",");
		}
		m1_buf_puts(&text, "1]");
		before = mallinfo2().uordblks + mallinfo2().hblkhd;
		assert_ok(m1_json_parse((m1_slice){text.data, text.len}, "x", NULL, &doc, &err));
#ifndef __SANITIZE_ADDRESS__
		assert_in_range(mallinfo2().uordblks + mallinfo2().hblkhd - before, text.len, 16 * text.len);
#endif
		(void) before;
		m1_json_free(&doc);
		m1_buf_free(&text);
	}
}

static void
test_limits(void **state)
{
	const size_t n = M1_JSON_MAX_VALUES;
	char *text = malloc(2 * n + 2);
	m1_json_doc doc;
	m1_error err;
	m1_work work;

	(void) state;
	/* n items and the array itself */
	for (size_t i = 0; i < n; i++)
		memcpy(text + 2 * i, i == 0 ? "[1" : ",1", 2);
	memcpy(text + 2 * n, "]", 2);
	assert_int_equal(m1_json_parse((m1_slice){text, 2 * n + 1}, "x", NULL, &doc, &err), M1_E_UNSUPPORTED);
	assert_string_equal(err.message, "x may have 1048577 values: more than 1048576");
	memcpy(text + 2 * n - 2, "]", 2);
	assert_ok(m1_json_parse((m1_slice){text, 2 * n - 1}, "x", NULL, &doc, &err));
	assert_int_equal(m1_json_size(doc.root), n - 1);
	m1_json_free(&doc);
	m1_work_init(&work, M1_WORK_UNBOUNDED);
	m1_work_cancel(&work);
	assert_int_equal(m1_json_parse((m1_slice){text, 2 * n - 1}, "x", &work, &doc, &err), M1_E_CANCELLED);
	memset(text, '[', 2 * n);
	assert_int_equal(m1_json_parse((m1_slice){text, 3000}, "x", NULL, &doc, &err), M1_E_UNSUPPORTED);
	assert_string_equal(err.message, "x is nested too deep: more than 2048 arrays and objects in each other");
	assert_string_equal(err.detail, "Line 1, column 2049: one more begins here.");
	memset(text + M1_JSON_MAX_DEPTH, ']', M1_JSON_MAX_DEPTH);
	assert_ok(m1_json_parse((m1_slice){text, 2 * M1_JSON_MAX_DEPTH}, "x", NULL, &doc, &err));
	m1_json_free(&doc);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts_that_stay), cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_every_end),		cmocka_unit_test(test_looking_up),
		cmocka_unit_test(test_numbers),			cmocka_unit_test(test_memory),
		cmocka_unit_test(test_limits),			cmocka_unit_test(test_to_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
