/*
 * json.c - the JSON reader: it takes what RFC 8259 says is JSON, and nothing else, keeps every number, and what it
 * writes reads as the same again.
 */
#include "lib/fuzz.h"

#include <string.h>

#include "base/utf8.h"
#include "text/jsonparse.h"
#include "text/jsontext.h"

#define MOST_DEPTH 1000 /* of the scan; the reader takes more */

/* ---- whether a text is JSON, without making anything of it ---- */

typedef struct scan
{
	const char *at, *end;
	bool nul;  /* an escaped U+0000 */
	bool lone; /* half of a pair */
	bool deep;
	int depth;
} scan;

static bool scan_value(scan *s);

static void
skip_space(scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

static bool
take(scan *s, const char *word)
{
	const size_t n = strlen(word);

	if ((size_t) (s->end - s->at) < n || memcmp(s->at, word, n) != 0)
		return false;
	s->at += n;
	return true;
}

static bool
is_digit(const scan *s)
{
	return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

static bool
scan_digits(scan *s)
{
	const char *from = s->at;

	while (is_digit(s))
		s->at++;
	return s->at > from;
}

static bool
scan_number(scan *s)
{
	take(s, "-");
	if (!take(s, "0") && !scan_digits(s))
		return false;
	if (take(s, ".") && !scan_digits(s))
		return false;
	if (take(s, "e") || take(s, "E"))
	{
		if (!take(s, "+"))
			take(s, "-");
		return scan_digits(s);
	}
	return true;
}

/* The code behind \u, or -1. */
static int
scan_code(scan *s)
{
	int code = 0;

	for (int i = 0; i < 4; i++)
	{
		const int digit = s->at < s->end ? m1_hex_digit(*s->at) : -1;

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
		s->at++;
	}
	return code;
}

static bool
scan_escape(scan *s)
{
	int code;
	int low;

	if (s->at < s->end && strchr("\"\\/bfnrt", *s->at) != NULL && *s->at != '\0')
	{
		s->at++;
		return true;
	}
	if (!take(s, "u") || (code = scan_code(s)) < 0)
		return false;
	s->nul |= code == 0;
	s->lone |= code >= 0xDC00 && code <= 0xDFFF;
	if (code >= 0xD800 && code < 0xDC00)
	{
		if (!take(s, "\\u"))
			s->lone = true;
		else if ((low = scan_code(s)) < 0)
			return false;
		else
			s->lone |= low < 0xDC00 || low > 0xDFFF;
	}
	return true;
}

static bool
scan_string(scan *s)
{
	if (!take(s, "\""))
		return false;
	while (s->at < s->end && *s->at != '"')
	{
		if ((unsigned char) *s->at < 0x20)
			return false;
		if (*s->at++ == '\\' && !scan_escape(s))
			return false;
	}
	return take(s, "\"");
}

static bool
scan_member(scan *s, bool named)
{
	if (!named)
		return scan_value(s);
	skip_space(s);
	if (!scan_string(s))
		return false;
	skip_space(s);
	return take(s, ":") && scan_value(s);
}

static bool
scan_many(scan *s, const char *close, bool named)
{
	skip_space(s);
	if (take(s, close))
		return true;
	do
	{
		if (!scan_member(s, named))
			return false;
	} while (take(s, ","));
	return take(s, close);
}

/* A value with the white space around it. */
static bool
scan_value(scan *s)
{
	bool ok;

	skip_space(s);
	if (++s->depth > MOST_DEPTH)
	{
		s->deep = true;
		return false;
	}
	if (take(s, "{"))
		ok = scan_many(s, "}", true);
	else if (take(s, "["))
		ok = scan_many(s, "]", false);
	else if (s->at < s->end && *s->at == '"')
		ok = scan_string(s);
	else
		ok = take(s, "true") || take(s, "false") || take(s, "null") || scan_number(s);
	s->depth--;
	skip_space(s);
	return ok;
}

/* ---- what is made of it ---- */

static m1_buf
write(const m1_json *value)
{
	m1_buf out = {0};

	fuzz_check(m1_json_write(&out, value, M1_JSON_AS_GIVEN), "out of memory");
	return out;
}

static void
check_written(const m1_json *value)
{
	m1_buf once = write(value);
	m1_json_doc again;
	m1_error err;
	m1_buf twice;

	fuzz_check(m1_json_parse((m1_slice){once.data, once.len}, "it", NULL, &again, &err) == M1_OK,
			   "\"%.*s\" was written, and is no JSON: %s", (int) once.len, once.data, err.detail);
	twice = write(again.root);
	fuzz_check(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0,
			   "\"%.*s\" was written as \"%.*s\"", (int) once.len, once.data, (int) twice.len, twice.data);
	m1_json_free(&again);
	m1_buf_free(&once);
	m1_buf_free(&twice);
}

/* What a list holds is as many values as it says, and each member is found by its key. */
static void
check_value(const m1_json *value)
{
	size_t n = 0;

	m1_json_foreach (value, one)
	{
		if (m1_json_is(value, M1_JSON_OBJECT))
			fuzz_check(m1_json_get(value, m1_json_key(one)) == one, "\"%s\" is not found", m1_json_key(one));
		else
			fuzz_check(m1_json_at(value, n) == one, "item %zu is not found", n);
		check_value(one);
		n++;
	}
	fuzz_check(n == m1_json_size(value), "%zu values instead of %zu", n, m1_json_size(value));
	if (m1_json_is(value, M1_JSON_STRING))
		fuzz_check(m1_utf8_valid(m1_json_text(value)) && strlen(m1_json_cstr(value)) == m1_json_text(value).len,
				   "a string");
	if (m1_json_is(value, M1_JSON_NUMBER))
	{
		int64_t n64;

		fuzz_check(!m1_json_is_int64(value, &n64) || m1_json_real(value) == (double) n64, "%lld is another number",
				   (long long) n64);
	}
}

/* What the scan does not look at. */
static bool
is_refused_by_rule(const scan *s, const m1_error *err)
{
	return s->nul || s->lone || strstr(err->detail, "a key twice") != NULL || err->code == M1_E_UNSUPPORTED;
}

void
fuzz_one(fuzz_input *in)
{
	const m1_slice text = fuzz_rest(in);
	scan s = {.at = text.data, .end = text.data + text.len};
	const bool is_json = scan_value(&s) && s.at == s.end && m1_utf8_valid(text);
	m1_json_doc doc;
	m1_error err;
	const m1_status status = m1_json_parse(text, "it", NULL, &doc, &err);

	if (status != M1_OK)
	{
		fuzz_check_error(status, &err);
		fuzz_check(!is_json || is_refused_by_rule(&s, &err), "\"%.*s\" is JSON: %s", (int) text.len, text.data,
				   err.detail);
		return;
	}
	fuzz_check(is_json || s.deep, "\"%.*s\" is no JSON", (int) text.len, text.data);
	check_value(doc.root);
	check_written(doc.root);
	m1_json_free(&doc);
}
