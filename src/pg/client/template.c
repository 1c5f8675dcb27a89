/*
 * template.c
 *	  Prompt templates, and the columns of a row that they read and fill. See
 *	  template.h.
 */
#include "pg/client/template.h"
#include "pg/client/texts.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "catalog/pg_type.h"

PG_FUNCTION_INFO_V1(m1pg_template_columns);
PG_FUNCTION_INFO_V1(m1pg_template_rename);

static void
bad_template(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: malformed prompt template"),
			 errdetail("%s", why),
			 errhint("Write {column} for a column's value, {{ and }} for braces.")));
}

/* The name that begins at s, behind the {; *end is behind its }. NULL when there is none. */
static char *
read_quoted(const char *s, const char **end)
{
	StringInfoData name;

	if (*s++ != '"')
		return NULL;
	initStringInfo(&name);
	for (; *s != '\0' && (s[0] != '"' || s[1] == '"'); s++)
	{
		appendStringInfoChar(&name, *s);
		if (*s == '"')
			s++;
	}
	if (s[0] != '"' || s[1] != '}')
		return NULL;
	*end = s + 2;
	return name.data;
}

static char *
read_name(const char *s, const char **end)
{
	char	   *name = read_quoted(s, end);
	const char *close;

	if (name != NULL)
		return name;
	close = strchr(s, '}');
	if (close == NULL)
		bad_template("It has a { without }.");
	*end = close + 1;
	return pnstrdup(s, close - s);
}

void
m1pg_template_parse(M1Template *t, const char *s)
{
	StringInfoData literal;

	t->n = 0;
	initStringInfo(&literal);
	while (*s != '\0')
	{
		char	   *name;

		if ((s[0] == '{' && s[1] == '{') || (s[0] == '}' && s[1] == '}'))
		{
			appendStringInfoChar(&literal, *s);
			s += 2;
			continue;
		}
		if (*s == '}')
			bad_template("It has a } without {.");
		if (*s != '{')
		{
			Size		n = strcspn(s, "{}");

			appendBinaryStringInfo(&literal, s, n);
			s += n;
			continue;
		}
		name = read_name(s + 1, &s);
		if (t->n == M1PG_MAX_PLACEHOLDERS)
			bad_template(psprintf("It has more than %d placeholders.", M1PG_MAX_PLACEHOLDERS));
		t->literal[t->n] = literal.data;
		t->column[t->n++] = name;
		initStringInfo(&literal);
	}
	t->literal[t->n] = literal.data;
}

char *
m1pg_template_render(const M1Template *t, char *const *values)
{
	StringInfoData prompt;

	initStringInfo(&prompt);
	for (int i = 0; i < t->n; i++)
	{
		if (values[i] == NULL)
			return NULL;
		appendStringInfoString(&prompt, t->literal[i]);
		appendStringInfoString(&prompt, values[i]);
	}
	appendStringInfoString(&prompt, t->literal[t->n]);
	return prompt.len > 0 ? prompt.data : NULL;
}

uint32
m1pg_template_shared_len(const M1Template *t)
{
	return (uint32) m1pg_to_utf8(t->literal[0], strlen(t->literal[0])).len;
}

/* ---- rows ---- */

int
m1pg_column_number(Relation rel, const char *name)
{
	int			number = SPI_fnumber(RelationGetDescr(rel), name);

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("minimax_m1: column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("Write {{ and }} for braces that are not placeholders.")));
	return number;
}

void
m1pg_template_bind(M1BoundTemplate *t, const char *s, Relation rel)
{
	m1pg_template_parse(&t->text, s);
	for (int i = 0; i < t->text.n; i++)
		t->number[i] = m1pg_column_number(rel, t->text.column[i]);
}

char *
m1pg_template_render_row(const M1BoundTemplate *t, HeapTuple row, TupleDesc tupdesc)
{
	char	   *values[M1PG_MAX_PLACEHOLDERS];

	for (int i = 0; i < t->text.n; i++)
		values[i] = SPI_getvalue(row, tupdesc, t->number[i]);
	return m1pg_template_render(&t->text, values);
}

bool
m1pg_same_value(HeapTuple a, HeapTuple b, TupleDesc tupdesc, int number)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, number - 1);
	bool		a_null;
	bool		b_null;
	Datum		x = heap_getattr(a, number, tupdesc, &a_null);
	Datum		y = heap_getattr(b, number, tupdesc, &b_null);

	if (a_null || b_null)
		return a_null && b_null;
	/* the same text may be stored in two ways: compare what is meant */
	if (att->attlen == -1)
	{
		struct varlena *p = PG_DETOAST_DATUM_PACKED(x);
		struct varlena *q = PG_DETOAST_DATUM_PACKED(y);

		return VARSIZE_ANY_EXHDR(p) == VARSIZE_ANY_EXHDR(q) &&
			memcmp(VARDATA_ANY(p), VARDATA_ANY(q), VARSIZE_ANY_EXHDR(p)) == 0;
	}
	return datumIsEqual(x, y, att->attbyval, att->attlen);
}

bool
m1pg_template_same_inputs(const M1BoundTemplate *t, HeapTuple a, HeapTuple b, TupleDesc tupdesc)
{
	for (int i = 0; i < t->text.n; i++)
		if (!m1pg_same_value(a, b, tupdesc, t->number[i]))
			return false;
	return true;
}

/* NULL, too, is for the type's input: a domain may refuse it. */
Datum
m1pg_value_from_text(Oid type, int32 typmod, char *value)
{
	Oid			input;
	Oid			param;

	getTypeInputInfo(type, &input, &param);
	return OidInputFunctionCall(input, value, param, typmod);
}

HeapTuple
m1pg_set_column(HeapTuple row, TupleDesc tupdesc, int number, char *value)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, number - 1);
	bool		isnull = value == NULL;
	Datum		datum = m1pg_value_from_text(att->atttypid, att->atttypmod, value);

	return heap_modify_tuple_by_cols(row, tupdesc, 1, &number, &datum, &isnull);
}

/* ---- for the SQL side of annotators ---- */

/* _template_columns(template): the names of its placeholders, in order. */
Datum
m1pg_template_columns(PG_FUNCTION_ARGS)
{
	M1Template	t;
	Datum		names[M1PG_MAX_PLACEHOLDERS];

	m1pg_template_parse(&t, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	for (int i = 0; i < t.n; i++)
		names[i] = CStringGetTextDatum(t.column[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(names, t.n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
append_literal(StringInfo s, const char *literal)
{
	while (*literal != '\0')
	{
		Size		n = strcspn(literal, "{}");

		appendBinaryStringInfo(s, literal, n);
		literal += n;
		if (*literal != '\0')
		{
			appendStringInfoChar(s, *literal);
			appendStringInfoChar(s, *literal++);
		}
	}
}

/* As read_name reads it. */
static void
append_placeholder(StringInfo s, const char *name)
{
	if (name[0] != '"' && strpbrk(name, "{}") == NULL)
	{
		appendStringInfo(s, "{%s}", name);
		return;
	}
	appendStringInfoString(s, "{\"");
	for (; *name != '\0'; name++)
	{
		appendStringInfoChar(s, *name);
		if (*name == '"')
			appendStringInfoChar(s, '"');
	}
	appendStringInfoString(s, "\"}");
}

/* _template_rename(template, old, new): the template after a column was renamed. */
Datum
m1pg_template_rename(PG_FUNCTION_ARGS)
{
	const char *from = NameStr(*PG_GETARG_NAME(1));
	const char *to = NameStr(*PG_GETARG_NAME(2));
	M1Template	t;
	StringInfoData s;

	m1pg_template_parse(&t, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	initStringInfo(&s);
	for (int i = 0; i < t.n; i++)
	{
		append_literal(&s, t.literal[i]);
		append_placeholder(&s, strcmp(t.column[i], from) == 0 ? to : t.column[i]);
	}
	append_literal(&s, t.literal[t.n]);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(s.data, s.len));
}
