/*
 * agent_call.c
 *	  What agents need from C: the schema of a type, whose rights count, and the
 *	  call of a function with arguments that the model has written.
 *
 *	  A call is a statement over names that the catalog has, with all arguments as
 *	  one parameter of JSON, of which the database makes values of their types. What
 *	  it was resolved to must be the very function that was listed, and the current
 *	  user must have the right to execute it, each time.
 */
#include "pg/attempt.h"
#include "pg/functions/type_schema.h"
#include "pg/shared.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(m1pg_agent_schema);
PG_FUNCTION_INFO_V1(m1pg_agent_in_definer);
PG_FUNCTION_INFO_V1(m1pg_agent_call);

/* _agent_schema(type, nullable) */
Datum
m1pg_agent_schema(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(m1pg_schema_of_type(PG_GETARG_OID(0), PG_GETARG_BOOL(1))));
}

/* _agent_in_definer(): the first that an agent asks. */
Datum
m1pg_agent_in_definer(PG_FUNCTION_ARGS)
{
	m1pg_require_shared();
	PG_RETURN_BOOL(InLocalUserIdChange());
}

/* ---- the statement ---- */

typedef struct Call
{
	Oid			function;
	Datum		arguments;		/* json */
	const char *path;			/* the search_path that the function finds */
	int			most_rows;
	char	   *body;			/* out */
	uint64		n_rows;
} Call;

/* The keys of a JSON object. */
static List *
keys_of(Datum arguments)
{
	Oid			types[1] = {JSONOID};
	List	   *keys = NIL;

	if (SPI_execute_with_args("SELECT pg_catalog.json_object_keys($1)", 1, types, &arguments, NULL, true, 0) < 0)
		elog(ERROR, "minimax_m1: the arguments of a call cannot be read");
	for (uint64 i = 0; i < SPI_processed; i++)
		keys = lappend(keys, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	return keys;
}

static bool
has_key(List *keys, const char *name)
{
	ListCell   *cell;

	foreach(cell, keys)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/*
 * The columns that the arguments become, and how they are passed: those that the call gives, in their order. Each key
 * must be one of the function's.
 */
static void
append_arguments(HeapTuple tuple, List *keys, StringInfo columns, StringInfo passed)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	const int	n = get_func_arg_info(tuple, &types, &names, &modes);
	int			found = 0;

	for (int i = 0; i < n; i++)
	{
		if ((modes != NULL && modes[i] != PROARGMODE_IN && modes[i] != PROARGMODE_INOUT) ||
			names == NULL || !has_key(keys, names[i]))
			continue;
		appendStringInfo(columns, "%s%s %s", found > 0 ? ", " : "", quote_identifier(names[i]),
						 format_type_be_qualified(types[i]));
		appendStringInfo(passed, "%s%s => a.%s", found > 0 ? ", " : "", quote_identifier(names[i]),
						 quote_identifier(names[i]));
		found++;
	}
	if (found < list_length(keys))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_PARAMETER), errmsg("the call has an argument that the tool does not take")));
}

/* The name of the only column, if it has one: what a function returns then has lost it. */
static const char *
only_column(HeapTuple tuple)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	const int	n = get_func_arg_info(tuple, &types, &names, &modes);
	const char *name = NULL;
	int			found = 0;

	for (int i = 0; i < n && modes != NULL; i++)
		if (modes[i] == PROARGMODE_OUT || modes[i] == PROARGMODE_INOUT || modes[i] == PROARGMODE_TABLE)
		{
			name = names[i];
			found++;
		}
	return found == 1 && name[0] != '\0' ? name : NULL;
}

/* What is selected of the function f: JSON, or a text as it is. */
static const char *
result_of(HeapTuple tuple)
{
	const Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
	const char *column = only_column(tuple);

	if (column != NULL)
		return psprintf("pg_catalog.jsonb_build_object(%s, f)", quote_literal_cstr(column));
	return proc->prorettype == TEXTOID && !proc->proretset ? "f::pg_catalog.text" : "pg_catalog.to_jsonb(f)";
}

static char *
statement_of(const Call *call)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->function));
	Form_pg_proc proc;
	StringInfoData sql;
	StringInfoData columns;
	StringInfoData passed;
	List	   *keys = keys_of(call->arguments);

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION), errmsg("the tool does not exist any more")));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	initStringInfo(&sql);
	initStringInfo(&columns);
	initStringInfo(&passed);
	append_arguments(tuple, keys, &columns, &passed);
	appendStringInfo(&sql, "SELECT %s FROM ", result_of(tuple));
	if (columns.len > 0)
		appendStringInfo(&sql, "pg_catalog.json_to_record($1) AS a(%s), LATERAL ", columns.data);
	appendStringInfo(&sql, "%s(%s) AS f", quote_qualified_identifier(get_namespace_name(proc->pronamespace),
																	 NameStr(proc->proname)), passed.data);
	ReleaseSysCache(tuple);
	return sql.data;
}

/* Another function of the same name may fit the arguments, too. */
static void
check_resolved(SPIPlanPtr plan, Oid function)
{
	const CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	const Query *query = linitial(source->query_list);
	ListCell   *cell;

	foreach(cell, query->rtable)
	{
		const RangeTblEntry *rte = lfirst(cell);
		const RangeTblFunction *f = rte->rtekind == RTE_FUNCTION ? linitial(rte->functions) : NULL;

		if (f != NULL && IsA(f->funcexpr, FuncExpr) && ((const FuncExpr *) f->funcexpr)->funcid == function)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
			 errmsg("another function with the name of the tool takes these arguments")));
}

/* ---- what it returned ---- */

static void
append_row(StringInfo s, uint64 i)
{
	const char *value = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

	appendStringInfoString(s, value != NULL ? value : "null");
}

/* One value, or those of a set as an array, of which no more than so many are shown. */
static void
read_rows(const Call *call, StringInfo s)
{
	const uint64 shown = Min(SPI_processed, (uint64) call->most_rows);

	if (!get_func_retset(call->function))
	{
		append_row(s, 0);
		return;
	}
	appendStringInfoChar(s, '[');
	for (uint64 i = 0; i < shown; i++)
	{
		if (i > 0)
			appendStringInfoString(s, ", ");
		append_row(s, i);
	}
	appendStringInfoChar(s, ']');
	if (SPI_processed > shown)
		appendStringInfo(s, "\n[cut: there are more rows, of which " UINT64_FORMAT " are shown]", shown);
}

/* An attempt. */
static void
run_call(void *arg)
{
	Call	   *call = arg;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[1] = {JSONOID};
	StringInfoData s;
	SPIPlanPtr	plan;

	m1pg_check_execute(call->function, get_func_name(call->function));
	SPI_connect();
	if ((plan = SPI_prepare(statement_of(call), 1, types)) == NULL)
		elog(ERROR, "minimax_m1: %s", SPI_result_code_string(SPI_result));
	check_resolved(plan, call->function);
	(void) set_config_option("search_path", call->path, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_execute_plan(plan, &call->arguments, NULL, false, call->most_rows + 1L) < 0)
		elog(ERROR, "minimax_m1: %s", SPI_result_code_string(SPI_result));
	initStringInfo(&s);
	read_rows(call, &s);
	call->n_rows = get_func_rettype(call->function) == VOIDOID ? 0 : SPI_processed;
	call->body = MemoryContextStrdup(context, s.data);
	SPI_finish();
}

/* What the model is told of an error: what it might mend. */
static text *
text_of_error(const ErrorData *error, bool out_of_time, int limit_ms)
{
	StringInfoData s;

	initStringInfo(&s);
	if (out_of_time)
		appendStringInfo(&s, "the call took longer than %d ms", limit_ms);
	else
	{
		appendStringInfoString(&s, error->message);
		if (error->detail != NULL)
			appendStringInfo(&s, ": %s", error->detail);
		if (error->hint != NULL)
			appendStringInfo(&s, " %s", error->hint);
	}
	return cstring_to_text(s.data);
}

/* What was dropped meanwhile is not; the attempt says so. */
static bool
is_volatile(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		is = HeapTupleIsValid(tuple) && ((Form_pg_proc) GETSTRUCT(tuple))->provolatile == PROVOLATILE_VOLATILE;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return is;
}

/* _agent_call(function, arguments, read_only, limit_ms, max_rows, path) */
Datum
m1pg_agent_call(PG_FUNCTION_ARGS)
{
	Call		call = {.function = PG_GETARG_OID(0), .arguments = PG_GETARG_DATUM(1), .most_rows = PG_GETARG_INT32(4)};
	M1Attempt	attempt = {.run = run_call, .arg = &call, .role = GetUserId(), .limit_ms = PG_GETARG_INT32(3)};
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, false};
	TupleDesc	tupdesc;
	ErrorData  *error;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	call.path = text_to_cstring(PG_GETARG_TEXT_PP(5));
	attempt.read_only = PG_GETARG_BOOL(2) || !is_volatile(call.function);
	attempt.keep = !attempt.read_only;
	error = m1pg_attempt(&attempt);
	nulls[error == NULL ? 0 : 1] = false;
	if (error == NULL)
		values[0] = CStringGetTextDatum(call.body);
	else
		values[1] = PointerGetDatum(text_of_error(error, attempt.out_of_time, attempt.limit_ms));
	values[2] = Int64GetDatum((int64) (error == NULL ? call.n_rows : 0));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
