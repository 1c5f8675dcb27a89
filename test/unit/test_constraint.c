/*
 * test_constraint.c - constraints against judges that share no code with them: PCRE2 for regular
 * expressions, a validator of its own for JSON. Whatever way the masks allow ends in a valid answer,
 * and no way to a valid answer is closed.
 */
#include "constraint_testing.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/jsonschema.h"
#include "grammar/regex.h"
#include "base/utf8.h"
#include "json_judge.h"
#include "regex_judge.h"

#define THINKING "<think>\nI see.\n</think>\n\n"

static m1_constraint *
compile(m1_constraint_kind kind, const char *text)
{
	m1_constraint *c;
	m1_error err;

	if (m1_constraint_compile(&(m1_constraint_spec){.kind = kind, .text = m1_slice_of(text)}, vocabulary, NULL, &c,
							  &err) != M1_OK)
		fail_msg("%s: %s (%s)", text, err.message, err.detail);
	return c;
}

static void
refuse(m1_constraint_kind kind, const char *text, m1_status status, const char *message, const char *detail)
{
	m1_constraint *c;
	m1_error err;

	if (m1_constraint_compile(&(m1_constraint_spec){.kind = kind, .text = m1_slice_of(text)}, vocabulary, NULL, &c,
							  &err) != status)
		fail_msg("%s was not refused with %s", text, m1_status_name(status));
	assert_null(c);
	if (strstr(err.message, message) == NULL || strstr(err.detail, detail) == NULL)
		fail_msg("%s: \"%s\" (%s) does not say \"%s\" (%s)", text, err.message, err.detail, message, detail);
}

/* ---- walks ---- */

/* The mask, all of it in one turn. */
static m1_status
fill_mask(m1_cursor *cursor, int tokens_left, m1_error *err)
{
	int64_t turn = M1_NO_TURN;
	bool done;
	m1_status status = m1_cursor_mask(cursor, tokens_left, &turn, mask, &done, err);

	assert_true(done);
	return status;
}

/*
 * A random reply of at most n tokens; its answer in *answer. false when the tokens ran out first. A mask that allows
 * nothing, a token that is then refused, and an end that is none are failures.
 */
static bool
random_reply(m1_constraint *c, uint64_t *random, int n, m1_buf *answer)
{
	m1_cursor *cursor = m1_cursor_create(c);
	bool only = false;
	bool ended = false;
	m1_error err;

	assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING), &err));
	answer->len = 0;
	while (n > 0 && !ended)
	{
		int32_t id;

		assert_ok(fill_mask(cursor, n, &err));
		assert_true(count_allowed() > 0);
		id = pick_allowed(random);
		n--;
		ended = id == vocabulary->eos;
		assert_true(!ended || m1_cursor_at_end(cursor, &only));
		if (ended)
			break;
		assert_false(m1_tokenizer_is_special(tokenizer, id));
		assert_ok(m1_cursor_read(cursor, m1_tokenizer_piece(tokenizer, id), &err));
		m1_buf_append(answer, m1_tokenizer_piece(tokenizer, id).data, m1_tokenizer_piece(tokenizer, id).len);
		ended = m1_cursor_at_end(cursor, &only) && only;
	}
	m1_cursor_free(cursor);
	assert_non_null(m1_buf_cstr(answer));
	return ended;
}

/* The answer in pieces of random lengths is allowed piece by piece, where there is such a token; and may end at its end. */
static void
assert_possible(m1_constraint *c, const char *answer, uint64_t *random)
{
	const size_t len = strlen(answer);

	for (int round = 0; round < 8; round++)
	{
		m1_cursor *cursor = m1_cursor_create(c);
		size_t at = 0;
		bool only;
		m1_error err;

		assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING), &err));
		while (at < len)
		{
			int32_t best = -1;
			m1_slice piece;

			assert_ok(fill_mask(cursor, 100000, &err));
			/* each token that the answer goes on with must be allowed; one of them is taken */
			for (int32_t id = 0; id < vocabulary->n_tokens; id++)
			{
				piece = m1_tokenizer_piece(tokenizer, id);
				if (piece.data == NULL || m1_tokenizer_is_special(tokenizer, id) || piece.len > len - at ||
					memcmp(piece.data, answer + at, piece.len) != 0)
					continue;
				if (!m1_mask_has(mask, id))
					fail_msg("\"%s\": token \"%.*s\" is not allowed at byte %zu", answer, (int) piece.len, piece.data,
							 at);
				if (best < 0 || test_random(random) % 2 == 0)
					best = id;
			}
			piece = m1_tokenizer_piece(tokenizer, best);
			assert_ok(m1_cursor_read(cursor, piece, &err));
			at += piece.len;
		}
		assert_ok(fill_mask(cursor, 100000, &err));
		if (!m1_mask_has(mask, vocabulary->eos) || !m1_cursor_at_end(cursor, &only))
			fail_msg("\"%s\" may not end", answer);
		m1_cursor_free(cursor);
	}
}

/* Somewhere on the way, the bytes of the answer are refused, or it may not end. */
static void
assert_impossible(m1_constraint *c, const char *answer)
{
	m1_cursor *cursor = m1_cursor_create(c);
	bool only;
	m1_error err;

	assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING), &err));
	if (m1_cursor_read(cursor, m1_slice_of(answer), &err) == M1_OK && m1_cursor_at_end(cursor, &only))
		fail_msg("\"%s\" is possible", answer);
	m1_cursor_free(cursor);
}

/* ---- regular expressions ---- */

static const char *const regexes[] = {
	"yes|no",
	"[0-9]{3}-[a-f]+x",
	"(a|b)*c?",
	"(foo|bar){2,4}!",
	"[A-Z][a-z]{0,12}( [A-Z][a-z]{1,12}){1,3}",
	"\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])",
	"[^,\\s]+(, ?[^,\\s]+)*",
	".{0,20}",
	"\\S{1,10}\\s\\w+",
	"[\xC3\xA4\xC3\xB6\xC3\xBC\xE2\x82\xAC-\xE2\x84\xA2]{1,5}",
	"[^a-zA-Z0-9 ]{3}",
	"(x{0,3}y?){2}z",
	"^#[0-9a-fA-F]{6}$",
	"\\x41B[\\]\\-x]\\.\\*",
	"((a*)*b)*",
	"[[:alpha:]_][[:alnum:]_]{0,8}",
	"[[:word:]]{2}[[:print:]][[:^alpha:]][[:punct:][:digit:]]?[[:graph:]]+[^[:^lower:]]",
	"[[:cntrl:]][[:^ascii:]][[:blank:][:upper:]][[:^space:]][[:xdigit:]]",
	"[^\\x00-\\x1F\\x7F]{1,9}",
	"[[:,][[.][[=,]",
	"(a{2}){2,3}?b+?",
	"\n+x\n?",
	"{\"k\": [0-9]+}",
	"\xF0\x9F\x98\x80?[\\x{1F600}-\\x{1F64F}]",
};

static void
test_regex_walks(void **state)
{
	uint64_t random = 11;
	m1_buf answer = {0};
	int ended = 0;

	(void) state;
	for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++)
	{
		m1_constraint *c = compile(M1_CONSTRAINT_REGEX, regexes[i]);

		for (int round = 0; round < REPEATED(60); round++)
		{
			if (!random_reply(c, &random, 60, &answer))
				continue;
			ended++;
			if (!m1_utf8_valid((m1_slice){answer.data, answer.len}) ||
				regex_judge(m1_slice_of(regexes[i]), (m1_slice){answer.data, answer.len}, false) != REGEX_MATCHES)
				fail_msg("\"%s\" does not match %s", answer.data, regexes[i]);
			assert_possible(c, answer.data, &random);
		}
		m1_constraint_release(c);
	}
	assert_true(ended > REPEATED(1100));
	m1_buf_free(&answer);
}

static void
test_regex_texts(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *possible[4];
		const char *impossible[5];
	} cases[] = {
		{"a|bc|", {"", "a", "bc"}, {"b", "ab", "abc", "c"}},
		{"(ab|a)(c|bcd)", {"abc", "abbcd", "ac", "abcd"}, {"ab", "abcdb", "a"}},
		{"x{2,3}", {"xx", "xxx"}, {"x", "xxxx", ""}},
		{".", {"a", "\xC3\xA4", "\xF0\x9F\x98\x80"}, {"", "\n", "ab", "\xC3", "\xE2\x80\xA8"}},
		{"x{1a}|{}|{a,}|\\{,3}", {"x{1a}", "{}", "{a,}", "{,3}"}, {"", "x", "xxx"}},
		{"[^\\d]", {"a", "\n"}, {"5", ""}},
		{"a\nb\n", {"a\nb\n"}, {"a\nb", "ab\n"}},
		/* what is a space in other dialects is in neither of the two */
		{"[^\\S\n]+", {" ", "\t\r"}, {"\xC2\x85", "\xC2\xA0", "\x1C", "\n", "a"}},
		{"[^\\s]", {"a", "\xE2\x82\xAC"}, {" ", "\xC2\x85", "\xC2\xA0", "\xE3\x80\x80", "\x1C"}},
		{"\xED\x95\x9C|[\xED\x9F\xB0-\xEE\x80\x82]",
		 {"\xED\x95\x9C", "\xEE\x80\x81", "\xED\x9F\xBF"},
		 {"\xED\xA0\x80"}},
		{"<think>.*", {"<think>x</think>"}, {"think>"}},
		{"\\u0041\\u{42}\\x{43}\\t", {"ABC\t"}, {"ABC", "A"}},
		{"[\\0\\uD800-\\uDFFFa]|[\\b]", {"a", "\b"}, {"", "b", "0"}},
		{"\\uD83D\\uDE00[\\uD83D\\uDE00-\\uD83D\\uDE02]", {"\xF0\x9F\x98\x80\xF0\x9F\x98\x81"}, {"\xF0\x9F\x98\x80"}},
	};
	uint64_t random = 12;

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_constraint *c = compile(M1_CONSTRAINT_REGEX, cases[i].pattern);

		for (int j = 0; j < 4 && cases[i].possible[j] != NULL; j++)
			assert_possible(c, cases[i].possible[j], &random);
		for (int j = 0; j < 5 && cases[i].impossible[j] != NULL; j++)
			assert_impossible(c, cases[i].impossible[j]);
		m1_constraint_release(c);
	}
}

static void
test_regex_refusals(void **state)
{
	static const struct
	{
		const char *pattern;
		m1_status status;
		const char *message;
		const char *detail;
	} cases[] = {
		{"a(b", M1_E_INVALID_ARGUMENT, "a ( without its )", "character 4"},
		{"\xC3\xA4)b", M1_E_INVALID_ARGUMENT, "a ) without its (", "character 2"},
		{"[a", M1_E_INVALID_ARGUMENT, "a [ without its ]", "character 3"},
		{"[]", M1_E_INVALID_ARGUMENT, "an empty set", "character 2"},
		{"[z-a]", M1_E_INVALID_ARGUMENT, "ends before it begins", ""},
		{"*a", M1_E_INVALID_ARGUMENT, "a repetition of nothing", "character 1"},
		{"a{3,2}", M1_E_INVALID_ARGUMENT, "wrong way round", ""},
		{"a{,3}", M1_E_UNSUPPORTED, "counts are {n}", "character 3"},
		{"a{,}", M1_E_UNSUPPORTED, "counts are {n}", ""},
		{"a{ 1, 3 }", M1_E_UNSUPPORTED, "counts are {n}", ""},
		{"a{1 }", M1_E_UNSUPPORTED, "counts are {n}", ""},
		{"a{1 ,}", M1_E_UNSUPPORTED, "counts are {n}", ""},
		{"a{1,\t2}", M1_E_UNSUPPORTED, "counts are {n}", ""},
		{"(a|{2})", M1_E_INVALID_ARGUMENT, "a repetition of nothing", "character 4"},
		{"{,2}a", M1_E_INVALID_ARGUMENT, "a repetition of nothing", "character 1"},
		{"a\\", M1_E_INVALID_ARGUMENT, "nothing follows", ""},
		{"\\xZ", M1_E_INVALID_ARGUMENT, "not complete", ""},
		{"\\uD800", M1_E_INVALID_ARGUMENT, "no text can hold", ""},
		{"\\x00", M1_E_INVALID_ARGUMENT, "no text can hold", ""},
		{"a\\0", M1_E_INVALID_ARGUMENT, "no text can hold", "character 4"},
		{"\\u{0}", M1_E_INVALID_ARGUMENT, "no text can hold", ""},
		{"\\012", M1_E_UNSUPPORTED, "octal", "character 2"},
		{"[\\012]", M1_E_UNSUPPORTED, "octal", ""},
		{"[\\0]", M1_E_INVALID_ARGUMENT, "no answer", "excludes itself"},
		{"[\\u{110000}]", M1_E_INVALID_ARGUMENT, "no text can hold", ""},
		{"[\\x00\\uD800]", M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"a\xFF", M1_E_INVALID_ARGUMENT, "UTF-8", ""},
		{"[[:alfa:]]", M1_E_UNSUPPORTED, "no set [:alfa:]", "character 2"},
		{"[a[:^letter:]]", M1_E_UNSUPPORTED, "no set [:^letter:]", "character 3"},
		{"[[::]]", M1_E_UNSUPPORTED, "no set [::]", ""},
		{"[:print:]", M1_E_UNSUPPORTED, "inside a set", ""},
		{"[[.a.]]", M1_E_UNSUPPORTED, "collating", ""},
		{"[a-[:digit:]]", M1_E_INVALID_ARGUMENT, "ends with a class", ""},
		{"(a)\\1", M1_E_UNSUPPORTED, "back references", ""},
		{"a(?=b)", M1_E_UNSUPPORTED, "look-around", ""},
		{"(?<=a)b", M1_E_UNSUPPORTED, "look-around is", ""},
		{"(?<!a)b", M1_E_UNSUPPORTED, "look-around is", ""},
		{"(?<n>a)", M1_E_UNSUPPORTED, "named groups", "character 3"},
		{"(?i)a", M1_E_UNSUPPORTED, "flags", ""},
		{"(?P<n>a)", M1_E_UNSUPPORTED, "named groups", ""},
		{"(?'n'a)", M1_E_UNSUPPORTED, "named groups", ""},
		{"(?>a)", M1_E_UNSUPPORTED, "atomic groups", ""},
		{"(?|a)", M1_E_UNSUPPORTED, "count anew", ""},
		{"(?#a)", M1_E_UNSUPPORTED, "comments", ""},
		{"(?R)", M1_E_UNSUPPORTED, "recursion", ""},
		{"(?1)", M1_E_UNSUPPORTED, "recursion", ""},
		{"(?(1)a)", M1_E_UNSUPPORTED, "conditions", ""},
		{"(?", M1_E_UNSUPPORTED, "flags", ""},
		{"\\a", M1_E_UNSUPPORTED, "escape \\a is not supported: write \\x07", "character 2"},
		{"[\\e]", M1_E_UNSUPPORTED, "escape \\e is not supported: write \\x1B", ""},
		{"\\Qa\\E", M1_E_UNSUPPORTED, "escape \\Q is not supported", ""},
		{"\\bword", M1_E_UNSUPPORTED, "word boundaries", ""},
		{"\\p{L}", M1_E_UNSUPPORTED, "character properties", ""},
		{"a++", M1_E_UNSUPPORTED, "possessive", ""},
		{"a**********", M1_E_UNSUPPORTED, "too many repetitions", ""},
		{"a^b", M1_E_UNSUPPORTED, "at the ends", "character 2"},
		{"a{70000}", M1_E_UNSUPPORTED, "65535", ""},
		{"(a?){60000}", M1_E_UNSUPPORTED, "too complex", ""},
		{"(a{65535}b){2}(c{65535}d){2}(e{65535}f){2}(g{65535}h){2}(i{65535}j){2}(k{65535}l){2}(m{65535}n){2}(o{65535}p)"
		 "{2}",
		 M1_E_UNSUPPORTED, "too large", "nodes"},
		{"[^\\x01-\\x{10FFFF}]", M1_E_INVALID_ARGUMENT, "no answer", ""},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refuse(M1_CONSTRAINT_REGEX, cases[i].pattern, cases[i].status, cases[i].message, cases[i].detail);
}

/* SQL has no such texts; other clients of the engine may. */
static void
test_zero_bytes(void **state)
{
	static const struct
	{
		m1_constraint_kind kind;
		m1_slice text;
		const char *message;
	} cases[] = {
		{M1_CONSTRAINT_REGEX, {"a\0b", 3}, "U+0000"},
		{M1_CONSTRAINT_REGEX, {"[^\0]", 4}, "U+0000"},
		{M1_CONSTRAINT_REGEX, {"a\0", 2}, "U+0000"},
		{M1_CONSTRAINT_JSON_SCHEMA, {"{\"const\": \"\0\"}", 14}, "JSON"},
		{M1_CONSTRAINT_JSON_SCHEMA, {"{}\0", 3}, "JSON"},
		{M1_CONSTRAINT_CHOICES, {"[\"a\0\"]", 6}, "JSON"},
		{M1_CONSTRAINT_CHOICES, {"[\"a\"]\0x", 7}, "JSON"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_constraint *c;
		m1_error err;

		assert_int_equal(m1_constraint_compile(&(m1_constraint_spec){.kind = cases[i].kind, .text = cases[i].text},
											   vocabulary, NULL, &c, &err),
						 M1_E_INVALID_ARGUMENT);
		assert_null(c);
		if (strstr(err.message, cases[i].message) == NULL)
			fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.message, cases[i].message);
	}
}

/* ---- choices ---- */

static void
test_choices(void **state)
{
	static const char text[] = "[\"a\", \"ab\", \"b c\", \"\xC3\xA4\", \" x\", \"<think>\", \"line\\n\"]";
	m1_constraint *c = compile(M1_CONSTRAINT_CHOICES, text);
	json_t *all = json_loads(text, 0, NULL);
	uint64_t random = 3;
	m1_buf answer = {0};
	bool seen[7] = {false};
	size_t i;
	json_t *one;

	(void) state;
	for (int round = 0; round < 300; round++)
	{
		bool found = false;

		assert_true(random_reply(c, &random, 20, &answer));
		json_array_foreach (all, i, one)
			if (strcmp(json_string_value(one), answer.data) == 0)
				found = seen[i] = true;
		assert_true(found);
	}
	json_array_foreach (all, i, one)
	{
		assert_true(seen[i]);
		assert_possible(c, json_string_value(one), &random);
	}
	assert_impossible(c, "b");
	assert_impossible(c, "abb");
	m1_buf_free(&answer);
	json_decref(all);
	m1_constraint_release(c);
	refuse(M1_CONSTRAINT_CHOICES, "[]", M1_E_INVALID_ARGUMENT, "there are no choices", "");
	refuse(M1_CONSTRAINT_CHOICES, "{\"a\": 1}", M1_E_INVALID_ARGUMENT, "not a JSON array", "");
	refuse(M1_CONSTRAINT_CHOICES, "[\"a\"", M1_E_INVALID_ARGUMENT, "not a JSON array", "");
	refuse(M1_CONSTRAINT_CHOICES, "[\"a\", 2]", M1_E_INVALID_ARGUMENT, "choice 2 is not a string", "");
	refuse(M1_CONSTRAINT_CHOICES, "[\"\"]", M1_E_INVALID_ARGUMENT, "choice 1 is empty", "");
	refuse(M1_CONSTRAINT_CHOICES, "[\"a\", \"b\", \"a\"]", M1_E_INVALID_ARGUMENT, "\"a\" is given twice", "");
}

/* ---- JSON schemas ---- */

static const char *const schemas[] = {
	"true",
	"{}",
	"{\"type\": \"string\"}",
	"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 5}",
	"{\"type\": [\"integer\", \"null\", \"boolean\"]}",
	"{\"type\": \"number\"}",
	"{\"type\": \"integer\", \"minimum\": -17, \"maximum\": 2345}",
	"{\"type\": \"integer\", \"exclusiveMinimum\": 99, \"maximum\": 1000.5}",
	"{\"type\": \"integer\", \"maximum\": -30}",
	"{\"type\": \"number\", \"minimum\": 0, \"maximum\": 1}",
	"{\"type\": \"number\", \"exclusiveMinimum\": -3, \"exclusiveMaximum\": 12}",
	"{\"type\": \"number\", \"minimum\": -20, \"maximum\": -5}",
	"{\"type\": \"number\", \"exclusiveMinimum\": 0}",
	"{\"enum\": [1, \"a\\n\\\"\", null, {\"k\": [true]}, 2.5]}",
	"{\"enum\": [1, \"a\", null], \"type\": [\"string\", \"null\"]}",
	"{\"const\": {\"a\": 1}}",
	"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"string\", "
	"\"maxLength\": 3}, "
	"\"c\": {\"const\": 1}}, \"required\": [\"b\"]}",
	"{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}}, \"additionalProperties\": "
	"false}",
	"{\"type\": \"object\", \"additionalProperties\": {\"type\": \"boolean\"}}",
	"{\"type\": \"object\", \"additionalProperties\": false}",
	"{\"type\": \"object\", \"required\": [\"x\", \"y\"]}",
	"{\"type\": \"array\", \"items\": {\"enum\": [\"u\", \"v\"]}, \"minItems\": 2, \"maxItems\": 4}",
	"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}",
	"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"boolean\"}, {\"type\": \"integer\"}], \"items\": {\"const\": "
	"\"z\"}, "
	"\"minItems\": 1}",
	"{\"type\": \"array\", \"prefixItems\": [{\"type\": \"boolean\"}, {\"type\": \"null\"}], \"minItems\": 2}",
	"{\"type\": \"array\", \"maxItems\": 0}",
	"{\"type\": \"array\", \"maxItems\": 1000000, \"items\": {\"type\": \"string\", \"maxLength\": 1000000}}",
	"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}, \"b\": false, \"c\": {\"enum\": []}}}",
	"{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"number\"}, {\"type\": \"string\", \"maxLength\": 1}]}",
	"{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"string\", \"maxLength\": 2}, {\"const\": null}]}",
	"{\"oneOf\": [{\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"x\"}, \"n\": {\"type\": \"integer\"}}, "
	"\"required\": [\"k\", \"n\"]}, {\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"y\"}}, \"required\": "
	"[\"k\"]}]}",
	"{\"$ref\": \"#/$defs/tree\", \"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": "
	"\"integer\"}, "
	"\"kids\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/tree\"}, \"maxItems\": 2}}, \"required\": "
	"[\"v\"]}}}",
	"{\"type\": \"object\", \"properties\": {\"next\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}}, "
	"\"required\": [\"next\"]}",
	"{\"type\": \"string\", \"pattern\": \"^[a-c]{2,3}\\\\\\\\\\\"[^x]$\"}",
	"{\"type\": \"string\", \"pattern\": \"ab|^cd\"}",
	"{\"title\": \"t\", \"description\": \"d\", \"type\": \"object\", \"properties\": {\"o\": {\"type\": \"object\", "
	"\"properties\": "
	"{\"l\": {\"type\": \"array\", \"items\": {\"type\": \"object\", \"properties\": {\"\xC3\xA4 \\\"q\\\"\": "
	"{\"type\": \"null\"}}, "
	"\"required\": [\"\xC3\xA4 \\\"q\\\"\"]}, \"minItems\": 1, \"maxItems\": 2}}, \"required\": [\"l\"]}}, "
	"\"required\": [\"o\"]}",
};

/* Short limits make the masks steer to the end, long ones leave it to chance: valid either way. */
static void
test_json_walks(void **state)
{
	uint64_t random = 21;
	m1_buf answer = {0};
	int ended = 0;

	(void) state;
	for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
	{
		m1_constraint *c = compile(M1_CONSTRAINT_JSON_SCHEMA, schemas[i]);
		json_t *schema = json_loads(schemas[i], JSON_DECODE_ANY, NULL);

		assert_non_null(schema);
		for (int round = 0; round < REPEATED(60); round++)
		{
			json_error_t where;
			json_t *value;

			/* every byte may be a token of its own, and 80 are enough for each of the schemas */
			if (!random_reply(c, &random, 80 + round, &answer))
				fail_msg("%s: the tokens ran out at \"%s\"", schemas[i], answer.data);
			ended++;
			value = json_loadb(answer.data, answer.len, JSON_DECODE_ANY, &where);
			if (value == NULL || !json_judge(schema, schema, value))
				fail_msg("%s: \"%s\" is not valid: %s", schemas[i], answer.data, value == NULL ? where.text : "");
			json_decref(value);
			if (round % 6 == 0)
				assert_possible(c, answer.data, &random);
		}
		json_decref(schema);
		m1_constraint_release(c);
	}
	assert_true(ended > REPEATED(2000));
	m1_buf_free(&answer);
}

static void
test_json_texts(void **state)
{
	static const struct
	{
		const char *schema;
		const char *possible[6];
		const char *impossible[8];
	} cases[] = {
		{"{\"type\": \"string\", \"maxLength\": 2}",
		 {"\"\"", "\"\xC3\xA4\xF0\x9F\x98\x80\"", "\"\\n\\\"\"", "\"\\u00e4\\uD83D\\ude00\"", "\"\\/\\u0001\""},
		 {"\"abc\"", "\"a", "\"\n\"", "\"\\u0000\"", "\"\\uD83D\"", "\"\\q\"", "\"\\ude00\"", "\"\xC3\""}},
		{"{\"type\": \"integer\"}",
		 {"0", "-1", "120", "999999999999999999"},
		 {"-0", "01", "1.0", "1e3", "+1", "", "-", "1 "}},
		{"{\"type\": \"number\"}",
		 {"0", "-0.5", "1.25e-7", "3E+10", "12"},
		 {".5", "1.", "01.5", "1e", "--1", "NaN", "1e999"}},
		{"{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"null\"}}}",
		 {"{}", "{\"a\":1}", "{\"a\": 1, \"b\": null}", "{\"b\":null}"},
		 {"{\"b\":null,\"a\":1}", "{\"a\":1,}", "{\"c\":1}", "{ }", "{\"a\":  1}", "{,\"a\":1}", "{\"a\":1,\"a\":1}",
		  "[]"}},
		{"{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1}",
		 {"[true]", "[true,false]", "[false, true, true]"},
		 {"[]", "[true,]", "[,true]", "[true false]", "[1]", "[true", "[true]]"}},
		{"{\"type\": \"string\", \"format\": \"date\"}",
		 {"\"2024-02-28\"", "\"1999-12-31\"", "\"2026-04-30\""},
		 {"\"2023-02-29\"", "\"2024-04-31\"", "\"2024-13-01\"", "\"0000-01-01\"", "\"2024-1-1\""}},
		{"{\"type\": \"string\", \"format\": \"date-time\"}",
		 {"\"2024-02-28T23:59:59Z\"", "\"2024-02-28T00:00:00.123+02:00\""},
		 {"\"2024-02-28 23:59:59Z\"", "\"2024-02-28T24:00:00Z\"", "\"2024-02-28T23:59:59\""}},
		{"{\"type\": \"string\", \"format\": \"uuid\"}",
		 {"\"123e4567-e89b-12d3-a456-426614174000\""},
		 {"\"123e4567-e89b-12d3-a456-42661417400\"", "\"g23e4567-e89b-12d3-a456-426614174000\""}},
		{"{\"type\": \"string\", \"pattern\": \"b\"}", {"\"b\"", "\"abc\"", "\"\\n\\\"b\\\\\""}, {"\"\"", "\"ac\""}},
		{"{\"allOf\": [{\"type\": \"null\"}]}", {"null"}, {"true", "nul"}},
		{"{\"type\": \"object\", \"required\": [\"a\"], \"additionalProperties\": {\"type\": \"integer\"}}",
		 {"{\"a\": 1}"},
		 {"{}", "{\"a\": \"lookup_order\"}", "{\"a\": 1, \"b\": 2}"}},
		{"{\"properties\": {\"b\": {\"type\": \"null\"}}, \"required\": [\"c\", \"a\", \"c\"], "
		 "\"additionalProperties\": "
		 "{\"type\": \"boolean\"}}",
		 {"{\"b\": null, \"c\": true, \"a\": false}", "{\"c\": true, \"a\": true}"},
		 {"{\"c\": null, \"a\": true}", "{\"a\": true}", "{\"b\": true, \"c\": true, \"a\": true}"}},
		{"{\"properties\": {\"a\": false, \"b\": true}}",
		 {"{}", "{\"b\":[{}]}"},
		 {"{\"a\":1}", "{\"b\":1,\"a\":1}", "1"}},
		{"{\"type\": \"integer\", \"minimum\": 9223372036854775806}",
		 {"9223372036854775806", "9223372036854775807"},
		 {"9223372036854775805", "9223372036854775808"}},
		{"{\"type\": \"number\", \"exclusiveMinimum\": 1700000000000}",
		 {"1700000000001", "1700000000000.01", "1700000000000.25", "1700000000123.5"},
		 {"1700000000000", "1700000000000.0", "1700000000000.00001", "1700000000000.000", "1699999999999.99"}},
		{"{\"type\": \"number\", \"exclusiveMaximum\": -9007199254740993, \"exclusiveMinimum\": -9223372036854775807}",
		 {"-9007199254741093", "-9223372036854675807"},
		 {"-9007199254740993", "-9007199254740992", "-9007199254740993.5", "-9223372036854775800"}},
		{"{\"type\": \"number\", \"minimum\": -9007199254740995, \"maximum\": -9007199254740993}",
		 {"-9007199254740995", "-9007199254740994", "-9007199254740994.0", "-9007199254740993"},
		 {"-9007199254740995.0", "-9007199254740993.0", "-9007199254740995.5", "-9007199254740996"}},
		{"{\"type\": \"number\", \"minimum\": 9007199254740993, \"maximum\": 9007199254740993}",
		 {"9007199254740993"},
		 {"9007199254740993.0", "9007199254740992", "9007199254740994.0"}},
		{"{\"type\": \"number\", \"exclusiveMinimum\": 0, \"exclusiveMaximum\": 1}",
		 {"0.000001", "0.5", "0.999999"},
		 {"0", "1", "0.0", "1.0", "0.0000001", "0.9999999"}},
		{"{\"enum\": [123456789012345678901234567890, 12345678901234567.89, 1e400, -0.5]}",
		 {"123456789012345678901234567890", "12345678901234567.89", "1e400", "-0.5"},
		 {"123456789012345678901234567891", "1.2345678901234568e+16", "\"1e400\"", "1"}},
		{"{\"type\": [\"integer\", \"string\"], \"enum\": [18446744073709551616, 12345678901234567.89, 1e400, 1e-400, "
		 "\"x\"]}",
		 {"18446744073709551616", "1e400", "\"x\""},
		 {"12345678901234567.89", "1e-400"}},
		{"{\"type\": \"integer\", \"minimum\": -1e30, \"maximum\": 18446744073709551615}",
		 {"0", "-5", "9223372036854775807", "-9223372036854775808"},
		 {"18446744073709551615", "1.5"}},
		{"{\"type\": \"number\", \"minimum\": 3, \"exclusiveMaximum\": 100000000000000000000}",
		 {"3", "3.5", "4000000"},
		 {"2"}},
		{"{\"type\": \"integer\", \"minimum\": 9007199254740993.0, \"maximum\": 900719925474099450e-2}",
		 {"9007199254740993", "9007199254740994"},
		 {"9007199254740992", "9007199254740995"}},
		{"{\"type\": \"integer\", \"minimum\": -8999999999999998.4, \"maximum\": -8999999999999997.0001}",
		 {"-8999999999999998"},
		 {"-8999999999999999", "-8999999999999997"}},
		{"{\"type\": \"integer\", \"exclusiveMinimum\": 9223372036854775805.5, \"maximum\": 9.3e18}",
		 {"9223372036854775806", "9223372036854775807"},
		 {"9223372036854775805"}},
		{"{\"type\": \"number\", \"minimum\": 9.007199254740993e15, \"maximum\": 9007199254740993.000}",
		 {"9007199254740993"},
		 {"9007199254740992", "9007199254740994"}},
		{"{\"type\": \"number\", \"minimum\": -999.99, \"maximum\": 999.99}",
		 {"-999.99", "999.99000", "999.98999999", "0", "12.5", "-0.0"},
		 {"999.991", "-999.999", "1000", "999.9900001"}},
		{"{\"type\": \"number\", \"minimum\": 0.25, \"maximum\": 0.3}",
		 {"0.25", "0.2500", "0.26", "0.299", "0.3", "0.30"},
		 {"0.249", "0", "0.31", "0.3001", "-0.26", "0.2"}},
		{"{\"type\": \"number\", \"minimum\": -1.5, \"maximum\": -2.5e-1}",
		 {"-0.25", "-1.5", "-1", "-1.49", "-1.0", "-0.9"},
		 {"-1.51", "-0.2", "0", "-2", "1"}},
		{"{\"type\": \"number\", \"minimum\": 1.05}",
		 {"1.05", "1.1", "2", "12345.6"},
		 {"1.04", "1", "0", "-2", "1.0499"}},
		{"{\"type\": \"number\", \"minimum\": 0, \"maximum\": 0.00999}",
		 {"0", "0.0", "0.009", "0.00999", "0.0000001"},
		 {"0.01", "1", "-0.001", "0.00999001"}},
		{"{\"type\": \"number\", \"maximum\": -0.5}", {"-0.5", "-1", "-7.25"}, {"-0.49", "0", "-0", "-0.0", "1"}},
		/* where a schema is the document to its references, and where it is not */
		{"{\"$id\": \"https://a.example/a\", \"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"$id\": \"b\", "
		 "\"items\": {\"type\": \"null\"}}}}",
		 {"[null]", "[]"},
		 {"[1]"}},
		{"{\"properties\": {\"$id\": {\"$ref\": \"#/$defs/a\"}}, \"$defs\": {\"a\": {\"$id\": \"#a\", \"items\": "
		 "{\"$ref\": \"#/$defs/b\"}}, \"b\": {\"type\": \"null\"}}}",
		 {"{\"$id\": [null]}"},
		 {"{\"$id\": null}"}},
		{"{\"type\": \"string\", \"maxLength\": 100000000000000000000}", {"\"\"", "\"abc\""}, {"1"}},
		{"{\"$ref\": \"#/$defs/a~1b%20c\", \"$defs\": {\"a/b c\": {\"enum\": [1]}}}", {"1"}, {"2"}},
	};
	uint64_t random = 22;

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_constraint *c = compile(M1_CONSTRAINT_JSON_SCHEMA, cases[i].schema);

		for (int j = 0; j < 6 && cases[i].possible[j] != NULL; j++)
			assert_possible(c, cases[i].possible[j], &random);
		for (int j = 0; j < 8 && cases[i].impossible[j] != NULL; j++)
			assert_impossible(c, cases[i].impossible[j]);
		m1_constraint_release(c);
	}
}

static void
test_json_refusals(void **state)
{
	static const struct
	{
		const char *schema;
		m1_status status;
		const char *message;
		const char *detail;
	} cases[] = {
		{"{\"type\": ", M1_E_INVALID_ARGUMENT, "not valid JSON", "Line 1"},
		{"5", M1_E_INVALID_ARGUMENT, "must be an object", "#."},
		{"{\"minProperties\": 1}", M1_E_UNSUPPORTED, "keyword \"minProperties\"", "at #."},
		{"{\"properties\": {\"a\": {\"items\": {\"not\": {}}}}}", M1_E_UNSUPPORTED, "keyword \"not\"",
		 "#/properties/a/items."},
		{"{\"anyOf\": [{}, {\"multipleOf\": 2}]}", M1_E_UNSUPPORTED, "keyword \"multipleOf\"", "#/anyOf/1."},
		{"{\"$ref\": \"#/$defs/x\", \"$defs\": {\"x\": {\"if\": {}}}}", M1_E_UNSUPPORTED, "keyword \"if\"",
		 "#/$defs/x."},
		{"{\"type\": \"array\", \"uniqueItems\": true}", M1_E_UNSUPPORTED, "\"uniqueItems\"", "#."},
		{"{\"type\": \"string\", \"format\": \"email\"}", M1_E_UNSUPPORTED, "format \"email\"", "#."},
		{"{\"type\": \"string\", \"pattern\": \"a(?!b)\"}", M1_E_UNSUPPORTED, "look-around", "#."},
		{"{\"type\": \"string\", \"pattern\": \"a\", \"maxLength\": 3}", M1_E_UNSUPPORTED, "only one of", "#."},
		{"{\"type\": \"text\"}", M1_E_INVALID_ARGUMENT, "type is not", "#."},
		{"{\"type\": \"string\", \"maxLength\": -1}", M1_E_INVALID_ARGUMENT, "maxLength must be", "#."},
		{"{\"type\": \"string\", \"minLength\": 20000}", M1_E_UNSUPPORTED, "minLength is above", "#."},
		{"{\"type\": \"string\", \"minLength\": 4, \"maxLength\": 3}", M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"type\": \"number\", \"exclusiveMinimum\": 0.5}", M1_E_UNSUPPORTED, "exclusiveMinimum of a number", "#."},
		{"{\"type\": \"number\", \"maximum\": 0.1234567890123456}", M1_E_UNSUPPORTED, "maximum of a number", "#."},
		{"{\"type\": \"number\", \"minimum\": 0.5, \"exclusiveMinimum\": 0}", M1_E_UNSUPPORTED, "beside", "#."},
		{"{\"type\": \"number\", \"minimum\": 0.5, \"exclusiveMaximum\": 7}", M1_E_UNSUPPORTED, "beside", "#."},
		{"{\"type\": \"number\", \"minimum\": 0.5, \"maximum\": 9007199254740993}", M1_E_UNSUPPORTED, "beside", "#."},
		{"{\"type\": \"integer\", \"minimum\": 5, \"exclusiveMaximum\": 5}", M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"$ref\": \"other.json\"}", M1_E_UNSUPPORTED, "leads out of the document", "#."},
		{"{\"$ref\": \"#/$defs/x\"}", M1_E_INVALID_ARGUMENT, "leads to no schema", "#."},
		{"{\"$ref\": \"#\"}", M1_E_INVALID_ARGUMENT, "refers to itself", ""},
		{"{\"properties\": {\"a\": {\"$id\": \"b\", \"items\": {\"$ref\": \"#/$defs/x\"}, \"$defs\": {\"x\": "
		 "{\"type\": "
		 "\"string\"}}}}, \"$defs\": {\"x\": {\"type\": \"integer\"}}}",
		 M1_E_UNSUPPORTED, "an $id of its own", "#/properties/a/items."},
		{"{\"$ref\": \"#/$defs/b/$defs/c\", \"$defs\": {\"b\": {\"$id\": \"b\", \"$defs\": {\"c\": {\"$ref\": "
		 "\"#\"}}}}}",
		 M1_E_UNSUPPORTED, "an $id of its own", "#/$defs/b/$defs/c."},
		{"{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}", M1_E_INVALID_ARGUMENT, "refers to itself", ""},
		{"{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}",
		 M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"oneOf\": [{\"type\": \"integer\"}, {\"type\": \"number\"}]}", M1_E_UNSUPPORTED, "may overlap", "#."},
		{"{\"allOf\": [{}, {}]}", M1_E_UNSUPPORTED, "allOf", "#."},
		{"{\"enum\": [1], \"minimum\": 0}", M1_E_UNSUPPORTED, "\"minimum\" beside \"enum\"", "#."},
		{"{\"anyOf\": [{}], \"type\": \"null\"}", M1_E_UNSUPPORTED, "\"type\" beside \"anyOf\"", "#."},
		{"{\"items\": [{}]}", M1_E_UNSUPPORTED, "prefixItems", "#."},
		{"{\"required\": \"a\"}", M1_E_INVALID_ARGUMENT, "required is not", "#."},
		{"{\"properties\": []}", M1_E_INVALID_ARGUMENT, "properties is not", "#."},
		{"{\"enum\": []}", M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"const\": [123456789012345678901234567890, \"\\u0000\"]}", M1_E_INVALID_ARGUMENT,
		 "JSON that cannot be used", ""},
		{"{\"const\": 012345678901234567890}", M1_E_INVALID_ARGUMENT, "not valid JSON", ""},
		{"{\"required\": [1e400]}", M1_E_INVALID_ARGUMENT, "required is not", "#."},
		{"{\"type\": 123456789012345678901234567890}", M1_E_INVALID_ARGUMENT, "type is not", "#."},
		{"{\"pattern\": 123456789012345678901234567890}", M1_E_INVALID_ARGUMENT, "pattern is not", "#."},
		{"{\"$ref\": 123456789012345678901234567890}", M1_E_INVALID_ARGUMENT, "$ref is not", "#."},
		{"{\"type\": \"integer\", \"minimum\": 1e30}", M1_E_UNSUPPORTED, "minimum is beyond 64 bits", "#."},
		{"{\"type\": \"number\", \"maximum\": 12345678901234567.89}", M1_E_UNSUPPORTED, "must be whole", "#."},
		{"{\"minimum\": \"1\"}", M1_E_INVALID_ARGUMENT, "minimum is not a number", "#."},
		{"{\"maxLength\": 0.000000000000000000001}", M1_E_INVALID_ARGUMENT, "maxLength must be", "#."},
		{"{\"oneOf\": [{\"enum\": [1e400]}, {\"enum\": [2e400]}]}", M1_E_UNSUPPORTED, "may overlap", "#."},
		{"{\"required\": [\"a\"], \"additionalProperties\": false}", M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"properties\": {\"b\": true}, \"required\": [\"a\"], \"additionalProperties\": false}",
		 M1_E_INVALID_ARGUMENT, "no answer", ""},
		{"{\"required\": [\"a\"], \"additionalProperties\": {\"not\": {}}}", M1_E_UNSUPPORTED, "keyword \"not\"",
		 "#/additionalProperties."},
		{"false", M1_E_INVALID_ARGUMENT, "no answer", ""},
	};
	m1_buf deep = {0};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refuse(M1_CONSTRAINT_JSON_SCHEMA, cases[i].schema, cases[i].status, cases[i].message, cases[i].detail);
	for (int i = 0; i < 150; i++)
		m1_buf_puts(&deep, "{\"items\":");
	m1_buf_puts(&deep, "true");
	for (int i = 0; i < 150; i++)
		m1_buf_puts(&deep, "}");
	refuse(M1_CONSTRAINT_JSON_SCHEMA, m1_buf_cstr(&deep), M1_E_UNSUPPORTED, "schemas deep", "#/items/items");
	m1_buf_free(&deep);
}

/* Nesting that a schema leaves open stops at its bound, and what has begun can still be closed. */
static void
test_nesting_is_bounded(void **state)
{
	m1_constraint *c = compile(M1_CONSTRAINT_JSON_SCHEMA, "true");
	m1_cursor *cursor = m1_cursor_create(c);
	bool only;
	int depth = 0;
	m1_error err;

	(void) state;
	assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING), &err));
	while (m1_cursor_read(cursor, m1_slice_of("["), &err) == M1_OK)
		depth++;
	assert_int_equal(depth, 32);
	while (depth-- > 0)
		assert_ok(m1_cursor_read(cursor, m1_slice_of("]"), &err));
	assert_true(m1_cursor_at_end(cursor, &only) && only);
	m1_cursor_free(cursor);
	m1_constraint_release(c);
}

/* ---- the reply around the answer ---- */

static bool
allowed(m1_cursor *cursor, const char *token)
{
	m1_error err;

	assert_ok(fill_mask(cursor, 100000, &err));
	for (int32_t id = 0; id < vocabulary->n_tokens; id++)
	{
		m1_slice piece = m1_tokenizer_piece(tokenizer, id);

		if (piece.data != NULL && piece.len == strlen(token) && memcmp(piece.data, token, piece.len) == 0)
			return m1_mask_has(mask, id);
	}
	fail_msg("there is no token \"%s\"", token);
	return false;
}

static void
test_reasoning_is_free(void **state)
{
	m1_constraint *c = compile(M1_CONSTRAINT_REGEX, "[0-9]+");
	m1_cursor *cursor = m1_cursor_create(c);
	bool only;
	m1_error err;

	(void) state;
	/* with reasoning or without */
	assert_true(allowed(cursor, "<") && allowed(cursor, "7") && !allowed(cursor, "a"));
	assert_false(m1_mask_has(mask, vocabulary->eos));
	assert_ok(m1_cursor_read(cursor, m1_slice_of("<think>"), &err));
	assert_true(allowed(cursor, "a") && allowed(cursor, "\n") && allowed(cursor, "\xFF"));
	/* a turn must not end before its answer */
	assert_false(m1_mask_has(mask, vocabulary->eos));
	assert_ok(m1_cursor_read(cursor, m1_slice_of("1 < 2 </thin </<</think"), &err));
	assert_true(allowed(cursor, ">") && allowed(cursor, "x"));
	assert_ok(m1_cursor_read(cursor, m1_slice_of(">"), &err));
	assert_true(allowed(cursor, "\n") && !allowed(cursor, "7"));
	assert_ok(m1_cursor_read(cursor, m1_slice_of("\n\n"), &err));
	assert_true(allowed(cursor, "7") && !allowed(cursor, "\n") && !allowed(cursor, "<"));
	assert_false(m1_cursor_at_end(cursor, &only));
	assert_ok(m1_cursor_read(cursor, m1_slice_of("7"), &err));
	assert_true(m1_cursor_at_end(cursor, &only) && !only);
	assert_int_equal(m1_cursor_read(cursor, m1_slice_of("x"), &err), M1_E_INTERNAL);
	m1_cursor_free(cursor);
	m1_constraint_release(c);
}

/* An answer that begins like reasoning must come behind some: the two could not be told apart. */
static void
test_answers_that_look_like_reasoning(void **state)
{
	m1_constraint *c = compile(M1_CONSTRAINT_REGEX, "[<x].*");
	m1_cursor *cursor = m1_cursor_create(c);

	(void) state;
	assert_true(allowed(cursor, "<") && !allowed(cursor, "x"));
	m1_cursor_free(cursor);
	m1_constraint_release(c);
}

/* ---- masks against one token at a time ---- */

/* Whether the automaton can read the token from the state and then end within limit bytes. */
static bool
may_follow(m1_automaton *a, int32_t from, m1_slice piece, int32_t limit)
{
	for (size_t i = 0; i < piece.len && from >= 0; i++)
		from = m1_automaton_step(a, from, (uint8_t) piece.data[i]);
	return from >= 0 && m1_automaton_state(a, from)->shortest <= limit;
}

static void
assert_mask(m1_automaton *a, const m1_tokenizer *t, const m1_vocabulary *v, int32_t at, int32_t limit)
{
	uint64_t *got = calloc((size_t) v->words, sizeof *got);
	m1_mask_task task;

	m1_mask_begin(&task, at, limit);
	assert_int_equal(m1_mask_go_on(&task, a, v, got), M1_MASK_DONE);
	for (int32_t id = 0; id < v->n_tokens; id++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, id);
		bool want = piece.data != NULL && !m1_tokenizer_is_special(t, id) && may_follow(a, at, piece, limit);

		if (id == v->eos)
			want = m1_automaton_state(a, at)->accepting;
		if (m1_mask_has(got, id) != want)
			fail_msg("token %d \"%.*s\" is %sallowed", id, (int) piece.len, piece.data, want ? "not " : "");
	}
	free(got);
}

/* The released vocabulary has what small ones lack: long tokens, parts of characters, every script. */
static void
test_masks_of_the_released_vocabulary(void **state)
{
	static const struct
	{
		bool regex;
		const char *text;
		const char *places[4];
	} cases[] = {
		{false,
		 "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", \"maxLength\": 5}, \"b\": {\"type\": "
		 "\"number\"}}}",
		 {"", "{\"a\": \"", "{\"a\": \"xyz", "{\"b\": 1"}},
		{false, "true", {"", "\"", "\"\xE4\xB8", "[{\"k\": [1, \"t"}},
		{true, ".{3,40}", {"", "\xE2\x80", "ab", "abcdefghijklmnopqrstuvwxyzabcdefghijklm"}},
		{true, "[a-z ]+|[\xE4\xB8\x80-\xE9\xBE\xA5]{2,9}", {"", "the", "\xE4\xB8\x80", "\xE4"}},
	};
	m1_tokenizer *t;
	m1_vocabulary *v;
	m1_error err;

	(void) state;
	assert_ok(m1_tokenizer_open("test/data", 200064, &t, &err));
	assert_ok(m1_vocabulary_create(t, 200064, &v, &err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_nfa nfa;
		m1_automaton *a;
		int32_t start;

		assert_true(m1_nfa_init(&nfa, NULL));
		if (cases[i].regex)
			assert_ok(m1_regex_compile(&nfa, m1_slice_of(cases[i].text), M1_REGEX_WHOLE, m1_nfa_characters,
									   M1_NFA_RETURN, &start, &err));
		else
			assert_ok(m1_jsonschema_compile(&nfa, m1_slice_of(cases[i].text), M1_NFA_RETURN, &start, &err));
		nfa.top = m1_nfa_new_rule(&nfa, false);
		m1_nfa_set_rule(&nfa, nfa.top, start);
		assert_ok(m1_nfa_finish(&nfa, &err));
		assert_non_null(a = m1_automaton_create(&nfa));
		for (int p = 0; p < 4; p++)
		{
			int32_t at = M1_AUTOMATON_START;

			for (const char *c = cases[i].places[p]; *c != '\0'; c++)
				assert_true((at = m1_automaton_step(a, at, (uint8_t) *c)) >= 0);
			assert_mask(a, t, v, at, M1_NO_LIMIT);
			assert_mask(a, t, v, at, 3);
		}
		m1_automaton_free(a);
		m1_nfa_free(&nfa);
	}
	m1_vocabulary_free(v);
	m1_tokenizer_close(t);
}

/* ---- budgets ---- */

/* A counted string has a state and a mask for each length: more than the budgets hold, with a cursor that stays behind. */
static void
test_budgets_keep_cursors(void **state)
{
	m1_constraint *c = compile(M1_CONSTRAINT_REGEX, "([a-z]{1,20000} [0-9]{1,20000}){2}\xC3\xA4");
	m1_cursor *behind = m1_cursor_create(c);
	m1_cursor *ahead = m1_cursor_create(c);
	bool only;
	m1_error err;

	(void) state;
	assert_ok(m1_cursor_read(behind, m1_slice_of(THINKING "ab"), &err));
	assert_ok(m1_cursor_read(ahead, m1_slice_of(THINKING), &err));
	for (int i = 0; i < 19000; i++)
	{
		if (i % 2 == 0)
			assert_ok(fill_mask(ahead, 1 << 30, &err));
		assert_ok(m1_cursor_read(ahead, m1_slice_of("q"), &err));
	}
	assert_ok(m1_cursor_read(behind, m1_slice_of("c 12x"), &err));
	assert_false(allowed(behind, "\xC3"));
	assert_true(allowed(behind, "x"));
	assert_ok(m1_cursor_read(behind, m1_slice_of("y 9"), &err));
	assert_true(allowed(behind, "\xC3"));
	assert_ok(m1_cursor_read(behind, m1_slice_of("\xC3\xA4"), &err));
	assert_true(m1_cursor_at_end(behind, &only) && only);
	m1_cursor_free(behind);
	m1_cursor_free(ahead);
	m1_constraint_release(c);
}

/* ---- bounds of work ---- */

/* How many masks a reply gets that goes on with the text again and again, up to `most`. */
static int
masks_before_refusal(const char *pattern, const char *text, int most, m1_error *why)
{
	m1_constraint *c = compile(M1_CONSTRAINT_REGEX, pattern);
	m1_cursor *cursor = m1_cursor_create(c);
	m1_error err;
	int n = 0;

	assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING), &err));
	while (n < most && fill_mask(cursor, 1 << 20, why) == M1_OK)
	{
		assert_ok(m1_cursor_read(cursor, m1_slice_of(text), &err));
		n++;
	}
	m1_cursor_free(cursor);
	m1_constraint_release(c);
	return n;
}

/* Each alternative remembers where its letter was. */
static void
put_alternatives(m1_buf *pattern, int n)
{
	char one[64];

	for (int i = 0; i < n; i++)
	{
		snprintf(one, sizeof one, "%s.{0,200}%c.{0,200}", i > 0 ? "|" : "", 'a' + i);
		m1_buf_puts(pattern, one);
	}
	assert_non_null(m1_buf_cstr(pattern));
}

static void
test_masks_are_bounded(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *text;
	} ordinary[] = {{"(.{1,80}\n){1,500}", "the end\n"},
					/* there are many ways to read these, but only the one that leaves the most counts */
					{"(.{1,80}\n?){1,50}", "the end"},
					{"(.{1,80}\n?){1,500}", "the\n"},
					{"((\\w{1,20}[ ,]?){1,40}[.!]?\n?){0,900}", "the end of,it."},
					{"(a|aa|.){0,900}", "aab"},
					{"(x?.{0,9}){0,800}", "the x"},
					{".{3,4000}", "the "},
					{"(\\w+ ){5,500}", "the "},
					{"[^,]+(, ?[^,]+)*", "the "}};
	m1_buf pattern = {0};
	m1_error err;

	(void) state;
	assert_true(masks_before_refusal("^.*e.{300}$", "these eels ", 400, &err) < 60);
	assert_int_equal(err.code, M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "too complex"));
	assert_non_null(strstr(err.detail, "8388608 steps for one token"));
	put_alternatives(&pattern, 12);
	assert_true(masks_before_refusal(pattern.data, "abcdefghijkl", 30, &err) < 10);
	assert_int_equal(err.code, M1_E_UNSUPPORTED);
	for (size_t i = 0; i < sizeof ordinary / sizeof *ordinary; i++)
		assert_int_equal(masks_before_refusal(ordinary[i].pattern, ordinary[i].text, 400, &err), 400);
	m1_buf_free(&pattern);
}

/* {"$defs": {"a0": {"$ref": "#/$defs/a1"}, ...}, "$ref": "#/$defs/a0"}, whose last is a boolean. */
static void
put_chain(m1_buf *schema, int n)
{
	char one[64];

	m1_buf_puts(schema, "{\"$defs\": {");
	for (int i = 0; i < n; i++)
	{
		snprintf(one, sizeof one, "\"a%d\": {\"$ref\": \"#/$defs/a%d\"}, ", i, i + 1);
		m1_buf_puts(schema, one);
	}
	snprintf(one, sizeof one, "\"a%d\": {\"type\": \"boolean\"}}, \"$ref\": \"#/$defs/a0\"}", n);
	m1_buf_puts(schema, one);
	assert_non_null(m1_buf_cstr(schema));
}

/* An array of references to 5,000 schemas in turn, each of which is written once. */
static void
put_references(m1_buf *schema, int n)
{
	char one[64];

	m1_buf_puts(schema, "{\"$defs\": {\"b\": {}");
	for (int i = 0; i < 5000; i++)
	{
		snprintf(one, sizeof one, ", \"a%d\": {\"const\": %d}", i, i);
		m1_buf_puts(schema, one);
	}
	m1_buf_puts(schema, "}, \"prefixItems\": [{\"$ref\": \"#/$defs/a0\"}");
	for (int i = 1; i < n; i++)
	{
		snprintf(one, sizeof one, ", {\"$ref\": \"#/$defs/a%d\"}", i % 5000);
		m1_buf_puts(schema, one);
	}
	m1_buf_puts(schema, "]}");
	assert_non_null(m1_buf_cstr(schema));
}

static void
put_required(m1_buf *schema, int n)
{
	char one[32];

	m1_buf_puts(schema, "{\"required\": [\"a\"");
	for (int i = 0; i < n; i++)
	{
		snprintf(one, sizeof one, ", \"n%d\"", i);
		m1_buf_puts(schema, one);
	}
	m1_buf_puts(schema, "], \"additionalProperties\": {\"type\": \"null\"}}");
	assert_non_null(m1_buf_cstr(schema));
}

static size_t
work_of(const char *schema)
{
	m1_work work;
	m1_constraint *c;
	m1_error err;

	m1_work_init(&work, (size_t) 1 << 40);
	assert_ok(
		m1_constraint_compile(&(m1_constraint_spec){.kind = M1_CONSTRAINT_JSON_SCHEMA, .text = m1_slice_of(schema)},
							  vocabulary, &work, &c, &err));
	m1_constraint_release(c);
	return ((size_t) 1 << 40) - work.left;
}

/* Work grows like the schema, however long the chains in it are; what is too large is refused with its size. */
static void
test_compiling_is_bounded(void **state)
{
	void (*const put[])(m1_buf *, int) = {put_chain, put_references, put_required};
	m1_buf schema = {0};

	(void) state;
	for (int i = 0; i < 3; i++)
	{
		size_t small;

		schema.len = 0;
		put[i](&schema, 1500);
		small = work_of(schema.data);
		schema.len = 0;
		put[i](&schema, 10000);
		assert_in_range(work_of(schema.data), 0, 9 * small);
		schema.len = 0;
		put[i](&schema, 20000);
		refuse(M1_CONSTRAINT_JSON_SCHEMA, schema.data, M1_E_UNSUPPORTED, "too many rules", "16384 rules");
	}
	schema.len = 0;
	put_required(&schema, 120000);
	refuse(M1_CONSTRAINT_JSON_SCHEMA, schema.data, M1_E_UNSUPPORTED, "more than 1048576", "");
	refuse(M1_CONSTRAINT_CHOICES, schema.data, M1_E_UNSUPPORTED, "more than 1048576", "");
	refuse(M1_CONSTRAINT_REGEX, schema.data, M1_E_UNSUPPORTED, "more than 1048576", "");
	m1_buf_free(&schema);
}

/* A oneOf of n alternatives that list `values` each, all different but for the last of the last when it is to clash. */
static void
put_one_of(m1_buf *schema, int n, int values, const char *form, bool clash)
{
	char number[16];

	schema->len = 0;
	m1_buf_puts(schema, "{\"oneOf\": [");
	for (int i = 0; i < n; i++)
	{
		m1_buf_puts(schema, i > 0 ? ", {" : "{");
		m1_buf_puts(schema, form);
		for (int j = 0; j < values; j++)
		{
			const bool last = i == n - 1 && j == values - 1;

			snprintf(number, sizeof number, "%s%d", j > 0 ? "," : "", clash && last ? 7 : i * values + j);
			m1_buf_puts(schema, number);
		}
		m1_buf_puts(schema, strncmp(form, "\"enum", 5) == 0 ? "]}" : "]}}}");
	}
	m1_buf_puts(schema, "]}");
	assert_non_null(m1_buf_cstr(schema));
}

static void
test_many_alternatives(void **state)
{
	static const char *const forms[] = {
		"\"enum\": [", "\"type\": \"object\", \"required\": [\"k\"], \"properties\": {\"k\": {\"enum\": ["};
	m1_buf schema = {0};

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		put_one_of(&schema, 150, 100, forms[i], false);
		m1_constraint_release(compile(M1_CONSTRAINT_JSON_SCHEMA, schema.data));
		put_one_of(&schema, 150, 100, forms[i], true);
		refuse(M1_CONSTRAINT_JSON_SCHEMA, schema.data, M1_E_UNSUPPORTED, "may overlap", "#.");
		put_one_of(&schema, 256, 400, forms[i], false);
		refuse(M1_CONSTRAINT_JSON_SCHEMA, schema.data, M1_E_UNSUPPORTED, "may overlap", "#.");
		put_one_of(&schema, 513, 1, forms[i], false);
		refuse(M1_CONSTRAINT_JSON_SCHEMA, schema.data, M1_E_UNSUPPORTED, "may overlap", "#.");
	}
	m1_buf_free(&schema);
}

/* Whoever works for a request that is no longer wanted ends soon. */
static void
test_cancelled(void **state)
{
	const char *const schema = "{\"type\": \"string\", \"maxLength\": 10000}";
	m1_constraint *c;
	m1_work work;
	m1_error err;

	(void) state;
	m1_work_init(&work, 10000);
	assert_int_equal(
		m1_constraint_compile(&(m1_constraint_spec){.kind = M1_CONSTRAINT_JSON_SCHEMA, .text = m1_slice_of(schema)},
							  vocabulary, &work, &c, &err),
		M1_E_UNSUPPORTED);
	m1_work_init(&work, M1_WORK_UNBOUNDED);
	m1_work_cancel(&work);
	assert_int_equal(
		m1_constraint_compile(&(m1_constraint_spec){.kind = M1_CONSTRAINT_JSON_SCHEMA, .text = m1_slice_of(schema)},
							  vocabulary, &work, &c, &err),
		M1_E_CANCELLED);
}

/* ---- turns ---- */

#define ORDINARY_TURN ((int64_t) 1 << 17)

/* The same mask in turns. Returns how many it took; none took much more than it had. */
static int
fill_in_turns(m1_cursor *cursor, int tokens_left, uint64_t *got)
{
	bool done = false;
	int turns = 0;
	m1_error err;

	for (; !done; turns++)
	{
		int64_t turn = ORDINARY_TURN;

		assert_true(turns < 1000);
		assert_ok(m1_cursor_mask(cursor, tokens_left, &turn, got, &done, &err));
		/* beyond its end, one step of the automaton at most */
		assert_true(turn > -ORDINARY_TURN);
	}
	return turns;
}

/* Places of new states take more time than steps that are known: of a turn, if not of what a request may have in all. */
static void
test_turns_of_many_places(void **state)
{
	m1_buf pattern = {0};
	m1_constraint *c;
	m1_cursor *cursor;
	m1_error err;
	bool done = false;
	int turns = 0;

	(void) state;
	for (char letter = 'a'; letter < 'm'; letter++)
	{
		char part[32];

		snprintf(part, sizeof part, "%s.{0,200}%c.{0,200}", letter == 'a' ? "" : "|", letter);
		m1_buf_puts(&pattern, part);
	}
	c = compile(M1_CONSTRAINT_REGEX, m1_buf_cstr(&pattern));
	cursor = m1_cursor_create(c);
	assert_ok(m1_cursor_read(cursor, m1_slice_of(THINKING "x"), &err));
	for (int64_t turn = ORDINARY_TURN; !done; turn = ORDINARY_TURN, turns++)
		if (m1_cursor_mask(cursor, 1 << 20, &turn, mask, &done, &err) != M1_OK)
			break;
	assert_in_range(turns, 3 * M1_MASK_WORK / ORDINARY_TURN, 1000);
	m1_cursor_free(cursor);
	m1_constraint_release(c);
	m1_buf_free(&pattern);
}

static void
test_masks_in_turns(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *text;
		bool long_one;
	} cases[] = {
		{"^.*e.{300}$", "these eels", true},
		{"^.*e.{30}$", "these eels", true},
		{"[a-z]{3,9}( [0-9]{2,4}){0,3}", "abc 12", false},
		{"(.{0,40}a.{0,40}|.{0,40}b.{0,40}|.{0,40}c.{0,40})", "xx", true},
	};
	uint64_t *got = calloc((size_t) vocabulary->words, sizeof *got);

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int left = 4; left <= 1 << 20; left = left < 1000 ? left * 30 : 1 << 21)
		{
			m1_constraint *c = compile(M1_CONSTRAINT_REGEX, cases[i].pattern);
			m1_constraint *other = compile(M1_CONSTRAINT_REGEX, cases[i].pattern);
			m1_cursor *slow = m1_cursor_create(c);
			m1_cursor *beside = m1_cursor_create(c);
			m1_cursor *at_once = m1_cursor_create(other);
			m1_error err;
			int turns;

			assert_ok(m1_cursor_read(slow, m1_slice_of(THINKING), &err));
			assert_ok(m1_cursor_read(slow, m1_slice_of(cases[i].text), &err));
			assert_ok(m1_cursor_read(at_once, m1_slice_of(THINKING), &err));
			assert_ok(m1_cursor_read(at_once, m1_slice_of(cases[i].text), &err));
			assert_ok(fill_mask(at_once, left, &err));
			turns = fill_in_turns(slow, left, got);
			assert_true((turns > 1) == cases[i].long_one);
			assert_memory_equal(got, mask, (size_t) vocabulary->words * sizeof *got);
			/* what is known now takes no turn, for nobody */
			assert_ok(m1_cursor_read(beside, m1_slice_of(THINKING), &err));
			assert_ok(m1_cursor_read(beside, m1_slice_of(cases[i].text), &err));
			assert_true(left < 1000 || m1_cursor_known_mask(beside, left, got));
			m1_cursor_free(slow);
			m1_cursor_free(beside);
			m1_cursor_free(at_once);
			m1_constraint_release(c);
			m1_constraint_release(other);
		}
	free(got);
}

/*
 * Cursors of one constraint whose masks are all half done, some of which are never finished: the others' are right,
 * and what outgrows the budgets is dropped as soon as nobody needs it.
 */
static void
test_half_done_masks(void **state)
{
	enum
	{
		N = 5
	};
	m1_constraint *c = compile(M1_CONSTRAINT_REGEX, "([a-z]{1,3000} ){1,40}.*e.{200}");
	m1_cursor *cursors[N];
	uint64_t *masks[N];
	bool done[N] = {false};
	int missing = N;
	m1_error err;

	(void) state;
	for (int i = 0; i < N; i++)
	{
		cursors[i] = m1_cursor_create(c);
		masks[i] = calloc((size_t) vocabulary->words, sizeof *masks[i]);
		assert_ok(m1_cursor_read(cursors[i], m1_slice_of(THINKING "abc "), &err));
		for (int k = 0; k < i; k++)
			assert_ok(m1_cursor_read(cursors[i], m1_slice_of("eel "), &err));
	}
	for (int round = 0; missing > 0; round++)
	{
		assert_true(round < 10000);
		for (int i = 0; i < N; i++)
		{
			int64_t turn = ORDINARY_TURN;

			if (cursors[i] == NULL || done[i])
				continue;
			assert_ok(m1_cursor_mask(cursors[i], 1 << 20, &turn, masks[i], &done[i], &err));
			missing -= done[i];
		}
		if (round == 2 && !done[1])
		{
			m1_cursor_free(cursors[1]);
			cursors[1] = NULL;
			missing--;
		}
	}
	for (int i = 0; i < N; i++)
	{
		if (cursors[i] != NULL)
		{
			m1_constraint *again = compile(M1_CONSTRAINT_REGEX, "([a-z]{1,3000} ){1,40}.*e.{200}");
			m1_cursor *alone = m1_cursor_create(again);

			assert_ok(m1_cursor_read(alone, m1_slice_of(THINKING "abc "), &err));
			for (int k = 0; k < i; k++)
				assert_ok(m1_cursor_read(alone, m1_slice_of("eel "), &err));
			assert_ok(fill_mask(alone, 1 << 20, &err));
			assert_memory_equal(masks[i], mask, (size_t) vocabulary->words * sizeof *mask);
			m1_cursor_free(alone);
			m1_constraint_release(again);
		}
		m1_cursor_free(cursors[i]);
		free(masks[i]);
	}
	m1_constraint_release(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_regex_walks),
		cmocka_unit_test(test_regex_texts),
		cmocka_unit_test(test_regex_refusals),
		cmocka_unit_test(test_zero_bytes),
		cmocka_unit_test(test_choices),
		cmocka_unit_test(test_json_walks),
		cmocka_unit_test(test_json_texts),
		cmocka_unit_test(test_json_refusals),
		cmocka_unit_test(test_nesting_is_bounded),
		cmocka_unit_test(test_reasoning_is_free),
		cmocka_unit_test(test_answers_that_look_like_reasoning),
		cmocka_unit_test(test_masks_of_the_released_vocabulary),
		cmocka_unit_test(test_budgets_keep_cursors),
		cmocka_unit_test(test_masks_are_bounded),
		cmocka_unit_test(test_compiling_is_bounded),
		cmocka_unit_test(test_many_alternatives),
		cmocka_unit_test(test_cancelled),
		cmocka_unit_test(test_masks_in_turns),
		cmocka_unit_test(test_turns_of_many_places),
		cmocka_unit_test(test_half_done_masks),
	};

	return cmocka_run_group_tests(tests, open_vocabulary, close_vocabulary);
}
