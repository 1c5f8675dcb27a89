/*
 * jsonparse.c - see jsonparse.h.
 *
 * The text is copied once, and strings are decoded where they stand: no escape is longer than what it stands for. One
 * pass counts an upper bound of the values, a second one makes them.
 */
#define _GNU_SOURCE 1 /* qsort_r; as PostgreSQL defines it, in whose library this is, too */
#include "text/jsonparse.h"

#include <stdlib.h>
#include <string.h>

#include "base/block.h"
#include "base/least.h"
#include "base/utf8.h"

#define LOOK_EACH 65536 /* bytes, whether they are still wanted */

typedef struct parser
{
	m1_json_doc *doc;
	char *at; /* in the doc's text, which ends with a NUL */
	size_t n; /* values so far */
	size_t n_index;
	int depth;
	bool too_deep;
	bool valid; /* the first failure is of JSON that is valid */
	m1_work *work;
	const char *why; /* the first failure, at `at` */
} parser;

const m1_json m1_json_true = {.kind = M1_JSON_TRUE, .span = 1};

static void
fail(parser *p, const char *why)
{
	if (p->why == NULL)
		p->why = why;
}

/* For what JSON allows, and nobody can tell what it would mean. */
static void
fail_valid(parser *p, const char *why)
{
	p->valid = p->valid || p->why == NULL;
	fail(p, why);
}

/* The first failure, which no text is refused for, is that the work does not. */
static bool
goes_on(parser *p)
{
	if (!m1_work_goes_on(p->work, 0))
		fail(p, "");
	return p->why == NULL;
}

static m1_json *
new_value(parser *p, m1_json_kind kind)
{
	m1_json *value = &p->doc->values[p->n++];

	*value = (m1_json){.kind = kind, .span = 1};
	return value;
}

static void
skip_blanks(parser *p)
{
	while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
		p->at++;
}

/* ---- strings ---- */

/* Four hexadecimal digits, or -1. */
static int32_t
code_unit(const char *s)
{
	int32_t unit = 0;

	for (int i = 0; i < 4; i++)
	{
		const int digit = m1_hex_digit(s[i]);

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

static char *
put_utf8(char *out, int32_t c)
{
	if (c < 0x80)
		*out++ = (char) c;
	else if (c < 0x800)
		*out++ = (char) (0xc0 | c >> 6);
	else if (c < 0x10000)
		*out++ = (char) (0xe0 | c >> 12);
	else
		*out++ = (char) (0xf0 | c >> 18);
	if (c >= 0x10000)
		*out++ = (char) (0x80 | (c >> 12 & 0x3f));
	if (c >= 0x800)
		*out++ = (char) (0x80 | (c >> 6 & 0x3f));
	if (c >= 0x80)
		*out++ = (char) (0x80 | (c & 0x3f));
	return out;
}

/* \uXXXX, of which p->at is at the u, or two of them. Returns the end of what was written. */
static char *
put_code(parser *p, char *out)
{
	int32_t c = code_unit(p->at + 1);

	if (c < 0)
		fail(p, "\\u without four hexadecimal digits");
	else if (c == 0)
		fail_valid(p, "\\u0000, which a text cannot hold");
	else if (c >= 0xd800 && c <= 0xdfff)
	{
		const int32_t low = c < 0xdc00 && p->at[5] == '\\' && p->at[6] == 'u' ? code_unit(p->at + 7) : -1;

		if (low < 0xdc00 || low > 0xdfff)
			fail_valid(p, "half of a surrogate pair");
		else
		{
			c = 0x10000 + (c - 0xd800) * 0x400 + (low - 0xdc00);
			p->at += 6;
		}
	}
	if (p->why != NULL)
		return out;
	p->at += 5;
	return put_utf8(out, c);
}

/* What stands behind a backslash. Returns the end of what was written. */
static char *
put_escape(parser *p, char *out)
{
	static const char forms[] = "\"\"\\\\//b\bf\fn\nr\rt\t";

	for (const char *form = forms; *form != '\0'; form += 2)
		if (form[0] == *p->at)
		{
			*out = form[1];
			p->at++;
			return out + 1;
		}
	if (*p->at == 'u')
		return put_code(p, out);
	fail(p, "a backslash before what it does not go with");
	return out;
}

static void
read_string(parser *p)
{
	m1_json *value = new_value(p, M1_JSON_STRING);
	char *const start = ++p->at;
	char *out = start;
	size_t read = 0;

	while (*p->at != '"' && (++read % LOOK_EACH == 0 ? goes_on(p) : p->why == NULL))
		if (*p->at == '\\')
		{
			p->at++;
			out = put_escape(p, out);
		}
		else if ((unsigned char) *p->at < 0x20)
			fail(p, "a string without its end, or a control character in one");
		else
			*out++ = *p->at++;
	if (p->why != NULL)
		return;
	if (!m1_utf8_valid_while((m1_slice){start, (size_t) (out - start)}, p->work))
	{
		fail(p, "a string that is not UTF-8");
		return;
	}
	*out = '\0';
	p->at++;
	value->text = start;
	value->n = (uint32_t) (out - start);
}

/* ---- numbers and words ---- */

static size_t
count_digits(const char *s)
{
	size_t n = 0;

	while (s[n] >= '0' && s[n] <= '9')
		n++;
	return n;
}

/* The length of a number's text, or 0. */
static size_t
number_length(const char *s)
{
	size_t at = *s == '-';
	size_t n = count_digits(s + at);

	if (n == 0 || (n > 1 && s[at] == '0'))
		return 0;
	at += n;
	if (s[at] == '.')
	{
		if ((n = count_digits(s + at + 1)) == 0)
			return 0;
		at += 1 + n;
	}
	if (s[at] == 'e' || s[at] == 'E')
	{
		at += 1 + (s[at + 1] == '+' || s[at + 1] == '-');
		if ((n = count_digits(s + at)) == 0)
			return 0;
		at += n;
	}
	return at;
}

static void
read_number(parser *p)
{
	const size_t len = number_length(p->at);
	m1_json *value = new_value(p, M1_JSON_NUMBER);

	if (len == 0)
		fail(p, "a number that is not written as JSON's are");
	value->text = p->at;
	value->n = (uint32_t) len;
	p->at += len;
}

static void
read_word(parser *p)
{
	static const struct
	{
		const char *word;
		m1_json_kind kind;
	} words[] = {{"null", M1_JSON_NULL}, {"false", M1_JSON_FALSE}, {"true", M1_JSON_TRUE}};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strncmp(p->at, words[i].word, strlen(words[i].word)) == 0)
		{
			new_value(p, words[i].kind);
			p->at += strlen(words[i].word);
			return;
		}
	fail(p, "no value where one must be");
}

/* ---- arrays and objects ---- */

static int
compare_keys(const char *a, size_t a_len, const char *b, size_t b_len)
{
	const int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

/* What keys are sorted for. */
typedef struct sorting
{
	const m1_json *object;
	m1_work *work;
} sorting;

/* Where the work does not go on, all are equal: so what is left of the sorting takes no time. */
static int
by_key(const void *a, const void *b, void *context)
{
	const sorting *s = context;
	const m1_json *x = s->object + *(const uint32_t *) a - 1;
	const m1_json *y = s->object + *(const uint32_t *) b - 1;

	return m1_work_goes_on(s->work, 0) ? compare_keys(x->text, x->n, y->text, y->n) : 0;
}

/* Where the items of a list are that has been read to its end. Keys are sorted: equal ones are neighbours then. */
static void
index_items(parser *p, m1_json *list)
{
	uint32_t *index = p->doc->index + p->n_index;
	sorting s = {list, p->work};
	uint32_t n = 0;

	m1_json_foreach (list, item)
		index[n++] = (uint32_t) (item - list);
	list->index = index;
	p->n_index += n;
	if (list->kind != M1_JSON_OBJECT || n < 2)
		return;
	qsort_r(index, n, sizeof *index, by_key, &s);
	for (uint32_t i = 1; i < n && goes_on(p); i++)
		if (by_key(&index[i - 1], &index[i], &s) == 0)
			fail_valid(p, "the end of an object that has a key twice");
}

static void read_value(parser *p);

static void
read_member(parser *p)
{
	skip_blanks(p);
	if (*p->at != '"')
		fail(p, "no key where one must be");
	else
		read_string(p);
	skip_blanks(p);
	if (*p->at != ':')
		fail(p, "no colon behind a key");
	if (p->why != NULL)
		return;
	p->at++;
	read_value(p);
}

static void
read_list(parser *p, m1_json_kind kind)
{
	const char close = kind == M1_JSON_ARRAY ? ']' : '}';
	m1_json *list = new_value(p, kind);
	size_t n = 0;

	if (++p->depth > M1_JSON_MAX_DEPTH)
	{
		p->too_deep = true;
		fail(p, "one more begins here");
		return;
	}
	p->at++;
	skip_blanks(p);
	while (p->why == NULL && (n > 0 || *p->at != close))
	{
		if (kind == M1_JSON_ARRAY)
			read_value(p);
		else
			read_member(p);
		n++;
		skip_blanks(p);
		if (*p->at != ',')
			break;
		p->at++;
	}
	if (*p->at != close)
		fail(p, "no comma between two values, or no end of an array or object");
	if (p->why != NULL)
		return;
	p->depth--;
	list->n = (uint32_t) n;
	list->span = (uint32_t) (&p->doc->values[p->n] - list);
	index_items(p, list);
	if (p->why == NULL)
		p->at++;
}

static void
read_value(parser *p)
{
	skip_blanks(p);
	if (!goes_on(p))
		return;
	if (*p->at == '"')
		read_string(p);
	else if (*p->at == '[')
		read_list(p, M1_JSON_ARRAY);
	else if (*p->at == '{')
		read_list(p, M1_JSON_OBJECT);
	else if (*p->at == '-' || (*p->at >= '0' && *p->at <= '9'))
		read_number(p);
	else
		read_word(p);
}

/* ---- the text ---- */

/* Values and keys, at most: each but the first comes behind one of these. Fewer where the work does not go on. */
static size_t
count_values(m1_slice text, m1_work *work)
{
	bool quoted = false;
	size_t looked = 0;
	size_t n = 1;

	for (size_t i = 0; i < text.len && (++looked % LOOK_EACH != 0 || m1_work_goes_on(work, 0)); i++)
		switch (text.data[i])
		{
			case '"':
				quoted = !quoted;
				break;
			case '\\':
				i += quoted;
				break;
			case ',':
			case ':':
			case '[':
			case '{':
				n += !quoted;
				break;
		}
	return n;
}

/* Lines and columns of the text as it was given: strings have been decoded in the copy. */
static m1_status
refuse(const parser *p, m1_slice text, const char *what, m1_error *err)
{
	const size_t at = (size_t) (p->at - p->doc->text);
	size_t line = 1;
	size_t column = 1;

	for (size_t i = 0; i < at && i < text.len; i++)
		if (text.data[i] == '\n')
		{
			line++;
			column = 1;
		}
		else
			column += ((unsigned char) text.data[i] & 0xc0) != 0x80;
	if (p->too_deep)
		m1_fail(err, M1_E_UNSUPPORTED, "%s is nested too deep: more than %d arrays and objects in each other", what,
				M1_JSON_MAX_DEPTH);
	else
		m1_fail(err, M1_E_INVALID_ARGUMENT, "%s is %s", what, p->valid ? "JSON that cannot be used" : "not valid JSON");
	m1_error_detail(err, "Line %zu, column %zu: %s.", line, column, p->why);
	return err->code;
}

static void
copy_text(m1_slice text, m1_work *work, char *to)
{
	for (size_t at = 0; at < text.len && m1_work_goes_on(work, 0); at += LOOK_EACH)
		memcpy(to + at, text.data + at, m1_min_size(LOOK_EACH, text.len - at));
	to[text.len] = '\0';
}

static m1_status
prepare(m1_slice text, const char *what, size_t most, m1_work *work, m1_json_doc *doc, m1_error *err)
{
	const size_t n = count_values(text, work);

	if (n > most)
		return m1_fail(err, M1_E_UNSUPPORTED, "%s may have %zu values: more than %zu", what, n, most);
	doc->len = text.len;
	doc->values = malloc(n * sizeof *doc->values);
	doc->index = malloc(n * sizeof *doc->index);
	doc->text = m1_block_create(text.len + 1);
	if (doc->values == NULL || doc->index == NULL || doc->text == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %s", what);
	copy_text(text, work, doc->text);
	return m1_work_goes_on(work, 0) ? M1_OK : m1_work_stopped(work, what, err);
}

m1_status
m1_json_parse_up_to(m1_slice text, const char *what, size_t most, m1_work *work, m1_json_doc *doc, m1_error *err)
{
	parser p = {.doc = doc, .work = work};
	m1_status status;

	*doc = (m1_json_doc){0};
	if ((status = prepare(text, what, most, work, doc, err)) == M1_OK)
	{
		p.at = doc->text;
		read_value(&p);
		skip_blanks(&p);
		if ((size_t) (p.at - doc->text) != text.len)
			fail(&p, "something behind the value");
		if (p.why != NULL && !m1_work_goes_on(work, 0))
			status = m1_work_stopped(work, what, err);
		else if (p.why != NULL)
			status = refuse(&p, text, what, err);
	}
	if (status == M1_OK)
		doc->root = doc->values;
	else
		m1_json_free(doc);
	return status;
}

m1_status
m1_json_parse(m1_slice text, const char *what, m1_work *work, m1_json_doc *doc, m1_error *err)
{
	return m1_json_parse_up_to(text, what, M1_JSON_MAX_VALUES, work, doc, err);
}

void
m1_json_free(m1_json_doc *doc)
{
	free(doc->values);
	free(doc->index);
	m1_block_free(doc->text, doc->len + 1);
	*doc = (m1_json_doc){0};
}

/* ---- values ---- */

static bool
is_list(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_ARRAY) || m1_json_is(value, M1_JSON_OBJECT);
}

size_t
m1_json_size(const m1_json *value)
{
	return is_list(value) ? value->n : 0;
}

const m1_json *
m1_json_first(const m1_json *list)
{
	return m1_json_size(list) > 0 ? list + 1 + (list->kind == M1_JSON_OBJECT) : NULL;
}

const m1_json *
m1_json_next(const m1_json *list, const m1_json *item)
{
	const m1_json *next = item + item->span;

	return next < list + list->span ? next + (list->kind == M1_JSON_OBJECT) : NULL;
}

const m1_json *
m1_json_get(const m1_json *object, const char *key)
{
	const size_t len = strlen(key);
	size_t low = 0;
	size_t high = m1_json_is(object, M1_JSON_OBJECT) ? object->n : 0;

	while (low < high)
	{
		const size_t middle = low + (high - low) / 2;
		const m1_json *member = object + object->index[middle];
		const int order = compare_keys(key, len, member[-1].text, member[-1].n);

		if (order == 0)
			return member;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const m1_json *
m1_json_at(const m1_json *array, size_t i)
{
	return m1_json_is(array, M1_JSON_ARRAY) && i < array->n ? array + array->index[i] : NULL;
}

static bool
is_one_of(const char *key, const char *const *keys)
{
	for (; *keys != NULL; keys++)
		if (strcmp(*keys, key) == 0)
			return true;
	return false;
}

const char *
m1_json_other_key(const m1_json *object, const char *const *keys)
{
	m1_json_foreach (object, member)
		if (!m1_json_is(member, M1_JSON_NULL) && !(m1_json_is(member, M1_JSON_ARRAY) && member->n == 0) &&
			!is_one_of(m1_json_key(member), keys))
			return m1_json_key(member);
	return NULL;
}

m1_slice
m1_json_text(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_STRING) ? (m1_slice){value->text, value->n} : (m1_slice){0};
}

const char *
m1_json_cstr(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_STRING) ? value->text : NULL;
}

bool
m1_json_is_text(const m1_json *value, const char *text)
{
	return m1_json_is(value, M1_JSON_STRING) && strcmp(value->text, text) == 0;
}
