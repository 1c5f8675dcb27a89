/*
 * annotate.c
 *	  annotate(): a BEFORE row trigger that fills a column from a prompt over
 *	  other columns of the row.
 */
#include "pg/client/request.h"
#include "pg/client/template.h"
#include "pg/client/texts.h"

#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(m1pg_annotate);

static char *
generate(const M1BoundTemplate *t, const char *prompt, int max_tokens)
{
	m1w_generate g;
	M1Result	result;

	m1pg_default_request(&g);
	if (max_tokens > 0)
		g.max_tokens = max_tokens;
	g.prompt = m1pg_to_utf8(prompt, strlen(prompt));
	g.template_len = m1pg_template_shared_len(&t->text);
	m1pg_run(&g, "annotate", &result);
	return text_to_cstring(m1pg_text_from_utf8(result.done.content));
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

/* PostgreSQL computes them after this trigger, which sees NULL in them, and whose value they would not keep. */
static void
check_not_generated(TupleDesc tupdesc, int number)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, number - 1);

	if (att->attgenerated == '\0')
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1.annotate: column \"%s\" is generated", NameStr(att->attname)),
			 errdetail("It is computed after the triggers BEFORE, so it can be neither filled nor read."),
			 errhint("An asynchronous annotator can have generated columns in its template.")));
}

/* INSERT and UPDATE refuse other values than their own; a trigger would pass that by. */
static void
check_not_identity(TupleDesc tupdesc, int number)
{
	Form_pg_attribute att = TupleDescAttr(tupdesc, number - 1);

	if (att->attidentity != ATTRIBUTE_IDENTITY_ALWAYS)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1.annotate: column \"%s\" is always an identity", NameStr(att->attname)),
			 errdetail("It is numbered by itself, and cannot be filled.")));
}

static void
check_columns(TupleDesc tupdesc, int target, const M1BoundTemplate *template)
{
	check_not_generated(tupdesc, target);
	check_not_identity(tupdesc, target);
	for (int i = 0; i < template->text.n; i++)
		check_not_generated(tupdesc, template->number[i]);
}

Datum
m1pg_annotate(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	char	  **args;
	TupleDesc	tupdesc;
	HeapTuple	row;
	M1BoundTemplate template;
	int			target;
	int			max_tokens = 0;
	char	   *prompt;

	check_call(fcinfo);
	args = data->tg_trigger->tgargs;
	tupdesc = RelationGetDescr(data->tg_relation);
	target = m1pg_column_number(data->tg_relation, args[0]);
	m1pg_template_bind(&template, args[1], data->tg_relation);
	check_columns(tupdesc, target, &template);
	if (data->tg_trigger->tgnargs == 3)
		max_tokens = m1pg_check_max_tokens(pg_strtoint32(args[2]));
	row = data->tg_trigtuple;
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		/* An update that touches no column of the prompt keeps the annotation. */
		row = data->tg_newtuple;
		if (m1pg_template_same_inputs(&template, data->tg_trigtuple, row, tupdesc))
			return PointerGetDatum(row);
	}
	prompt = m1pg_template_render_row(&template, row, tupdesc);
	return PointerGetDatum(m1pg_set_column(row, tupdesc, target,
										   prompt != NULL ? generate(&template, prompt, max_tokens) : NULL));
}
