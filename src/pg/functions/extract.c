/*
 * extract.c
 *	  extract(): a row of a composite type from a text. The type is the schema
 *	  that constrains the answer; the answer becomes a row as by
 *	  jsonb_populate_record(), column by column, so that an error names its column.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/functions/type_schema.h"
#include "pg/report.h"
#include "pg/settings.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(m1pg_extract);
PG_FUNCTION_INFO_V1(m1pg_extract_task);
PG_FUNCTION_INFO_V1(m1pg_extract_schema);

/* What to make of an answer. */
typedef struct Target
{
	Oid			type;			/* as the caller named it, perhaps a domain */
	Oid			row_type;		/* the composite type itself */
	TupleDesc	tupdesc;
} Target;

static void
find_target(Oid type, Target *target)
{
	target->type = type;
	target->row_type = getBaseType(target->type);
	if (get_typtype(target->row_type) != TYPTYPE_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("minimax_m1: %s is not a composite type", format_type_be(target->type)),
				 errhint("Give NULL::some_type, where some_type is a table or was made with "
						 "CREATE TYPE ... AS (...).")));
	target->tupdesc = lookup_rowtype_tupdesc_copy(target->row_type, -1);
	if (m1pg_names_of_row(target->tupdesc)[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("minimax_m1: type %s has no columns", format_type_be(target->type))));
}

/* What is asked before the document. */
static char *
task_of(const Target *target)
{
	return psprintf("Extract %s as JSON.", m1pg_names_of_row(target->tupdesc));
}

/* ---- conversion ---- */

/* jsonb_populate_record() finds the row type in its call expression. */
static void
find_populate(Oid row_type, FmgrInfo *populate)
{
	List	   *args = list_make2(makeNullConst(row_type, -1, InvalidOid), makeNullConst(JSONBOID, -1, InvalidOid));

	fmgr_info(F_JSONB_POPULATE_RECORD, populate);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD, row_type, args, InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL), populate);
}

/* {name: value}, the value being that of the object. */
static Jsonb *
one_member(Jsonb *object, const char *name)
{
	int			len = strlen(name);
	JsonbValue	key = {.type = jbvString, .val.string = {.len = len, .val = unconstify(char *, name)}};
	JsonbValue *value = getKeyJsonValueFromContainer(&object->root, name, len, NULL);
	JsonbValue	null = {.type = jbvNull};
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &key);
	pushJsonbValue(&state, WJB_VALUE, value != NULL ? value : &null);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
name_column(void *arg)
{
	Form_pg_attribute att = arg;

	errcontext("column \"%s\" of an extracted row", NameStr(att->attname));
}

static Datum
row_of_nulls(TupleDesc tupdesc)
{
	Datum	   *values = palloc0(tupdesc->natts * sizeof *values);
	bool	   *nulls = palloc(tupdesc->natts * sizeof *nulls);

	memset(nulls, true, tupdesc->natts * sizeof *nulls);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

static Datum
convert(const Target *target, const char *answer)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
	Datum		row = row_of_nulls(target->tupdesc);
	FmgrInfo	populate;

	find_populate(target->row_type, &populate);
	for (int i = 0; i < target->tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->tupdesc, i);
		ErrorContextCallback context = {.previous = error_context_stack, .callback = name_column, .arg = att};

		if (att->attisdropped)
			continue;
		error_context_stack = &context;
		row = FunctionCall2(&populate, row, JsonbPGetDatum(one_member(object, NameStr(att->attname))));
		error_context_stack = context.previous;
	}
	if (target->type != target->row_type)
		domain_check(row, false, target->type, NULL, NULL);
	return row;
}

/* What a value may do to its own row; the rest is the server's or the user's business. */
static bool
may_become_null(int sqlstate)
{
	int			class = ERRCODE_TO_CATEGORY(sqlstate);

	return class != ERRCODE_TO_CATEGORY(ERRCODE_QUERY_CANCELED) &&
		class != ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) &&
		class != ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR);
}

/* In a subtransaction: input functions and the checks of domains are anybody's code. */
static bool
try_convert(const Target *target, const char *answer, Datum *row)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool converted = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*row = convert(target, answer);
		ReleaseCurrentSubTransaction();
		converted = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = owner;
		if (!may_become_null(error->sqlerrcode))
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return converted;
}

/* extract(document, NULL::some_type) */
Datum
m1pg_extract(PG_FUNCTION_ARGS)
{
	Target		target;
	m1w_generate g;
	m1_error	error;
	char	   *answer;
	Datum		row;

	if (!OidIsValid(get_fn_expr_argtype(fcinfo->flinfo, 1)))
		elog(ERROR, "minimax_m1: the type of extract's target is not known");
	find_target(get_fn_expr_argtype(fcinfo->flinfo, 1), &target);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	m1pg_default_request(&g);
	m1pg_constrain(&g, M1W_CONSTRAINT_JSON_SCHEMA, m1pg_schema_of_row(target.tupdesc));
	if (!m1pg_read_task(&g, task_of(&target), PG_GETARG_TEXT_PP(0), &error) ||
		!m1pg_run_constrained(&g, "extract", &answer, &error))
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	if (m1pg_on_error == M1_ON_ERROR_RAISE)
		return convert(&target, answer);
	if (!try_convert(&target, answer, &row))
		PG_RETURN_NULL();
	return row;
}

/* _task_extract(type): what extract() asks before the document */
Datum
m1pg_extract_task(PG_FUNCTION_ARGS)
{
	Target		target;

	find_target(PG_GETARG_OID(0), &target);
	PG_RETURN_TEXT_P(cstring_to_text(task_of(&target)));
}

/* _task_schema(type): the JSON Schema that its answer follows */
Datum
m1pg_extract_schema(PG_FUNCTION_ARGS)
{
	Target		target;

	find_target(PG_GETARG_OID(0), &target);
	PG_RETURN_TEXT_P(cstring_to_text(m1pg_schema_of_row(target.tupdesc)));
}
