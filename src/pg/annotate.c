/*
 * annotate.c
 *	  annotate(): a BEFORE row trigger that fills a column from a prompt over
 *	  other columns of the row.
 */
#include "m1pg.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(m1pg_annotate);

#define MAX_PLACEHOLDERS 64

/* The template taken apart: literal text, and columns to put between. */
typedef struct Template
{
	int			n;				/* placeholders */
	int			column[MAX_PLACEHOLDERS];	/* attribute numbers */
	StringInfoData literal[MAX_PLACEHOLDERS + 1];	/* before each, and after the last */
} Template;

static int
column_number(TupleDesc tupdesc, Relation rel, const char *name)
{
	int			number = SPI_fnumber(tupdesc, name);

	if (number <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("minimax_m1: column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("Write {{ and }} for braces that are not placeholders.")));
	return number;
}

static void
bad_template(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: malformed prompt template"),
			 errdetail("%s", why),
			 errhint("Write {column} for a column's value, {{ and }} for braces.")));
}

static void
parse_template(Template *t, const char *s, TupleDesc tupdesc, Relation rel)
{
	t->n = 0;
	initStringInfo(&t->literal[0]);
	while (*s != '\0')
	{
		const char *close;

		if ((s[0] == '{' && s[1] == '{') || (s[0] == '}' && s[1] == '}'))
		{
			appendStringInfoChar(&t->literal[t->n], *s);
			s += 2;
			continue;
		}
		if (*s == '}')
			bad_template("It has a } without {.");
		if (*s != '{')
		{
			appendStringInfoChar(&t->literal[t->n], *s++);
			continue;
		}
		close = strchr(s, '}');
		if (close == NULL)
			bad_template("It has a { without }.");
		if (t->n == MAX_PLACEHOLDERS)
			bad_template(psprintf("It has more than %d placeholders.", MAX_PLACEHOLDERS));
		t->column[t->n++] = column_number(tupdesc, rel, pnstrdup(s + 1, close - s - 1));
		initStringInfo(&t->literal[t->n]);
		s = close + 1;
	}
}

/* The prompt of one row, or NULL when a placeholder's column is NULL. Values are not looked at for placeholders. */
static char *
render(const Template *t, HeapTuple row, TupleDesc tupdesc)
{
	StringInfoData prompt;

	initStringInfo(&prompt);
	for (int i = 0; i < t->n; i++)
	{
		char	   *value = SPI_getvalue(row, tupdesc, t->column[i]);

		if (value == NULL)
			return NULL;
		appendStringInfoString(&prompt, t->literal[i].data);
		appendStringInfoString(&prompt, value);
	}
	appendStringInfoString(&prompt, t->literal[t->n].data);
	return prompt.data;
}

static bool
same_value(HeapTuple a, HeapTuple b, TupleDesc tupdesc, int number)
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

/* An update that touches no column of the prompt keeps the annotation. */
static bool
inputs_unchanged(const Template *t, HeapTuple old, HeapTuple new, TupleDesc tupdesc)
{
	for (int i = 0; i < t->n; i++)
		if (!same_value(old, new, tupdesc, t->column[i]))
			return false;
	return true;
}

/* What precedes the first placeholder is the same in every row. */
static char *
generate(const Template *t, const char *prompt, int max_tokens)
{
	m1w_generate g;
	M1Result	result;

	m1pg_default_request(&g);
	if (max_tokens > 0)
		g.max_tokens = max_tokens;
	g.prompt = m1pg_to_utf8(prompt, strlen(prompt));
	g.template_len = m1pg_to_utf8(t->literal[0].data, t->literal[0].len).len;
	m1pg_run(&g, "annotate", &result);
	return text_to_cstring(m1pg_text_from_utf8(result.done.content));
}

/* The row with the column set to a text, converted by the column type's input function; NULL clears it. */
static HeapTuple
set_column(HeapTuple row, TupleDesc tupdesc, int number, char *value)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, number - 1);
	bool		isnull = value == NULL;
	Datum		datum = (Datum) 0;

	if (!isnull)
	{
		Oid			input;
		Oid			param;

		getTypeInputInfo(att->atttypid, &input, &param);
		datum = OidInputFunctionCall(input, value, param, att->atttypmod);
	}
	return heap_modify_tuple_by_cols(row, tupdesc, 1, &number, &datum, &isnull);
}

static void
protocol_violated(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("minimax_m1.annotate: %s", why),
			 errhint("CREATE TRIGGER ... BEFORE INSERT OR UPDATE ON ... FOR EACH ROW EXECUTE FUNCTION "
					 "minimax_m1.annotate('target_column', 'prompt with {column}' [, 'max_tokens']).")));
}

static void
check_call(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		protocol_violated("not called by a trigger");
	if (!TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		protocol_violated("must be fired BEFORE and FOR EACH ROW");
	if (!TRIGGER_FIRED_BY_INSERT(data->tg_event) && !TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		protocol_violated("must be fired by INSERT or UPDATE");
	if (data->tg_trigger->tgnargs < 2 || data->tg_trigger->tgnargs > 3)
		protocol_violated("takes the target column, the prompt and optionally max_tokens");
}

Datum
m1pg_annotate(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	char	  **args;
	TupleDesc	tupdesc;
	HeapTuple	row;
	Template	template;
	int			target;
	int			max_tokens = 0;
	char	   *prompt;

	check_call(fcinfo);
	args = data->tg_trigger->tgargs;
	tupdesc = RelationGetDescr(data->tg_relation);
	target = column_number(tupdesc, data->tg_relation, args[0]);
	parse_template(&template, args[1], tupdesc, data->tg_relation);
	if (data->tg_trigger->tgnargs == 3 && (max_tokens = pg_strtoint32(args[2])) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("minimax_m1: max_tokens is out of range"),
						errdetail("It is %d; it must be at least 1.", max_tokens)));
	row = data->tg_trigtuple;
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		row = data->tg_newtuple;
		if (inputs_unchanged(&template, data->tg_trigtuple, row, tupdesc))
			return PointerGetDatum(row);
	}
	prompt = render(&template, row, tupdesc);
	if (prompt != NULL && prompt[0] == '\0')
		prompt = NULL;
	return PointerGetDatum(set_column(row, tupdesc, target, prompt != NULL ? generate(&template, prompt, max_tokens) : NULL));
}
