/*
 * rewards.c
 *	  The ready rewards that compare an answer with what its example says:
 *	  reward_exact(), reward_number(), reward_json(), reward_format() and
 *	  reward_length(). They look at nothing but their arguments.
 *
 *	  A reward is NULL, which is no opinion, where the example's column is NULL. A
 *	  column that is not there at all is an error: the query forgot it.
 */
#include "pg/learning/rewards.h"
#include "pg/attempt.h"
#include "pg/report.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(m1pg_reward_exact);
PG_FUNCTION_INFO_V1(m1pg_reward_number);
PG_FUNCTION_INFO_V1(m1pg_reward_json);
PG_FUNCTION_INFO_V1(m1pg_reward_format);
PG_FUNCTION_INFO_V1(m1pg_reward_length);

/* ---- the example ---- */

/* NULL = there is none. */
static JsonbValue *
find_column(Jsonb *example, const char *column)
{
	if (!JB_ROOT_IS_OBJECT(example))
		return NULL;
	return getKeyJsonValueFromContainer(&example->root, column, strlen(column), NULL);
}

JsonbValue *
m1pg_example_column(Jsonb *example, const char *column)
{
	JsonbValue *value = find_column(example, column);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("minimax_m1: the example has no column \"%s\"", column),
				 errhint("Let the query of the examples return it, as in SELECT ..., x AS %s.", column)));
	return value->type == jbvNull ? NULL : value;
}

static char *
text_of_value(JsonbValue *value)
{
	Jsonb	   *json;

	if (value == NULL || value->type == jbvNull)
		return NULL;
	if (value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	json = JsonbValueToJsonb(value);
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

char *
m1pg_example_text(Jsonb *example, const char *column)
{
	return text_of_value(m1pg_example_column(example, column));
}

char *
m1pg_example_optional_text(Jsonb *example, const char *column)
{
	return text_of_value(find_column(example, column));
}

void
m1pg_raise_of_example(ErrorData *error, const char *what)
{
	const char *own = m1pg_own_message(error->message);

	error->message = psprintf("minimax_m1: the example's %s: %s", what, own != NULL ? own : error->message);
	ReThrowError(error);
}

/* ---- texts ---- */

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Without the white space around it. */
static char *
trimmed(char *s)
{
	char	   *end;

	while (is_space(*s))
		s++;
	end = s + strlen(s);
	while (end > s && is_space(end[-1]))
		end--;
	*end = '\0';
	return s;
}

/* reward_exact(answer, example) */
Datum
m1pg_reward_exact(PG_FUNCTION_ARGS)
{
	char	   *wanted = m1pg_example_text(PG_GETARG_JSONB_P(1), "answer");

	if (wanted == NULL)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(strcmp(trimmed(text_to_cstring(PG_GETARG_TEXT_PP(0))), trimmed(wanted)) == 0 ? 1 : 0);
}

/* ---- numbers ---- */

/* A longer one is taken for no number: it must not cost more than it is worth. */
#define MOST_DIGITS 1000
#define MOST_EXPONENT 3

/* A number as numeric_in takes it, with what it may have around its digits; n goes on where there is no room. */
typedef struct Spelling
{
	int			n;
	char		text[MOST_DIGITS + MOST_EXPONENT + 5];
} Spelling;

static void
spell(Spelling *out, char c)
{
	if (out->n < (int) sizeof out->text - 1)
		out->text[out->n] = c;
	out->n++;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Bytes of the one of these that `s` begins with; 0 = it does with none. */
static int
begins_with_one_of(const char *s, const char *const *strings)
{
	for (; *strings != NULL; strings++)
		if (strncmp(s, *strings, strlen(*strings)) == 0)
			return (int) strlen(*strings);
	return 0;
}

/* The last one is the minus of typesetting, U+2212; in an encoding that does not have it, so are its bytes unlikely. */
static int
sign_bytes(const char *s)
{
	static const char *const signs[] = {"-", "+", "\xE2\x88\x92", NULL};

	return begins_with_one_of(s, signs);
}

/* Behind a comma, or a space that does not break (U+00A0, U+202F) or is thin (U+2009). */
static int
separator_bytes(const char *s)
{
	static const char *const separators[] = {",", "\xC2\xA0", "\xE2\x80\xAF", "\xE2\x80\x89", NULL};

	return begins_with_one_of(s, separators);
}

/* Groups of three, as in 12,345,678: bytes of what is between them; 0 = no group begins here. */
static int
group_separator(const char *s)
{
	int			n = separator_bytes(s);

	s += n;
	return n > 0 && is_digit(s[0]) && is_digit(s[1]) && is_digit(s[2]) && !is_digit(s[3]) ? n : 0;
}

/* Reads digits, the first ones perhaps in groups; returns what follows them. */
static const char *
read_digits(const char *s, bool grouped, Spelling *out)
{
	const char *start = s;

	for (;;)
	{
		if (grouped && s > start && s - start <= 3)
			start = s += group_separator(s);
		if (!is_digit(*s))
			return s;
		spell(out, *s++);
	}
}

/* Reads an exponent, or nothing; whether it is short enough. */
static bool
read_exponent(const char **s, Spelling *out)
{
	const char *digits = *s + 1;
	const char *end;

	if (**s != 'e' && **s != 'E')
		return true;
	if (*digits == '+' || *digits == '-')
		digits++;
	for (end = digits; is_digit(*end); end++)
		;
	for (; end > digits && *s < end; (*s)++)
		spell(out, **s);
	return end - digits <= MOST_EXPONENT;
}

/* The number that begins at `s`, NULL if none does or it is too long; *end is behind it, then, too. */
static Numeric
read_number(const char *s, const char **end)
{
	Spelling	out;
	int			sign;
	bool		fits;

	out.n = 0;
	sign = sign_bytes(s) > 0;
	if (sign)
		spell(&out, *s == '+' ? '+' : '-');
	s += sign_bytes(s);
	s = read_digits(s, true, &out);
	if (*s == '.' && is_digit(s[1]))
	{
		spell(&out, *s++);
		s = read_digits(s, false, &out);
	}
	fits = out.n > sign && out.n - sign <= MOST_DIGITS;
	fits = read_exponent(&s, &out) && fits;
	*end = s;
	if (!fits)
		return NULL;
	out.text[out.n] = '\0';
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(out.text), ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1)));
}

/* All of `s`, perhaps with a currency sign before it and a full stop, a percent sign or dollars behind it. */
static Numeric
whole_number(char *s)
{
	Numeric		number;
	const char *end;

	s = trimmed(s);
	while (*s == '$' || *s == ' ' || *s == '\\')
		s++;
	number = read_number(s, &end);
	while (*end == '.' || *end == '$' || *end == '%' || *end == '\\' || is_space(*end))
		end++;
	return *end == '\0' ? number : NULL;
}

/* What the last \boxed{} holds; NULL when there is none that ends. */
static char *
last_boxed(const char *s)
{
	static const char opening[] = "\\boxed{";
	const char *found = NULL;
	int			depth = 1;

	for (const char *p = s; (p = strstr(p, opening)) != NULL; p += strlen(opening))
		found = p + strlen(opening);
	if (found == NULL)
		return NULL;
	for (const char *p = found; *p != '\0'; p++)
	{
		depth += *p == '{' ? 1 : *p == '}' ? -1 : 0;
		if (depth == 0)
			return pnstrdup(found, p - found);
	}
	return NULL;
}

/* A sign belongs to a number unless it stands behind one: 3-4 is three and four. */
static bool
begins_number(const char *s, const char *begin)
{
	int			sign = sign_bytes(s);

	if (sign > 0 && s > begin && (is_digit(s[-1]) || s[-1] == ')'))
		return false;
	s += sign;
	return is_digit(*s) || (*s == '.' && is_digit(s[1]));
}

static Numeric
last_number(const char *s)
{
	Numeric		last = NULL;
	const char *end;

	for (const char *p = s; *p != '\0'; p = Max(end, p + 1))
	{
		CHECK_FOR_INTERRUPTS();
		end = p;
		if (begins_number(p, s))
			last = read_number(p, &end);
	}
	return last;
}

/* The answer's number: what is boxed counts, and nothing else then; without a box, the last one. */
static Numeric
answered_number(const char *answer)
{
	char	   *boxed = last_boxed(answer);

	return boxed != NULL ? whole_number(boxed) : last_number(answer);
}

/* The reference may be a number, or a text that ends with one as an answer does. */
static Numeric
wanted_number(char *wanted)
{
	Numeric		number = last_boxed(wanted) != NULL ? answered_number(wanted) : whole_number(wanted);

	if (number == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("minimax_m1: the example's answer is not a number: \"%.100s\"", wanted),
				 errhint("reward_number compares numbers; reward_exact compares texts.")));
	return number;
}

/* reward_number(answer, example) */
Datum
m1pg_reward_number(PG_FUNCTION_ARGS)
{
	char	   *wanted = m1pg_example_text(PG_GETARG_JSONB_P(1), "answer");
	Numeric		number;
	Numeric		answered;

	if (wanted == NULL)
		PG_RETURN_NULL();
	number = wanted_number(wanted);
	answered = answered_number(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (answered == NULL)
		PG_RETURN_FLOAT8(0);
	PG_RETURN_FLOAT8(DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(answered), NumericGetDatum(number))));
}

/* ---- JSON ---- */

static double share_equal(JsonbValue *wanted, JsonbValue *got);

static bool
is_object(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data);
}

/* A field that is not there and one that is null are the same, as they are in a row. */
static bool
is_nothing(const JsonbValue *v)
{
	return v == NULL || v->type == jbvNull;
}

static bool
is_equal(JsonbValue *a, JsonbValue *b)
{
	Jsonb	   *x;
	Jsonb	   *y;

	if (is_nothing(a) || is_nothing(b))
		return is_nothing(a) && is_nothing(b);
	x = JsonbValueToJsonb(a);
	y = JsonbValueToJsonb(b);
	return compareJsonbContainers(&x->root, &y->root) == 0;
}

static JsonbValue *
field(const JsonbValue *object, const JsonbValue *key)
{
	return getKeyJsonValueFromContainer(object->val.binary.data, key->val.string.val, key->val.string.len, NULL);
}

/* The fields that are wanted, each with its share, and those that are not, but there. */
static double
share_of_fields(const JsonbValue *wanted, const JsonbValue *got)
{
	double		equal = 0;
	int			n = 0;

	for (int pass = 0; pass < 2; pass++)
	{
		JsonbIterator *it = JsonbIteratorInit(pass == 0 ? wanted->val.binary.data : got->val.binary.data);
		JsonbIteratorToken token;
		JsonbValue	v;

		while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		{
			JsonbValue	key = v;
			JsonbValue *other;

			if (token != WJB_KEY)
				continue;
			(void) JsonbIteratorNext(&it, &v, true);
			other = field(pass == 0 ? got : wanted, &key);
			if (pass == 0)
				equal += share_equal(&v, other);
			n += pass == 0 || (other == NULL && v.type != jbvNull);
		}
	}
	return n == 0 ? 1 : equal / n;
}

static double
share_equal(JsonbValue *wanted, JsonbValue *got)
{
	check_stack_depth();
	if (!is_nothing(wanted) && is_object(wanted))
		return !is_nothing(got) && is_object(got) ? share_of_fields(wanted, got) : 0;
	return is_equal(wanted, got) ? 1 : 0;
}

typedef struct Parsing
{
	const char *text;
	Jsonb	   *json;
} Parsing;

static void
parse(void *arg)
{
	Parsing    *p = arg;

	p->json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(p->text)));
}

/* What a text says in JSON; NULL if it is none. */
static Jsonb *
parse_json(const char *s)
{
	Parsing		p = {.text = s};
	M1Attempt	attempt = {.run = parse, .arg = &p};

	return m1pg_attempt(&attempt) == NULL ? p.json : NULL;
}

static void
root_value(Jsonb *json, JsonbValue *v)
{
	if (JB_ROOT_IS_SCALAR(json))
		(void) JsonbExtractScalar(&json->root, v);
	else
	{
		v->type = jbvBinary;
		v->val.binary.data = &json->root;
		v->val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
}

/* The reference may be JSON, or a text that is some. */
static Jsonb *
wanted_json(const JsonbValue *text)
{
	char	   *wanted = pnstrdup(text->val.string.val, text->val.string.len);
	Jsonb	   *json = parse_json(wanted);

	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("minimax_m1: the example's answer is not JSON: \"%.100s\"", wanted),
				 errhint("reward_json compares JSON; reward_exact compares texts.")));
	return json;
}

/* reward_json(answer, example) */
Datum
m1pg_reward_json(PG_FUNCTION_ARGS)
{
	JsonbValue *wanted = m1pg_example_column(PG_GETARG_JSONB_P(1), "answer");
	Jsonb	   *parsed;
	JsonbValue	value;
	JsonbValue	got;

	if (wanted == NULL)
		PG_RETURN_NULL();
	if (wanted->type == jbvString)
	{
		root_value(wanted_json(wanted), &value);
		wanted = &value;
	}
	parsed = parse_json(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (parsed == NULL)
		PG_RETURN_FLOAT8(0);
	root_value(parsed, &got);
	PG_RETURN_FLOAT8(share_equal(wanted, &got));
}

/* ---- form and length ---- */

typedef struct Matching
{
	Datum		answer;
	const char *pattern;
	bool		matched;
} Matching;

static void
match(void *arg)
{
	Matching   *m = arg;

	m->matched = DatumGetBool(DirectFunctionCall2Coll(textregexeq, DEFAULT_COLLATION_OID, m->answer,
													  CStringGetTextDatum(m->pattern)));
}

static bool
matches_format(Datum answer, const char *pattern)
{
	Matching	m = {.answer = answer, .pattern = pattern};
	M1Attempt	attempt = {.run = match, .arg = &m};
	ErrorData  *error = m1pg_attempt(&attempt);

	if (error != NULL)
		m1pg_raise_of_example(error, "format failed");
	return m.matched;
}

/* reward_format(answer, example) */
Datum
m1pg_reward_format(PG_FUNCTION_ARGS)
{
	char	   *pattern = m1pg_example_text(PG_GETARG_JSONB_P(1), "format");

	if (pattern == NULL)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(matches_format(PG_GETARG_DATUM(0), pattern) ? 1 : 0);
}

/* reward_length(answer, example): 1 up to max_length characters, from there down to 0 at twice as many. */
Datum
m1pg_reward_length(PG_FUNCTION_ARGS)
{
	char	   *limit = m1pg_example_text(PG_GETARG_JSONB_P(1), "max_length");
	text	   *answer = PG_GETARG_TEXT_PP(0);
	char	   *end;
	double		most;
	double		length;

	if (limit == NULL)
		PG_RETURN_NULL();
	most = strtod(limit, &end);
	if (end == limit || *end != '\0' || !(most >= 1))
		m1pg_bad_argument("max_length is out of range",
						  psprintf("It is %s; it must be a number, and at least 1.", limit));
	length = pg_mbstrlen_with_len(VARDATA_ANY(answer), VARSIZE_ANY_EXHDR(answer));
	PG_RETURN_FLOAT8(Max(0, Min(1, 2 - length / most)));
}
