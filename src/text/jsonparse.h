/*
 * jsonparse.h - JSON as it was written: members in their order, numbers as their text, however long.
 *
 * A parsed text takes its own length, and 20 bytes for each value and each key. It does not change: any thread may read
 * it. Functions that take a value allow NULL, which is what a member that is not there gives, and take it, as whatever
 * else is not of the kind they are for, as one that has nothing.
 */
#ifndef M1_TEXT_JSONPARSE_H
#define M1_TEXT_JSONPARSE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/work.h"

#define M1_JSON_MAX_VALUES (1 << 20) /* of one text, keys included */
#define M1_JSON_MAX_DEPTH 2048		 /* arrays and objects in each other */

typedef enum m1_json_kind
{
	M1_JSON_NULL,
	M1_JSON_FALSE,
	M1_JSON_TRUE,
	M1_JSON_NUMBER,
	M1_JSON_STRING,
	M1_JSON_ARRAY,
	M1_JSON_OBJECT,
} m1_json_kind;

/* A value. What it holds follows it in memory, a key in front of its value. */
typedef struct m1_json
{
	uint32_t kind : 3;	/* m1_json_kind */
	uint32_t span : 29; /* values and keys in it, itself included */
	uint32_t n;			/* bytes of a string or number, items of an array, members of an object */
	union
	{
		const char *text;	   /* of a string, UTF-8 and NUL-terminated; of a number, which something else follows */
		const uint32_t *index; /* [n]: where items are behind this value; of members, the values by their keys */
	};
} m1_json;

/* A parsed text. Zero-initialised is empty, and may be freed. */
typedef struct m1_json_doc
{
	const m1_json *root;
	m1_json *values;
	uint32_t *index;
	char *text; /* [len], and a NUL */
	size_t len;
} m1_json_doc;

/*
 * Parses all of the text, which `what` names in errors ("messages"). M1_E_INVALID_ARGUMENT with line and column when it
 * is no JSON, or an object has a key twice, or a string U+0000, which texts of SQL cannot hold. M1_E_UNSUPPORTED when
 * it is nested too deep, and before anything is allocated when it has too many values. `work`, which may be NULL, is
 * asked every few milliseconds. On failure *doc is empty.
 */
m1_status m1_json_parse(m1_slice text, const char *what, m1_work *work, m1_json_doc *doc, m1_error *err);
/* The same of a text that may have another number of values. */
m1_status m1_json_parse_up_to(m1_slice text, const char *what, size_t most, m1_work *work, m1_json_doc *doc,
							  m1_error *err);
void m1_json_free(m1_json_doc *doc);

extern const m1_json m1_json_true; /* a value of no text */

static inline bool
m1_json_is(const m1_json *value, m1_json_kind kind)
{
	return value != NULL && value->kind == kind;
}

static inline bool
m1_json_is_boolean(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_TRUE) || m1_json_is(value, M1_JSON_FALSE);
}

bool m1_json_is_text(const m1_json *value, const char *text); /* the string with that text */

/* Items of an array or members of an object. */
size_t m1_json_size(const m1_json *value);
/* The value of a key in an object. */
const m1_json *m1_json_get(const m1_json *object, const char *key);
/* Item i of an array. */
const m1_json *m1_json_at(const m1_json *array, size_t i);

/* Items and members in their order: the first one of a list, and the one behind it; NULL at its end. */
const m1_json *m1_json_first(const m1_json *list);
const m1_json *m1_json_next(const m1_json *list, const m1_json *item);
#define m1_json_foreach(list, item) \
	for (const m1_json *item = m1_json_first(list); item != NULL; item = m1_json_next(list, item))

/* The key of a member, NUL-terminated as all strings. */
static inline const char *
m1_json_key(const m1_json *member)
{
	return member[-1].text;
}

/*
 * The first key of an object that is none of those in the NULL-terminated list, and whose value says something: null
 * and an empty array are what clients write for nothing. NULL when there is none.
 */
const char *m1_json_other_key(const m1_json *object, const char *const *keys);

/* The text of a string. */
m1_slice m1_json_text(const m1_json *value);
/* The text of a string, NUL-terminated; NULL when it is none. */
const char *m1_json_cstr(const m1_json *value);

/* The nearest 64-bit real of a number, infinite beyond them. */
double m1_json_real(const m1_json *value);
/* A number without a fraction, 1.0 and 1e400 among them. */
bool m1_json_is_whole(const m1_json *value);
/* Whether it is a number that is written without point and exponent, and fits. */
bool m1_json_is_int64(const m1_json *value, int64_t *n);
/* The whole number next to a number, up or down, or that itself; digit by digit. false when it is beyond 64 bits. */
bool m1_json_to_whole(const m1_json *value, bool up, int64_t *n);
/* The digits behind the point of a number, without zeros at the end, and a NUL. false: there is no room for them. */
bool m1_json_fraction(const m1_json *value, char *digits, size_t size);

#endif
