/*
 * guard.c
 *	  Acting as another role, with nothing that the session has set in the way;
 *	  and the gate through which users reach what only the extension's owner may do.
 *
 *	  A guard ends with m1pg_unbecome, or with its (sub)transaction: an error
 *	  needs no clean-up.
 */
#include "pg/jobs/guard.h"
#include "pg/report.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(m1pg_gate);
PG_FUNCTION_INFO_V1(m1pg_run_as);
PG_FUNCTION_INFO_V1(m1pg_depend);

void
m1pg_set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

M1Guard
m1pg_become(Oid role, bool restricted)
{
	M1Guard		guard;

	GetUserIdAndSecContext(&guard.userid, &guard.context);
	SetUserIdAndSecContext(role, guard.context | SECURITY_LOCAL_USERID_CHANGE |
						   (restricted ? SECURITY_RESTRICTED_OPERATION : 0));
	guard.nest = NewGUCNestLevel();
	m1pg_set_for_now("search_path", "pg_catalog, pg_temp");
	/* as postgres_fdw does, so that a key is read as what was written */
	m1pg_set_for_now("datestyle", "ISO");
	m1pg_set_for_now("intervalstyle", "postgres");
	m1pg_set_for_now("extra_float_digits", "3");
	m1pg_set_for_now("bytea_output", "hex");
	m1pg_set_for_now("timezone", "GMT");
	return guard;
}

void
m1pg_unbecome(const M1Guard *guard)
{
	AtEOXact_GUC(false, guard->nest);
	SetUserIdAndSecContext(guard->userid, guard->context);
}

Oid
m1pg_extension_owner(void)
{
	Oid			nsp = get_namespace_oid("minimax_m1", true);
	Oid			rel = OidIsValid(nsp) ? get_relname_relid("job", nsp) : InvalidOid;
	Oid			extension;
	HeapTuple	tuple;
	Oid			owner;

	if (!OidIsValid(rel))
		return InvalidOid;
	/* whoever may create schemas can make a table of that name */
	extension = get_extension_oid("minimax_m1", true);
	if (!OidIsValid(extension) || getExtensionOfObject(RelationRelationId, rel) != extension)
		return InvalidOid;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(rel));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* ---- what the extension's own SQL says ---- */

/* In PG_CATCH. What it says of a caller's mistake needs no tale of functions and statements that nobody has called. */
static void
raise_without_context(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (m1pg_own_message(error->message) == NULL)
		PG_RE_THROW();
	FlushErrorState();
	error->context = NULL;
	/* the contexts around this one are told by it */
	ThrowErrorData(error);
}

/* ---- SPI ---- */

static int
execute(const char *sql, int n, Oid *types, Datum *values, const char *nulls, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	volatile int rc = 0;

	PG_TRY();
	{
		rc = SPI_execute_with_args(sql, n, types, values, nulls, read_only, 0);
	}
	PG_CATCH();
	{
		raise_without_context(context);
	}
	PG_END_TRY();
	return rc;
}

uint64
m1pg_query(const char *sql, int n, Oid *types, Datum *values, const char *nulls, bool read_only)
{
	int			rc = execute(sql, n, types, values, nulls, read_only);

	if (rc < 0)
		elog(ERROR, "minimax_m1: %s in \"%s\"", SPI_result_code_string(rc), sql);
	return SPI_processed;
}

Datum
m1pg_result(uint64 i, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column, isnull);
}

char *
m1pg_result_text(MemoryContext context, uint64 i, int column)
{
	char	   *s = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column);

	return s == NULL ? NULL : MemoryContextStrdup(context, s);
}

char **
m1pg_text_array(ArrayType *array, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	char	  **strings;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	strings = palloc(Max(*n, 1) * sizeof *strings);
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("minimax_m1: NULL in an array of texts")));
		strings[i] = TextDatumGetCString(values[i]);
	}
	return strings;
}

ArrayType *
m1pg_array_of_texts(char *const *strings, int n)
{
	Datum	   *texts = palloc(Max(n, 1) * sizeof *texts);

	for (int i = 0; i < n; i++)
		texts[i] = CStringGetTextDatum(strings[i]);
	return construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* ---- the gate ---- */

/* The internal function behind a public one: the same name with an underscore, and the caller before the arguments. */
static Oid
internal_function(Oid public)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(public));
	Form_pg_proc proc;
	Oid			types[FUNC_MAX_ARGS];
	char	   *name;
	Oid			nsp;
	int			n;
	Oid			internal;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", public);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	n = proc->pronargs;
	nsp = proc->pronamespace;
	name = psprintf("_%s", NameStr(proc->proname));
	types[0] = OIDOID;
	memcpy(types + 1, proc->proargtypes.values, Min(n, FUNC_MAX_ARGS - 1) * sizeof(Oid));
	ReleaseSysCache(tuple);
	internal = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
							   PointerGetDatum(buildoidvector(types, n + 1)), ObjectIdGetDatum(nsp));
	if (!OidIsValid(internal))
		elog(ERROR, "minimax_m1: there is no function %s", name);
	return internal;
}

static Datum
call_internal(FunctionCallInfo call)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = FunctionCallInvoke(call);
	}
	PG_CATCH();
	{
		raise_without_context(context);
	}
	PG_END_TRY();
	return result;
}

Datum
m1pg_gate(PG_FUNCTION_ARGS)
{
	FmgrInfo   *internal = fcinfo->flinfo->fn_extra;
	LOCAL_FCINFO(call, FUNC_MAX_ARGS);
	Oid			caller = GetUserId();
	M1Guard		guard;
	Datum		result;

	if (internal == NULL)
	{
		internal = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof *internal);
		fmgr_info_cxt(internal_function(fcinfo->flinfo->fn_oid), internal, fcinfo->flinfo->fn_mcxt);
		fcinfo->flinfo->fn_extra = internal;
	}
	InitFunctionCallInfoData(*call, internal, fcinfo->nargs + 1, fcinfo->fncollation, NULL, NULL);
	call->args[0].value = ObjectIdGetDatum(caller);
	call->args[0].isnull = false;
	memcpy(&call->args[1], fcinfo->args, fcinfo->nargs * sizeof fcinfo->args[0]);
	guard = m1pg_become(m1pg_extension_owner(), false);
	result = call_internal(call);
	m1pg_unbecome(&guard);
	fcinfo->isnull = call->isnull;
	return result;
}

/* ---- for the SQL side of annotators ---- */

void
m1pg_require_owner(FunctionCallInfo fcinfo)
{
	if (GetUserId() != m1pg_extension_owner() && !superuser())
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(fcinfo->flinfo->fn_oid));
}

/* _run_as(role, statement) */
Datum
m1pg_run_as(PG_FUNCTION_ARGS)
{
	const char *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	M1Guard		guard;

	m1pg_require_owner(fcinfo);
	SPI_connect();
	guard = m1pg_become(PG_GETARG_OID(0), true);
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "minimax_m1: could not execute \"%s\"", sql);
	m1pg_unbecome(&guard);
	SPI_finish();
	PG_RETURN_VOID();
}

/* _depend(trigger, class, object, columns): its dependencies on objects of that class are these. */
Datum
m1pg_depend(PG_FUNCTION_ARGS)
{
	ArrayType  *columns = PG_GETARG_ARRAYTYPE_P(3);
	ObjectAddress trigger;
	ObjectAddress on;
	Datum	   *numbers;
	int			n;

	m1pg_require_owner(fcinfo);
	ObjectAddressSet(trigger, TriggerRelationId, PG_GETARG_OID(0));
	deleteDependencyRecordsForClass(TriggerRelationId, trigger.objectId, PG_GETARG_OID(1), DEPENDENCY_NORMAL);
	deconstruct_array(columns, INT2OID, sizeof(int16), true, TYPALIGN_SHORT, &numbers, NULL, &n);
	for (int i = 0; i < n; i++)
	{
		ObjectAddressSubSet(on, PG_GETARG_OID(1), PG_GETARG_OID(2), DatumGetInt16(numbers[i]));
		recordDependencyOn(&trigger, &on, DEPENDENCY_NORMAL);
	}
	PG_RETURN_VOID();
}
