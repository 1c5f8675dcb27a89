/*
 * annotator.c
 *	  An annotator's definition, read as the extension's owner. It needs an SPI
 *	  connection of the caller's.
 */
#include "pg/jobs/annotator.h"
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/template.h"
#include "pg/client/texts.h"
#include "pg/jobs/guard.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

static void
read_options(M1Annotator *a, int first, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	M1Template	t;
	char	   *system = m1pg_result_text(context, 0, first);
	char	   *schema = m1pg_result_text(context, 0, first + 5);
	bool		isnull;
	Datum		value;

	m1pg_plain_request(&a->request);
	m1pg_template_parse(&t, a->template);
	a->request.template_len = m1pg_template_shared_len(&t);
	if (system != NULL)
		a->request.system = m1pg_to_utf8(system, strlen(system));
	else
		a->request.system = m1pg_keep(a->request.system);	/* a SET frees the setting's value */
	value = m1pg_result(0, first + 1, &isnull);
	if (!isnull)
		a->request.max_tokens = DatumGetInt32(value);
	value = m1pg_result(0, first + 2, &isnull);
	if (!isnull)
		a->request.thinking_budget = DatumGetInt32(value);
	value = m1pg_result(0, first + 3, &isnull);
	if (!isnull)
		a->request.temperature = DatumGetFloat4(value);
	value = m1pg_result(0, first + 4, &isnull);
	if (!isnull)
		a->request.top_p = DatumGetFloat4(value);
	if (schema != NULL)
		m1pg_constrain(&a->request, M1W_CONSTRAINT_JSON_SCHEMA, schema);
	MemoryContextSwitchTo(old);
}

M1Annotator *
m1pg_annotator_load(const char *name, int id, MemoryContext context)
{
	enum
	{
		ID = 1, NAME, OWNER, SOURCE, KEY_COLUMNS, TARGET, REASONING, STATUS, TEMPLATE, MODE, MAX_ATTEMPTS, ENABLED,
		VERSION, SYSTEM_PROMPT, ADAPTER = SYSTEM_PROMPT + 6
	};
	Oid			types[2] = {NAMEOID, INT4OID};
	Datum		values[2];
	char		nulls[2] = {name == NULL ? 'n' : ' ', name == NULL ? ' ' : 'n'};
	Oid			owner = m1pg_extension_owner();
	M1Guard		guard;
	M1Annotator *a = NULL;
	bool		isnull;

	if (!OidIsValid(owner))
		return NULL;
	values[0] = name == NULL ? (Datum) 0 : DirectFunctionCall1(namein, CStringGetDatum(name));
	values[1] = Int32GetDatum(id);
	guard = m1pg_become(owner, false);
	if (m1pg_query("SELECT * FROM minimax_m1._annotator_get($1, $2)", 2, types, values, nulls, false) == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum	   *columns;

		a = palloc0(sizeof *a);
		a->id = DatumGetInt32(m1pg_result(0, ID, &isnull));
		a->version = m1pg_result_text(context, 0, VERSION);
		a->name = m1pg_result_text(context, 0, NAME);
		a->owner = DatumGetObjectId(m1pg_result(0, OWNER, &isnull));
		a->source = DatumGetObjectId(m1pg_result(0, SOURCE, &isnull));
		deconstruct_array(DatumGetArrayTypeP(m1pg_result(0, KEY_COLUMNS, &isnull)), NAMEOID, NAMEDATALEN, false,
						  TYPALIGN_CHAR, &columns, NULL, &a->n_keys);
		a->key_columns = palloc(a->n_keys * sizeof *a->key_columns);
		for (int i = 0; i < a->n_keys; i++)
			a->key_columns[i] = pstrdup(NameStr(*DatumGetName(columns[i])));
		a->target_column = m1pg_result_text(context, 0, TARGET);
		a->reasoning_column = m1pg_result_text(context, 0, REASONING);
		a->status_column = m1pg_result_text(context, 0, STATUS);
		a->template = m1pg_result_text(context, 0, TEMPLATE);
		a->sync = strcmp(m1pg_result_text(context, 0, MODE), "sync") == 0;
		a->max_attempts = DatumGetInt32(m1pg_result(0, MAX_ATTEMPTS, &isnull));
		a->enabled = DatumGetBool(m1pg_result(0, ENABLED, &isnull));
		a->adapter = m1pg_result_text(context, 0, ADAPTER);
		MemoryContextSwitchTo(old);
		read_options(a, SYSTEM_PROMPT, context);
	}
	m1pg_unbecome(&guard);
	return a;
}
