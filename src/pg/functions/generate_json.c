/*
 * generate_json.c
 *	  generate_json(): a prompt whose answer is JSON of a schema.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(m1pg_generate_json);

/* generate_json(prompt, json_schema, ...) */
Datum
m1pg_generate_json(PG_FUNCTION_ARGS)
{
	m1w_generate g;
	m1_error	error;
	char	   *answer;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	m1pg_default_request(&g);
	m1pg_read_options(fcinfo, 2, &g);
	m1pg_constrain(&g, M1W_CONSTRAINT_JSON_SCHEMA, text_to_cstring(m1pg_json_argument(fcinfo, 1)));
	if (!m1pg_read_prompt(PG_GETARG_TEXT_PP(0), &g, &error) ||
		!m1pg_run_constrained(&g, "generate_json", &answer, &error))
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(answer));
}
