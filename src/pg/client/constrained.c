/*
 * constrained.c
 *	  What the operators and the jobs share: a prompt that names a task, a
 *	  constraint on the answer, and an answer that is all there.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"

bool
m1pg_read_task(m1w_generate *g, const char *task, const text *document, m1_error *error)
{
	m1_slice	words = m1pg_utf8_of_text(document);

	if (words.len == 0)
	{
		m1_fail(error, M1_E_INVALID_ARGUMENT, "the text is empty");
		m1_error_detail(error, "It must have at least one character.");
		return false;
	}
	m1pg_task_prompt(g, m1pg_to_utf8(task, strlen(task)), words);
	return true;
}

void
m1pg_constrain(m1w_generate *g, m1w_constraint kind, const char *constraint)
{
	g->constraint = kind;
	g->constraint_text = m1pg_to_utf8(constraint, strlen(constraint));
}

/* ["a", "b"] */
static char *
json_of_choices(ArrayType *array)
{
	StringInfoData json;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			m1pg_bad_argument("a choice is NULL", psprintf("It is number %d.", i + 1));
		if (i > 0)
			appendStringInfoString(&json, ", ");
		escape_json(&json, TextDatumGetCString(values[i]));
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

void
m1pg_read_form(FunctionCallInfo fcinfo, M1FormArguments args, m1w_generate *g)
{
	if (!PG_ARGISNULL(args.json_schema) + !PG_ARGISNULL(args.choices) + !PG_ARGISNULL(args.regex) > 1)
		m1pg_bad_argument("more than one of json_schema, choices and regex is given", "An answer has one form.");
	if (!PG_ARGISNULL(args.json_schema))
		m1pg_constrain(g, M1W_CONSTRAINT_JSON_SCHEMA, text_to_cstring(m1pg_json_argument(fcinfo, args.json_schema)));
	else if (!PG_ARGISNULL(args.choices))
		m1pg_constrain(g, M1W_CONSTRAINT_CHOICES, json_of_choices(PG_GETARG_ARRAYTYPE_P(args.choices)));
	else if (!PG_ARGISNULL(args.regex))
		m1pg_constrain(g, M1W_CONSTRAINT_REGEX, text_to_cstring(PG_GETARG_TEXT_PP(args.regex)));
}

/* The mask lets an answer end only where it is complete; without an end it was cut off, or never begun. */
bool
m1pg_check_complete(const m1w_done *done, m1_error *error)
{
	if (done->finish == M1W_FINISH_STOP || done->finish == M1W_FINISH_THINKING_BUDGET)
		return true;
	m1_fail(error, M1_E_CONTEXT_OVERFLOW, "the answer was cut off before its end");
	m1_error_detail(error, "It finished with \"%s\" after %d tokens, of which %d are reasoning.",
					m1w_finish_name(done->finish), done->completion_tokens, done->reasoning_tokens);
	m1_error_hint(error, "Raise max_tokens or minimax_m1.max_context, or set a thinking budget.");
	return false;
}

bool
m1pg_run_constrained(const m1w_generate *g, const char *function, char **answer, m1_error *error)
{
	M1Result	result;
	text	   *converted;

	if (!m1pg_try_run(g, function, &result, error) || !m1pg_check_complete(&result.done, error))
		return false;
	if ((converted = m1pg_scalar_text(result.done.content)) == NULL)
	{
		m1_fail(error, M1_E_UNSUPPORTED, "the reply has characters that the database's encoding does not have");
		return false;
	}
	*answer = text_to_cstring(converted);
	return true;
}
