/*
 * planner.c
 *	  The planner support function of everything that runs the model: what a call
 *	  costs, and how many rows a stream has.
 *
 *	  COST in the install script makes a call dearer than any condition that does
 *	  not run the model, so those are tested first in whatever order they are
 *	  written. This orders the calls among themselves: by the length of the
 *	  prompt, as far as constants and statistics tell it, and by max_tokens. The
 *	  numbers are proportions of a model's work, not measurements: plans do not
 *	  change with the load.
 */
#include "pg/m1pg.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(m1pg_call_support);

/* In units of cpu_operator_cost, as COST is. A prompt of 50 tokens and a reply of 60 cost about what COST says. */
#define CALL_COST			200000.0
#define PROMPT_TOKEN_COST	1000.0
#define REPLY_TOKEN_COST	12500.0

#define BYTES_PER_TOKEN		4.0
#define TYPICAL_PROMPT_BYTES 200.0	/* of an expression of which nothing is known */
#define TYPICAL_REPLY_TOKENS 60.0
#define TYPICAL_DELTAS		100.0	/* rows of a stream, as the install script says */

/* The arguments of a call, with the names that the function gives them. */
typedef struct Call
{
	PlannerInfo *root;			/* may be NULL */
	List	   *args;
	char	  **names;
	int			n_names;
} Call;

/* false when the node is no plain call. */
static bool
read_call(PlannerInfo *root, Node *node, Oid funcid, Call *call)
{
	HeapTuple	tuple;
	Oid		   *types;
	char	   *modes;

	if (node == NULL || !IsA(node, FuncExpr))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	call->root = root;
	call->args = ((FuncExpr *) node)->args;
	call->names = NULL;
	call->n_names = get_func_arg_info(tuple, &types, &call->names, &modes);
	ReleaseSysCache(tuple);
	return true;
}

/* Input arguments come first in the list of names. */
static Node *
named_argument(const Call *call, const char *name)
{
	for (int i = 0; call->names != NULL && i < Min(call->n_names, list_length(call->args)); i++)
		if (call->names[i] != NULL && strcmp(call->names[i], name) == 0)
			return list_nth(call->args, i);
	return NULL;
}

/* The average of a table's column, if it was analyzed; else 0. */
static int32
column_width(PlannerInfo *root, const Var *var)
{
	RangeTblEntry *rte;

	if (var->varlevelsup > 0 || IS_SPECIAL_VARNO(var->varno) || var->varno > list_length(root->parse->rtable))
		return 0;
	rte = rt_fetch(var->varno, root->parse->rtable);
	return rte->rtekind == RTE_RELATION ? get_attavgwidth(rte->relid, var->varattno) : 0;
}

/* Bytes that an argument is likely to add to the prompt. */
static double
bytes_of(const Call *call, Node *arg)
{
	if (IsA(arg, Const))
	{
		Const	   *c = (Const *) arg;

		return c->constisnull || c->constlen != -1 ? 0 : VARSIZE_ANY_EXHDR(DatumGetPointer(c->constvalue));
	}
	if (IsA(arg, Var) && call->root != NULL)
	{
		const Var  *var = (Var *) arg;
		int32		width = column_width(call->root, var);

		if (width > 0)
			return width;
	}
	return TYPICAL_PROMPT_BYTES;
}

/* Texts, arrays of them and JSON; the other arguments are numbers, names and rows. */
static bool
is_part_of_prompt(Oid type)
{
	return get_typlen(type) == -1 && get_typtype(type) == TYPTYPE_BASE;
}

static double
prompt_tokens(const Call *call)
{
	double		bytes = 0;
	ListCell   *cell;

	foreach(cell, call->args)
	{
		if (is_part_of_prompt(exprType(lfirst(cell))))
			bytes += bytes_of(call, lfirst(cell));
	}
	return bytes / BYTES_PER_TOKEN;
}

/* What max_tokens allows; infinity when the plan does not tell. */
static double
most_reply_tokens(const Call *call)
{
	Node	   *arg = named_argument(call, "max_tokens");

	if (arg != NULL && IsA(arg, Const) && !((Const *) arg)->constisnull && exprType(arg) == INT4OID)
		return Max(1, DatumGetInt32(((Const *) arg)->constvalue));
	return INFINITY;
}

static bool
set_cost(SupportRequestCost *request)
{
	Call		call;

	if (!read_call(request->root, request->node, request->funcid, &call))
		return false;
	request->startup = 0;
	request->per_tuple = cpu_operator_cost *
		(CALL_COST + PROMPT_TOKEN_COST * prompt_tokens(&call) +
		 REPLY_TOKEN_COST * Min(most_reply_tokens(&call), TYPICAL_REPLY_TOKENS));
	return true;
}

static bool
set_rows(SupportRequestRows *request)
{
	Call		call;

	if (!read_call(request->root, request->node, request->funcid, &call) || isinf(most_reply_tokens(&call)))
		return false;
	request->rows = Min(most_reply_tokens(&call), TYPICAL_DELTAS);
	return true;
}

Datum
m1pg_call_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	bool		known = false;

	if (IsA(request, SupportRequestCost))
		known = set_cost((SupportRequestCost *) request);
	else if (IsA(request, SupportRequestRows))
		known = set_rows((SupportRequestRows *) request);
	PG_RETURN_POINTER(known ? request : NULL);
}
