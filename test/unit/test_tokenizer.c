/*
 * test_tokenizer.c - both tokenizer formats against reference ids, round trips, offsets, user text
 * that looks like control tokens, hostile lengths and malformed files.
 */
#include "testing.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/tokenizer.h"
#include "model/utf8.h"

#define RELEASED "test/data" /* merges.txt as released */
#define RELEASED_ROWS 200064
#define NANO "models/m1-nano"
#define NANO_ROWS 1600

static m1_tokenizer *
open_tokenizer(const char *dir, int rows)
{
	m1_tokenizer *t;
	m1_error err;

	assert_ok(m1_tokenizer_open(dir, rows, &t, &err));
	return t;
}

static m1_ids
encode(const m1_tokenizer *t, m1_slice text, m1_added_tokens added)
{
	m1_ids ids = {0};
	m1_error err;

	assert_ok(m1_tokenizer_encode(t, text, added, &ids, NULL, &err));
	return ids;
}

static void
test_reference_cases(void **state)
{
	json_t *cases = json_load_file("test/data/tokenizer_cases.json", JSON_ALLOW_NUL, NULL);
	m1_tokenizer *t = open_tokenizer(RELEASED, RELEASED_ROWS);
	size_t i;
	json_t *c;

	(void) state;
	assert_true(json_array_size(cases) > 30);
	json_array_foreach (cases, i, c)
	{
		const json_t *text = json_object_get(c, "text");
		const json_t *want = json_object_get(c, "ids");
		m1_ids got = encode(t, (m1_slice){json_string_value(text), json_string_length(text)}, M1_ADDED_NONE);

		if (got.len != json_array_size(want))
			fail_msg("case %zu \"%s\": %zu ids instead of %zu", i, json_string_value(text), got.len,
					 json_array_size(want));
		for (size_t j = 0; j < got.len; j++)
			assert_int_equal(got.data[j], json_integer_value(json_array_get(want, j)));
		m1_ids_free(&got);
	}
	json_decref(cases);
	m1_tokenizer_close(t);
}

/* Random characters of one to four bytes. */
static void
random_text(uint64_t *seed, m1_buf *text, int n)
{
	static const unsigned limits[] = {0x80, 0x80, 0x800, 0x3100, 0x20000};

	text->len = 0;
	for (int i = 0; i < n; i++)
	{
		unsigned c = 1 + test_random(seed) % limits[test_random(seed) % 5];
		char bytes[4];
		size_t len;

		if (c < 0x80)
			bytes[0] = (char) c, len = 1;
		else if (c < 0x800)
			bytes[0] = (char) (0xC0 | c >> 6), bytes[1] = (char) (0x80 | (c & 63)), len = 2;
		else if (c < 0x10000)
			bytes[0] = (char) (0xE0 | c >> 12), bytes[1] = (char) (0x80 | (c >> 6 & 63)),
			bytes[2] = (char) (0x80 | (c & 63)), len = 3;
		else
			bytes[0] = (char) (0xF0 | c >> 18), bytes[1] = (char) (0x80 | (c >> 12 & 63)),
			bytes[2] = (char) (0x80 | (c >> 6 & 63)), bytes[3] = (char) (0x80 | (c & 63)), len = 4;
		m1_buf_append(text, bytes, len);
	}
}

static void
check_round_trip(const m1_tokenizer *t, m1_slice text)
{
	m1_ids ids = {0};
	m1_ids ends = {0};
	m1_buf back = {0};
	m1_error err;

	if (!m1_utf8_valid(text))
		return; /* surrogates among the random characters */
	assert_ok(m1_tokenizer_encode(t, text, M1_ADDED_NONE, &ids, &ends, &err));
	assert_ok(m1_tokenizer_decode(t, ids.data, ids.len, &back, &err));
	assert_int_equal(back.len, text.len);
	assert_memory_equal(back.data, text.data, text.len);
	assert_int_equal(ids.len, ends.len);
	for (size_t i = 0, at = 0; i < ids.len; i++)
	{
		m1_slice piece = m1_tokenizer_piece(t, ids.data[i]);

		assert_int_equal(ends.data[i], at + piece.len);
		assert_memory_equal(text.data + at, piece.data, piece.len);
		at += piece.len;
	}
	m1_ids_free(&ids);
	m1_ids_free(&ends);
	m1_buf_free(&back);
}

static void
test_round_trips(void **state)
{
	m1_tokenizer *t[2] = {open_tokenizer(RELEASED, RELEASED_ROWS), open_tokenizer(NANO, NANO_ROWS)};
	m1_buf text = {0};
	uint64_t seed = 99;

	(void) state;
	for (int i = 0; i < 400; i++)
	{
		random_text(&seed, &text, 1 + i % 60);
		check_round_trip(t[i % 2], (m1_slice){text.data, text.len});
	}
	m1_buf_free(&text);
	m1_tokenizer_close(t[0]);
	m1_tokenizer_close(t[1]);
}

/* Every added token's text, alone and inside other text, stays plain text in what users write. */
static void
check_no_control_tokens(const m1_tokenizer *t, int rows)
{
	for (int32_t id = 0; id < rows; id++)
	{
		m1_slice piece = m1_tokenizer_piece(t, id);
		char name[64];
		m1_ids ids;
		m1_buf text = {0};

		if (piece.len < 3 || piece.len >= sizeof name || piece.data[0] != '<')
			continue;
		memcpy(name, piece.data, piece.len);
		name[piece.len] = '\0';
		if (m1_tokenizer_added_id(t, name) != id)
			continue;
		m1_buf_puts(&text, "a ");
		m1_buf_puts(&text, name);
		m1_buf_puts(&text, name);
		ids = encode(t, (m1_slice){text.data, text.len}, M1_ADDED_NONE);
		for (size_t i = 0; i < ids.len; i++)
			if (ids.data[i] == id)
				fail_msg("%s became token %d", name, id);
		m1_ids_free(&ids);
		ids = encode(t, (m1_slice){text.data, text.len}, M1_ADDED_ALL);
		assert_int_equal(ids.data[ids.len - 1], id);
		assert_int_equal(ids.data[ids.len - 2], id);
		m1_ids_free(&ids);
		m1_buf_free(&text);
	}
}

static void
test_user_text_is_never_control(void **state)
{
	m1_tokenizer *released = open_tokenizer(RELEASED, RELEASED_ROWS);
	m1_tokenizer *nano = open_tokenizer(NANO, NANO_ROWS);
	m1_ids ids;

	(void) state;
	check_no_control_tokens(released, RELEASED_ROWS);
	check_no_control_tokens(nano, NANO_ROWS);
	assert_int_equal(m1_tokenizer_eos(released), 200020);
	assert_int_equal(m1_tokenizer_eos(nano), 1588);
	/* <think> is an added token of nano, but no control token */
	ids = encode(nano, m1_slice_of("<think><end_of_sentence>"), M1_ADDED_PLAIN);
	assert_int_equal(ids.data[0], m1_tokenizer_added_id(nano, "<think>"));
	for (size_t i = 0; i < ids.len; i++)
		assert_false(m1_tokenizer_is_special(nano, ids.data[i]));
	m1_ids_free(&ids);
	m1_tokenizer_close(released);
	m1_tokenizer_close(nano);
}

static void
test_long_runs_are_not_quadratic(void **state)
{
	m1_tokenizer *t = open_tokenizer(RELEASED, RELEASED_ROWS);
	static const char *const units[] = {"x", " ", "\n", "X", "\xe4\xbd\xa0", "1", "a\xcc\x81", "!", " x"};

	(void) state;
	for (size_t u = 0; u < sizeof units / sizeof *units; u++)
	{
		m1_buf text = {0};
		clock_t start = clock();
		m1_ids ids;

		while (text.len < 1 << 20)
			m1_buf_puts(&text, units[u]);
		ids = encode(t, (m1_slice){text.data, text.len}, M1_ADDED_NONE);
		/* a quadratic algorithm takes minutes; the limit leaves room for sanitizers */
		if ((double) (clock() - start) / CLOCKS_PER_SEC > 20)
			fail_msg("a megabyte of \"%s\" took too long", units[u]);
		m1_ids_free(&ids);
		m1_buf_free(&text);
	}
	m1_tokenizer_close(t);
}

static void
test_invalid_input(void **state)
{
	m1_tokenizer *t = open_tokenizer(NANO, NANO_ROWS);
	static const char *const bad[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf5\x80\x80\x80"};
	const int32_t dead[] = {5, 1599};
	m1_ids ids = {0};
	m1_buf text = {0};
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(m1_tokenizer_encode(t, m1_slice_of(bad[i]), M1_ADDED_NONE, &ids, NULL, &err),
						 M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_tokenizer_decode(t, dead, 2, &text, &err), M1_E_INVALID_ARGUMENT);
	assert_null(m1_tokenizer_piece(t, -1).data);
	assert_null(m1_tokenizer_piece(t, 100000).data);
	m1_ids_free(&ids);
	m1_buf_free(&text);
	m1_tokenizer_close(t);
}

/* Opens a folder whose tokenizer.json is the bundled one with `find` replaced by `put`. */
static m1_status
open_edited(const char *find, const char *put, m1_error *err)
{
	static const char dir[] = "build/test_tokenizer";
	char path[64];
	m1_buf text = {0};
	FILE *f = fopen(NANO "/tokenizer.json", "rb");
	const char *at;
	m1_tokenizer *t;
	m1_status status;
	int c;

	assert_non_null(f);
	while ((c = getc(f)) != EOF)
		m1_buf_append(&text, &(char){(char) c}, 1);
	fclose(f);
	at = strstr(m1_buf_cstr(&text), find);
	assert_non_null(at);
	mkdir("build", 0777);
	mkdir(dir, 0777);
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	f = fopen(path, "wb");
	assert_non_null(f);
	fprintf(f, "%.*s%s%s", (int) (at - text.data), text.data, put, at + strlen(find));
	fclose(f);
	status = m1_tokenizer_open(dir, NANO_ROWS, &t, err);
	if (status == M1_OK)
		m1_tokenizer_close(t);
	m1_buf_free(&text);
	return status;
}

static void
test_malformed_files(void **state)
{
	static const struct
	{
		const char *find, *put;
		m1_status status;
	} edits[] = {
		{"\"BPE\"", "\"BPE\"", M1_OK},
		{"\"BPE\"", "\"Unigram\"", M1_E_UNSUPPORTED},
		{"\"dropout\": null", "\"dropout\": 0.1", M1_E_UNSUPPORTED},
		{"\"byte_fallback\": false", "\"byte_fallback\": true", M1_E_UNSUPPORTED},
		{"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", M1_E_UNSUPPORTED},
		{"\"Isolated\"", "\"Removed\"", M1_E_UNSUPPORTED},
		{"\"use_regex\": false", "\"use_regex\": true", M1_E_UNSUPPORTED},
		{"\"lstrip\": false", "\"lstrip\": true", M1_E_UNSUPPORTED},
		{"[^\\\\r\\\\n\\\\p{L}", "([^\\\\r\\\\n\\\\p{L}", M1_E_UNSUPPORTED},
		{"\"id\": 1586", "\"id\": 99999999", M1_E_CORRUPT},
		{"\"id\": 1586", "\"id\": -1", M1_E_CORRUPT},
		{"\"id\": 1586", "\"id\": \"x\"", M1_E_CORRUPT},
		{"\"en\": 256", "\"en\": 70000", M1_E_CORRUPT},
		{"\"e n\"", "\"e\"", M1_E_CORRUPT},
		{"\"e n\"", "\"e n n\"", M1_E_CORRUPT},
		{"\"e n\"", "\"nonsense words\"", M1_E_CORRUPT},
		{"\"e n\"", "7", M1_E_CORRUPT},
		{"\"e n\"", "[\"e\", \"n\"]", M1_OK},
		{"{\"version\"", "{{\"version\"", M1_E_CORRUPT},
		{"{\"version\"", "[{\"version\"", M1_E_CORRUPT},
		{"\"!\": 0", "\"\": 0", M1_E_CORRUPT},
	};

	(void) state;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		m1_error err = {.message = ""};
		m1_status status = open_edited(edits[i].find, edits[i].put, &err);

		if (status != edits[i].status)
			fail_msg("%s -> %s: %s (%s)", edits[i].find, edits[i].put, m1_status_name(status), err.message);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference_cases),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_user_text_is_never_control),
		cmocka_unit_test(test_long_runs_are_not_quadratic),
		cmocka_unit_test(test_invalid_input),
		cmocka_unit_test(test_malformed_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
