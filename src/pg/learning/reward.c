/*
 * reward.c
 *	  Finds the function that is a reward, and asks it. It is code that a user has
 *	  written: it may fail, loop, or try to change what it must not. See attempt.c.
 */
#include "pg/learning/reward.h"
#include "pg/attempt.h"
#include "pg/settings.h"

#include <math.h>

#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/* ---- which function ---- */

static List *
names_of(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return stringToQualifiedNameList(name, NULL);
#else
	return stringToQualifiedNameList(name);
#endif
}

static void
check_kind(Oid function, const char *name)
{
	if (get_func_prokind(function) == PROKIND_FUNCTION && !get_func_retset(function) &&
		get_func_rettype(function) == FLOAT8OID)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("minimax_m1: \"%s\" is not a reward", name),
			 errdetail("It returns %s%s; a reward is a function that returns double precision.",
					   get_func_retset(function) ? "a set of " : "",
					   format_type_be(get_func_rettype(function))),
			 errhint("Let it return float8, which is double precision.")));
}

static const Oid argument_types[3] = {TEXTOID, JSONBOID, TEXTOID};

static bool
look_up(List *names, M1Reward *reward)
{
	Oid			types[3];

	memcpy(types, argument_types, sizeof types);
	reward->function = LookupFuncName(names, 3, types, true);
	reward->wants_reasoning = OidIsValid(reward->function);
	if (!reward->wants_reasoning)
		reward->function = LookupFuncName(names, 2, types, true);
	return OidIsValid(reward->function);
}

/* The functions of the name, whatever they take; NULL = there is none. */
static char *
functions_named(List *names)
{
	StringInfoData s;

	initStringInfo(&s);
	for (FuncCandidateList c = FuncnameGetCandidates(names, -1, NIL, false, false, false, true); c != NULL; c = c->next)
		appendStringInfo(&s, "%s%s", s.len > 0 ? ", " : "", format_procedure(c->oid));
	return s.len > 0 ? s.data : NULL;
}

/* `names`: NIL where it was looked for by its arguments. */
static void
no_reward(const char *signature, List *names)
{
	char	   *others = names != NIL ? functions_named(names) : NULL;

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("minimax_m1: there is no reward %s", signature),
			 others != NULL ? errdetail("What there is of that name is %s.", others) : 0,
			 errhint("A reward is a function (answer text, example jsonb [, reasoning text]) that returns float8.")));
}

static bool
has_arguments(const char *name)
{
	Size		n = strlen(name);

	return n > 0 && name[n - 1] == ')';
}

/* Raises that its arguments are not those of a reward. */
static void
look_at_arguments(M1Reward *reward)
{
	Oid		   *types;
	int			n;

	(void) get_func_signature(reward->function, &types, &n);
	reward->wants_reasoning = n == 3;
	if ((n != 2 && n != 3) || memcmp(types, argument_types, n * sizeof *types) != 0)
		no_reward(reward->name, NIL);
}

static void
check_function(const M1Reward *reward)
{
	check_kind(reward->function, reward->name);
	m1pg_check_execute(reward->function, reward->name);
}

static void
find_by_name(const char *name, M1Reward *reward)
{
	List	   *names = names_of(name);

	/* the ready ones need no schema before their names */
	if (!look_up(names, reward) &&
		!(list_length(names) == 1 && look_up(lcons(makeString("minimax_m1"), list_copy(names)), reward)))
		no_reward(psprintf("%s(text, jsonb)", name), names);
}

static void
find_by_signature(const char *signature, M1Reward *reward)
{
	reward->function = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(signature)));
	look_at_arguments(reward);
}

void
m1pg_reward_find(const char *name, M1Reward *reward)
{
	reward->name = pstrdup(name);
	if (has_arguments(name))
		find_by_signature(name, reward);
	else
		find_by_name(name, reward);
	check_function(reward);
}

char *
m1pg_reward_signature(const M1Reward *reward)
{
	return psprintf("%s(text,jsonb%s)",
					quote_qualified_identifier(get_namespace_name(get_func_namespace(reward->function)),
											   get_func_name(reward->function)),
					reward->wants_reasoning ? ",text" : "");
}

void
m1pg_reward_find_again(Oid function, const char *signature, M1Reward *reward)
{
	reward->name = pstrdup(signature);
	reward->function = function;
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(function)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("minimax_m1: the reward %s was dropped", signature),
				 errdetail("One that was made since is another one, whatever its name."),
				 errhint("resume_training looks for it by its name again.")));
	look_at_arguments(reward);
	check_function(reward);
}

/* ---- the call ---- */

typedef struct Call
{
	const M1Reward *reward;
	const M1Graded *graded;
	double		value;
} Call;

/* Beyond this, what rewards of a group differ by is no number for the model. */
#define MOST_REWARD 1e30

static void
check_value(const char *name, double value)
{
	if (fabs(value) <= MOST_REWARD)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("minimax_m1: the reward \"%s\" is %s", name,
					isnan(value) ? "not a number" : isinf(value) ? "infinite" : psprintf("%g", value)),
			 isfinite(value) ? errdetail("It must be between %g and %g.", -MOST_REWARD, MOST_REWARD) : 0,
			 errhint("Let it return NULL where it has no opinion.")));
}

/* An attempt. What one call has left in the function's state, rolled back, is not for the next. */
static void
ask(void *arg)
{
	Call	   *call = arg;
	LOCAL_FCINFO(fcinfo, 3);
	FmgrInfo	function;
	Datum		value;

	m1pg_check_execute(call->reward->function, call->reward->name);
	fmgr_info(call->reward->function, &function);
	InitFunctionCallInfoData(*fcinfo, &function, call->reward->wants_reasoning ? 3 : 2, DEFAULT_COLLATION_OID, NULL,
							 NULL);
	fcinfo->args[0] = (NullableDatum) {PointerGetDatum(call->graded->answer), false};
	fcinfo->args[1] = (NullableDatum) {PointerGetDatum(call->graded->example), false};
	fcinfo->args[2] = (NullableDatum) {PointerGetDatum(call->graded->reasoning), false};
	value = FunctionCallInvoke(fcinfo);
	call->value = fcinfo->isnull ? get_float8_nan() : DatumGetFloat8(value);
	if (!fcinfo->isnull)
		check_value(call->reward->name, call->value);
}

static void
explain(ErrorData *error, const char *name)
{
	error->message = psprintf("minimax_m1: the reward \"%s\" took longer than %d ms", name, m1pg_reward_timeout);
	error->hint = "Let it do less, or raise minimax_m1.reward_timeout.";
}

ErrorData *
m1pg_reward_call(const M1Reward *reward, Oid role, const M1Graded *graded, double *value)
{
	Call		call = {.reward = reward, .graded = graded, .value = get_float8_nan()};
	M1Attempt	attempt = {
		.run = ask, .arg = &call, .read_only = true, .role = role, .limit_ms = m1pg_reward_timeout
	};
	ErrorData  *error = m1pg_attempt(&attempt);

	*value = error == NULL ? call.value : get_float8_nan();
	if (error != NULL && attempt.out_of_time)
		explain(error, reward->name);
	return error;
}
