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

#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "base/utf8.h"

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

	assert_ok(m1_tokenizer_encode(t, text, added, &ids, NULL, NULL, &err));
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

static bool
count_piece(void *context, m1_slice piece)
{
	(void) piece;
	++*(int *) context;
	return true;
}

/* How many pieces a pattern makes of a text. */
static int
pieces(const m1_pretokenizer *p, m1_slice text)
{
	int n = 0;
	m1_error err;

	assert_ok(m1_pretokenize(p, text, count_piece, &n, NULL, &err));
	return n;
}

static m1_pretokenizer *
pattern(const char *regex)
{
	m1_pretokenizer *p;
	m1_error err;

	assert_ok(m1_pretokenizer_create(regex, &p, &err));
	return p;
}

static bool
is_white_space(unsigned c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
		   c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* White space is what Unicode says, for \\s and \\S, inside a class and outside; PCRE2's own \\s has U+180E as well. */
static void
test_white_space(void **state)
{
	m1_pretokenizer *space = pattern("<\\s>");
	m1_pretokenizer *no_space = pattern("<[\\S]>");
	m1_pretokenizer *backslash = pattern("<\\\\s>");

	(void) state;
	/* all white space is below U+3100 */
	for (unsigned c = 1; c <= 0x10FFFF; c += c < 0x3100 ? 1 : 997)
	{
		char text[8] = "<";
		size_t len = 1 + test_put_character(c, text + 1);

		if (c >= 0xD800 && c <= 0xDFFF)
			continue;
		text[len++] = '>';
		text[len] = 'x'; /* a piece of its own if the pattern matched, else one with the rest */
		if (pieces(space, (m1_slice){text, len + 1}) != (is_white_space(c) ? 2 : 1) ||
			pieces(no_space, (m1_slice){text, len + 1}) != (is_white_space(c) ? 1 : 2))
			fail_msg("U+%04X", c);
	}
	assert_int_equal(pieces(backslash, m1_slice_of("<\\s>x")), 2);
	assert_int_equal(pieces(backslash, m1_slice_of("< >x")), 1);
	m1_pretokenizer_free(space);
	m1_pretokenizer_free(no_space);
	m1_pretokenizer_free(backslash);
}

/* Random characters of one to four bytes. */
static void
random_text(uint64_t *seed, m1_buf *text, int n)
{
	static const unsigned limits[] = {0x80, 0x80, 0x800, 0x3100, 0x20000};

	text->len = 0;
	for (int i = 0; i < n; i++)
	{
		char bytes[4];

		m1_buf_append(text, bytes, test_put_character(1 + test_random(seed) % limits[test_random(seed) % 5], bytes));
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
	assert_ok(m1_tokenizer_encode(t, text, M1_ADDED_NONE, &ids, &ends, NULL, &err));
	assert_ok(m1_tokenizer_decode(t, ids.data, ids.len, &back, NULL, &err));
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
	assert_int_equal(m1_tokenizer_eos(nano), 1596);
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
	static const char *const units[] = {
		"x", " ", "\n", "X", "\xe4\xbd\xa0", "1", "a\xcc\x81", "!", " x", " \n", "'s",
		/* Chinese, kana, Hangul and punctuation in turn */
		"\xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x82\xe3\x81\x8b\xe3\x83\x8a\xed\x95\x9c\xea\xb8\x80"};

	(void) state;
	for (size_t u = 0; u < sizeof units / sizeof *units; u++)
	{
		m1_buf text = {0};
		clock_t start = clock();
		m1_ids ids;

		while (text.len < REPEATED(units[u][0] == ' ' && units[u][1] == '\0' ? 4u << 20 : 1u << 20))
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

/* A pattern whose work explodes is refused after a number of steps; one that needs a deep stack is not. */
static void
test_patterns_are_bounded(void **state)
{
	static const char *const exploding[] = {"(?:a|aa)+c|.", "(?:a+)+c|.", "(?:a|a)*?c|.", "(?:(?:a|aa)(?:a|aa))+c|."};
	const size_t lengths[] = {64, 5000, 1 << 20};
	char *text = malloc((1 << 20) + 1);

	(void) state;
	assert_non_null(text);
	memset(text, 'a', 1 << 20);
	for (size_t i = 0; i < sizeof exploding / sizeof *exploding; i++)
		for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
		{
			m1_pretokenizer *p = pattern(exploding[i]);
			int n = 0;
			m1_error err;

			assert_int_equal(m1_pretokenize(p, (m1_slice){text, lengths[l]}, count_piece, &n, NULL, &err),
							 M1_E_UNSUPPORTED);
			assert_non_null(strstr(err.message, "takes too long"));
			m1_pretokenizer_free(p);
		}
	m1_pretokenizer *deep = pattern("(?:a|b)+|.");

	assert_int_equal(pieces(deep, (m1_slice){text, 1 << 20}), 1);
	m1_pretokenizer_free(deep);
	free(text);
}

/* Nor does a wider window on the text grant more for each of its bytes. */
static void
test_steps_of_a_byte_are_bounded(void **state)
{
	m1_pretokenizer *p = pattern("(?:(?=(?:a|b){0,50}c|)a)+|.");
	char *text = malloc(1 << 20);
	int n = 0;
	m1_error err;

	(void) state;
	assert_non_null(text);
	memset(text, 'a', 1 << 20);
	assert_int_equal(pieces(p, (m1_slice){text, 600}), 1);
	assert_int_equal(m1_pretokenize(p, (m1_slice){text, 1 << 20}, count_piece, &n, NULL, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "takes too long"));
	m1_pretokenizer_free(p);
	free(text);
}

/* PCRE2 does not count what it reads in one run: a pattern that reads the rest of the text for each piece is refused. */
static void
test_patterns_that_read_ahead(void **state)
{
	static const char *const reading[] = {"a+c|.", "a*+c|.", "[^b]+b|.", "a+$x|.", "(?=a+c)a|.", ".+b|."};
	char *text = malloc(1 << 20);

	(void) state;
	assert_non_null(text);
	memset(text, 'a', 1 << 20);
	for (size_t i = 0; i < sizeof reading / sizeof *reading; i++)
	{
		m1_pretokenizer *p = pattern(reading[i]);
		int n = 0;
		m1_error err;

		assert_int_equal(pieces(p, (m1_slice){text, 600}), 600);
		assert_int_equal(m1_pretokenize(p, (m1_slice){text, 1 << 20}, count_piece, &n, NULL, &err), M1_E_UNSUPPORTED);
		assert_non_null(strstr(err.message, "takes too long"));
		m1_pretokenizer_free(p);
	}
	free(text);
}

/* However long a run is, and wherever it meets what PCRE2 looks at at first: its pieces are those of a short one. */
static void
test_runs_of_any_length(void **state)
{
	static const struct
	{
		const char *before, *unit, *behind;
		int pieces;
	} cases[] = {{"", " ", "x", 2},		  {"", "x", " y", 2}, {"x", "\n", "\n", 2}, {"", "\xe4\xbd\xa0", "1", 2},
				 {"", "a", "'s", 2},	  {"x", "!", "", 2},  {"", " ", "", 1},		{"x ", " ", "\n", 2},
				 {"'", "\xc3\xa4", "", 2}};
	m1_pretokenizer *p = pattern(m1_pretokenizer_gpt2);

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int n = 1; n < 9000; n += n < 4 || (n > 500 && n < 520) || (n > 2040 && n < 2060) ? 1 : 97)
		{
			m1_buf text = {0};
			int got;

			m1_buf_puts(&text, cases[i].before);
			for (int k = 0; k < n; k++)
				m1_buf_puts(&text, cases[i].unit);
			m1_buf_puts(&text, cases[i].behind);
			got = pieces(p, (m1_slice){text.data, text.len});
			/* one blank belongs to the word behind it */
			if (got != cases[i].pieces - (n == 1 && cases[i].unit[0] == ' ' && cases[i].behind[0] == 'x'))
				fail_msg("%d pieces of \"%s\" %d times \"%s\" \"%s\"", got, cases[i].before, n, cases[i].unit,
						 cases[i].behind);
			m1_buf_free(&text);
		}
	m1_pretokenizer_free(p);
}

static void
test_invalid_input(void **state)
{
	m1_tokenizer *t = open_tokenizer(NANO, NANO_ROWS + 1);
	static const char *const bad[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf5\x80\x80\x80"};
	const int32_t dead[] = {5, NANO_ROWS};
	m1_ids ids = {0};
	m1_buf text = {0};
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(m1_tokenizer_encode(t, m1_slice_of(bad[i]), M1_ADDED_NONE, &ids, NULL, NULL, &err),
						 M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_tokenizer_decode(t, dead, 2, &text, NULL, &err), M1_E_INVALID_ARGUMENT);
	assert_null(m1_tokenizer_piece(t, -1).data);
	assert_null(m1_tokenizer_piece(t, 100000).data);
	m1_ids_free(&ids);
	m1_buf_free(&text);
	m1_tokenizer_close(t);
}

#define SCRATCH TEST_BUILD "/test_tokenizer"

static void
read_file(const char *path, m1_buf *text)
{
	FILE *f = fopen(path, "rb");
	char block[4096];
	size_t n;

	assert_non_null(f);
	while ((n = fread(block, 1, sizeof block, f)) > 0)
		m1_buf_append(text, block, n);
	fclose(f);
	assert_non_null(m1_buf_cstr(text));
}

/* Writes a file of the scratch folder, which then holds no other. */
static void
write_alone(const char *name, m1_slice text)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "merges.txt"};
	char path[64];
	FILE *f;

	mkdir("build", 0777);
	mkdir(SCRATCH, 0777);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
	{
		snprintf(path, sizeof path, SCRATCH "/%s", names[i]);
		unlink(path);
	}
	if (name == NULL)
		return;
	snprintf(path, sizeof path, SCRATCH "/%s", name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(text.data, 1, text.len, f), text.len);
	fclose(f);
}

static m1_status
try_open(int rows, m1_error *err)
{
	m1_tokenizer *t;
	m1_status status = m1_tokenizer_open(SCRATCH, rows, &t, err);

	assert_true((status == M1_OK) == (t != NULL));
	m1_tokenizer_close(t);
	return status;
}

/* Opens a folder whose tokenizer.json is the bundled one with `find` replaced by `put`. */
static m1_status
open_edited(const char *find, const char *put, m1_error *err)
{
	m1_buf text = {0};
	m1_buf edited = {0};
	const char *at;
	m1_status status;

	read_file(NANO "/tokenizer.json", &text);
	at = strstr(text.data, find);
	assert_non_null(at);
	m1_buf_append(&edited, text.data, (size_t) (at - text.data));
	m1_buf_puts(&edited, put);
	m1_buf_puts(&edited, at + strlen(find));
	write_alone("tokenizer.json", (m1_slice){edited.data, edited.len});
	status = try_open(NANO_ROWS, err);
	m1_buf_free(&text);
	m1_buf_free(&edited);
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
		{"\"id\": 1594", "\"id\": 99999999", M1_E_CORRUPT},
		{"\"id\": 1594", "\"id\": -1", M1_E_CORRUPT},
		{"\"id\": 1594", "\"id\": \"x\"", M1_E_CORRUPT},
		{"\"he\": 256", "\"he\": 70000", M1_E_CORRUPT},
		{"\"h e\"", "\"h\"", M1_E_CORRUPT},
		{"\"h e\"", "\"h e e\"", M1_E_CORRUPT},
		{"\"h e\"", "\"nonsense words\"", M1_E_CORRUPT},
		{"\"h e\"", "7", M1_E_CORRUPT},
		{"\"h e\"", "[\"h\", \"e\"]", M1_OK},
		{"\"version\"", "{\"version\"", M1_E_CORRUPT},
		{"\"version\"", "[{\"version\"", M1_E_CORRUPT},
		{"\"Ā\": 0", "\"\": 0", M1_E_CORRUPT},
		{"\"he\": 256", "\"he\": 257", M1_E_CORRUPT},  /* two tokens with one id */
		{"\"id\": 1594", "\"id\": 300", M1_E_CORRUPT}, /* likewise */
		{"\"<think>\"", "\"</think>\"", M1_E_CORRUPT}, /* one added token with two ids */
		{"\"<think>\"", "\"he\"", M1_E_CORRUPT},	   /* another id in the vocab */
		{"\"<end_of_sentence>\"", "\"<other>\"", M1_E_CORRUPT},
		{"\"h e\"", "\"h e\", \"h e\"", M1_E_CORRUPT}, /* a merge that is there twice */
		{"\"byte_fallback\": false", "\"byte_fallback\": \"no\"", M1_E_CORRUPT},
		{"\"fuse_unk\": false", "\"fuse_unk\": true", M1_E_UNSUPPORTED},
		{"\"ignore_merges\": false", "\"ignore_merges\": true", M1_E_UNSUPPORTED},
		{"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"", M1_E_UNSUPPORTED},
		{"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"", M1_E_UNSUPPORTED},
		{"\"rstrip\": false", "\"rstrip\": true", M1_E_UNSUPPORTED},
		{"\"single_word\": false", "\"single_word\": true", M1_E_UNSUPPORTED},
		{"\"lstrip\": false", "\"lstrip\": 1", M1_E_CORRUPT},
		{"\"add_prefix_space\": false", "\"add_prefix_space\": true", M1_E_UNSUPPORTED},
		{"\"ByteLevel\"", "\"Metaspace\"", M1_E_UNSUPPORTED},
		{"\"Split\"", "\"Digits\"", M1_E_UNSUPPORTED},
		{"\"Sequence\"", "\"Whitespace\"", M1_E_UNSUPPORTED},
		{"\"vocab\"", "\"vocabulary\"", M1_E_UNSUPPORTED},
		{"\"merges\"", "\"mergers\"", M1_E_UNSUPPORTED},
		{"\"version\"", "\"novel\": 1, \"version\"", M1_E_UNSUPPORTED},
		{"\"version\"", "\"novel\": null, \"version\"", M1_OK},
		{"\"fuse_unk\"", "\"novel\": 1, \"fuse_unk\"", M1_E_UNSUPPORTED},
		{"\"decoder\": {", "\"decoder\": {\"decoders\": [{\"type\": \"ByteLevel\"}], ", M1_OK},
		{"\"decoder\": {", "\"decoder\": {\"decoders\": [{\"type\": \"Metaspace\"}], ", M1_E_UNSUPPORTED},
	};

	(void) state;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		m1_error err = {.message = ""};
		m1_status status = open_edited(edits[i].find, edits[i].put, &err);

		if (status != edits[i].status)
			fail_msg("%s -> %s: %s (%s)", edits[i].find, edits[i].put, m1_status_name(status), err.message);
		if (status != M1_OK && strstr(err.message, "tokenizer.json") == NULL && edits[i].find[0] != '[')
			fail_msg("%s -> %s: \"%s\" does not name the file", edits[i].find, edits[i].put, err.message);
	}
}

static void
test_one_id_for_two_tokens(void **state)
{
	m1_error err = {.message = ""};

	(void) state;
	assert_int_equal(open_edited("\"he\": 256", "\"he\": 257", &err), M1_E_CORRUPT);
	assert_string_equal(err.message, "tokenizer.json: id 257 is both token \"he\" and token \"er\"");
	assert_int_equal(open_edited("\"id\": 1594", "\"id\": 256", &err), M1_E_CORRUPT);
	assert_string_equal(err.message, "tokenizer.json: id 256 is both token \"he\" and token \"<begin_of_document>\"");
}

/* No piece of text may become a control token by way of the merges. */
static void
test_merges_make_no_control_token(void **state)
{
	m1_error err = {.message = ""};

	(void) state;
	/* "er" is then token 256 of the vocab, a merge's result, and a control token */
	assert_int_equal(
		open_edited("\"id\": 1594", "\"id\": 256, \"content\": \"he\", \"special\": true}, {\"id\": 1594", &err),
		M1_E_CORRUPT);
	assert_non_null(strstr(err.message, "control token \"he\""));
	assert_int_equal(
		open_edited("\"id\": 1594", "\"id\": 256, \"content\": \"he\", \"special\": false}, {\"id\": 1594", &err),
		M1_OK);
}

static void
test_outside_the_table(void **state)
{
	m1_tokenizer *t;
	m1_error err;

	(void) state;
	assert_int_equal(m1_tokenizer_open(NANO, NANO_ROWS - 1, &t, &err), M1_E_CORRUPT);
	assert_string_equal(err.message, "tokenizer.json: token \"</think>\" has id 1599, outside the model's vocabulary");
	assert_ok(m1_tokenizer_open(NANO, NANO_ROWS, &t, &err));
	m1_tokenizer_close(t);
	assert_int_equal(m1_tokenizer_open(RELEASED, 200034, &t, &err), M1_E_CORRUPT);
	assert_non_null(strstr(err.message, "merges.txt: token \"<begin_of_document>\""));
	assert_int_equal(m1_tokenizer_open(NANO, 0, &t, &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_tokenizer_open(NANO, -1, &t, &err), M1_E_INVALID_ARGUMENT);
	write_alone(NULL, (m1_slice){NULL, 0});
	assert_int_equal(try_open(NANO_ROWS, &err), M1_E_NOT_FOUND);
	assert_non_null(strstr(err.message, "neither tokenizer.json nor merges.txt"));
	assert_int_equal(m1_tokenizer_open("build/no such folder", 1600, &t, &err), M1_E_NOT_FOUND);
}

static void
test_end_of_turn(void **state)
{
	static const struct
	{
		const char *config;
		m1_status status;
		int32_t eos;
	} cases[] = {
		{"{}", M1_OK, 1596},
		{"{\"eos_token\": null}", M1_OK, 1596},
		{"{\"eos_token\": \"<end_of_document>\"}", M1_OK, 1597},
		{"{\"eos_token\": {\"content\": \"<end_of_document>\"}}", M1_OK, 1597},
		{"{\"eos_token\": \"</think>\"}", M1_OK, 1599},
		{"{\"eos_token\": {\"text\": \"<end_of_document>\"}}", M1_E_CORRUPT, 0},
		{"{\"eos_token\": 7}", M1_E_CORRUPT, 0},
		{"{\"eos_token\": \"<none>\"}", M1_E_CORRUPT, 0},
		{"{\"eos_token\": \"er\"}", M1_E_CORRUPT, 0},
		{"{", M1_E_CORRUPT, 0},
	};
	m1_buf json = {0};

	(void) state;
	read_file(NANO "/tokenizer.json", &json);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_tokenizer *t;
		m1_error err = {.message = ""};
		FILE *f;

		write_alone("tokenizer.json", (m1_slice){json.data, json.len});
		f = fopen(SCRATCH "/tokenizer_config.json", "wb");
		assert_non_null(f);
		fputs(cases[i].config, f);
		fclose(f);
		if (m1_tokenizer_open(SCRATCH, NANO_ROWS, &t, &err) != cases[i].status)
			fail_msg("%s: %s", cases[i].config, err.message);
		if (t == NULL)
			continue;
		assert_int_equal(m1_tokenizer_eos(t), cases[i].eos);
		assert_true(m1_tokenizer_is_special(t, cases[i].eos));
		m1_tokenizer_close(t);
	}
	m1_buf_free(&json);
}

/* merges.txt with line `line` (after the version's) replaced by put, and with only `lines` of its 199,744 merges. */
static m1_status
open_merges(const m1_buf *file, int line, m1_slice put, int lines, m1_error *err)
{
	m1_buf edited = {0};
	const char *at = file->data;
	m1_status status;

	for (int i = -1; i < lines && *at != '\0'; i++)
	{
		size_t len = strcspn(at, "\n");

		len += at[len] == '\n';
		if (i == line)
			m1_buf_append(&edited, put.data, put.len);
		else
			m1_buf_append(&edited, at, len);
		at += len;
	}
	write_alone("merges.txt", (m1_slice){edited.data, edited.len});
	status = try_open(RELEASED_ROWS, err);
	m1_buf_free(&edited);
	return status;
}

static void
test_malformed_merges(void **state)
{
	static char long_line[10000];
	const struct
	{
		m1_slice put;
		int line, lines;
		const char *says; /* NULL: it opens */
	} cases[] = {
		{{NULL, 0}, -1, 199744, NULL}, /* no version */
		{{NULL, 0}, -2, 199744, NULL},
		{{NULL, 0}, -2, 199743, "ends after 199743 of 199744"},
		{{NULL, 0}, -2, 0, "ends after 0 of"},
		{{"\n", 1}, 5, 199744, "merge 5 is not a pair"},
		{{"ab\n", 3}, 5, 199744, "merge 5 is not a pair"},
		{{"a b\r\n", 5}, 5, 199744, "merge 5 is not a pair"},
		{{"a b c\n", 6}, 5, 199744, "merge 5 is not a pair"},
		{{" b\n", 3}, 5, 199744, "merge 5 is not a pair"},
		{{"a \n", 3}, 5, 199744, "merge 5 is not a pair"},
		{{"a \xa1\n", 4}, 5, 199744, "merge 5 is not a pair"}, /* not UTF-8 */
		{{"a \xc3\n", 4}, 5, 199744, "merge 5 is not a pair"},
		{{"a b\0c\n", 6}, 5, 199744, "merge 5 is too long or holds NUL"},
		{{"zebra crossing\n", 15}, 5, 199744, "merge 5 names a token"},
		{{long_line, sizeof long_line}, 5, 199744, "merge 5 is too long"},
		{{"q q\nq q\n", 8}, 5, 199744, "merge 6 is there twice"},
	};
	m1_buf file = {0};
	m1_error last;

	(void) state;
	memset(long_line, 'x', sizeof long_line - 1);
	long_line[sizeof long_line - 1] = '\n';
	read_file(RELEASED "/merges.txt", &file);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_error err = {.message = ""};
		m1_status status = open_merges(&file, cases[i].line, cases[i].put, cases[i].lines, &err);

		if (status != (cases[i].says == NULL ? M1_OK : M1_E_CORRUPT))
			fail_msg("case %zu: %s (%s)", i, m1_status_name(status), err.message);
		if (cases[i].says != NULL && strstr(err.message, cases[i].says) == NULL)
			fail_msg("case %zu: \"%s\"", i, err.message);
	}
	m1_buf_puts(&file, "\nx y\n"); /* the released file ends without a line break */
	assert_non_null(m1_buf_cstr(&file));
	assert_int_equal(open_merges(&file, -2, (m1_slice){NULL, 0}, 199745, &last), M1_E_CORRUPT);
	assert_non_null(strstr(last.message, "more than 199744"));
	m1_buf_free(&file);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference_cases),
		cmocka_unit_test(test_white_space),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_user_text_is_never_control),
		cmocka_unit_test(test_long_runs_are_not_quadratic),
		cmocka_unit_test(test_patterns_are_bounded),
		cmocka_unit_test(test_steps_of_a_byte_are_bounded),
		cmocka_unit_test(test_patterns_that_read_ahead),
		cmocka_unit_test(test_runs_of_any_length),
		cmocka_unit_test(test_invalid_input),
		cmocka_unit_test(test_malformed_files),
		cmocka_unit_test(test_one_id_for_two_tokens),
		cmocka_unit_test(test_merges_make_no_control_token),
		cmocka_unit_test(test_outside_the_table),
		cmocka_unit_test(test_end_of_turn),
		cmocka_unit_test(test_malformed_merges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
