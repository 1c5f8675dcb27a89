/*
 * train_function.c
 *	  train(): what is asked is checked, and its rows are read, as whoever calls.
 *	  The rest is SQL behind this (sql/install/81_training.sql), which queues the
 *	  training; its runner begins when the transaction has committed.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/parameters.h"
#include "pg/learning/examples.h"
#include "pg/learning/reward.h"
#include "pg/learning/rewards.h"
#include "pg/learning/served_adapter.h"
#include "pg/learning/training.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(m1pg_train);

/* The rows of a query are one value for the SQL behind this, and those of both queries are: of 1 GB at most. */
#define MOST_BYTES	(400 * 1024 * 1024)

enum
{
	NAME, METHOD, EXAMPLES, HOLDOUT, REWARD, STEPS, FIRST_OPTION
};

/* ---- checks ---- */

static void
check_server(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("minimax_m1: a standby trains nothing"),
				 errdetail("A training is kept in tables, and the server is in recovery."),
				 errhint("Train on the primary; its adapters are replicated.")));
	m1pg_require_shared();
	if (m1pg_engine_url[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("minimax_m1: a model that runs elsewhere is not trained"),
				 errdetail("minimax_m1.engine_url is set; servers of other kinds do not train adapters."),
				 errhint("Train on a server with an engine of its own.")));
	if (!m1pg_jobs_can_run())
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the server can start no process that trains"),
				 errhint("Raise max_worker_processes to 4 or more.")));
}

static const char *
method_argument(FunctionCallInfo fcinfo)
{
	const char *method = PG_ARGISNULL(METHOD) ? "cispo" : text_to_cstring(PG_GETARG_TEXT_PP(METHOD));
	M1Method	unused;

	if (!m1pg_training_find_method(method, &unused))
		m1pg_bad_argument(psprintf("there is no method \"%.60s\"", method),
						  "The methods are sft, cispo, grpo, dapo and dr_grpo.");
	return method;
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(NAME) || PG_ARGISNULL(EXAMPLES))
		m1pg_bad_argument("name or examples is NULL", "A training has a name, and a query whose rows it learns from.");
	if (PG_ARGISNULL(STEPS) || PG_GETARG_INT32(STEPS) < 1 || PG_GETARG_INT32(STEPS) > 1000000)
		m1pg_bad_argument("steps is out of range", "It must be between 1 and 1000000.");
}

/* NULL: there is none. */
static M1Reward *
reward_argument(FunctionCallInfo fcinfo, const char *method)
{
	M1Reward   *reward = palloc0(sizeof *reward);

	if (PG_ARGISNULL(REWARD))
	{
		if (strcmp(method, "sft") != 0)
			m1pg_bad_argument(psprintf("the method %s needs a reward", method),
							  "It learns from how good answers are; sft learns from the column answer.");
		return NULL;
	}
	m1pg_reward_find(text_to_cstring(PG_GETARG_TEXT_PP(REWARD)), reward);
	if (isAnyTempNamespace(get_func_namespace(reward->function)))
		m1pg_bad_argument(psprintf("the reward \"%s\" is in pg_temp", reward->name),
						  "It is gone when this session ends, which the training may outlive.");
	return reward;
}

/* The engine alone knows which forms it can follow: it is asked for one token, as each answer will be. */
static void
check_form(const M1TrainingOptions *o, const M1Example *example)
{
	m1w_generate g;
	M1Result	result;

	m1pg_training_request(o, example, &g);
	g.cache_owner = m1pg_cache_owner();
	g.max_tokens = 1;
	m1pg_run(&g, "train", &result);
}

/* The tokens that one request may take at most; where rows are not `answered`, but shown, they are only read. */
static int64
most_tokens(const M1TrainingOptions *o, const M1Examples *examples, bool answered)
{
	int64		most = 0;

	for (int i = 0; i < examples->n; i++)
	{
		m1w_generate g;

		m1pg_training_request(o, &examples->rows[i], &g);
		if (!answered)
			g.max_tokens = 1;
		most = Max(most, m1pg_most_tokens(&g).all);
	}
	return most;
}

/* One that is used up is waited for; but an answer for which it never has room would be waited for in vain. */
static void
check_quota(int64 most)
{
	M1Quota		quota;
	bool		admitted;
	m1_error	error;

	m1pg_quota_of(GetUserId(), &quota);
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	admitted = m1pg_quota_admits(&quota, GetUserId(), most, &error);
	LWLockRelease(m1pg_shared->lock);
	if (!admitted && error.code == M1_E_OVER_QUOTA)
		m1pg_report(&error);
}

/* ---- what the SQL behind this is given ---- */

static Datum
rows_array(const M1Examples *examples)
{
	Datum	   *rows = palloc(Max(examples->n, 1) * sizeof *rows);

	for (int i = 0; i < examples->n; i++)
		rows[i] = JsonbPGetDatum(examples->rows[i].row);
	return PointerGetDatum(construct_array(rows, examples->n, JSONBOID, -1, false, TYPALIGN_INT));
}

static void
add_asked(JsonbParseState **state, M1Example *e, const char *column, char *asked)
{
	JsonbValue	key = {.type = jbvString, .val.string = {strlen(column), (char *) column}};
	JsonbValue	value = {.type = jbvString};
	char	   *in_row = m1pg_example_optional_text(e->row, column);

	if (asked == NULL || (in_row != NULL && strcmp(asked, in_row) == 0))
		return;
	value.val.string.len = strlen(asked);
	value.val.string.val = asked;
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * What a row asks where its JSON does not say the same: a json column there has its keys in another order, a date is
 * written otherwise. NULL: it says the same.
 */
static Jsonb *
asked_of(M1Example *e)
{
	JsonbParseState *state = NULL;
	JsonbValue *all;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	add_asked(&state, e, "prompt", e->prompt);
	add_asked(&state, e, "system_prompt", e->system_prompt);
	add_asked(&state, e, "messages", e->messages);
	add_asked(&state, e, "tools", e->tools);
	all = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return all->val.object.nPairs > 0 ? JsonbValueToJsonb(all) : NULL;
}

static Datum
asked_array(const M1Examples *examples)
{
	Datum	   *asked = palloc0(Max(examples->n, 1) * sizeof *asked);
	bool	   *nulls = palloc(Max(examples->n, 1) * sizeof *nulls);
	int			lower = 1;

	for (int i = 0; i < examples->n; i++)
	{
		Jsonb	   *json = asked_of(&examples->rows[i]);

		nulls[i] = json == NULL;
		if (json != NULL)
			asked[i] = JsonbPGetDatum(json);
	}
	return PointerGetDatum(construct_md_array(asked, nulls, 1, (int *) &examples->n, &lower, JSONBOID, -1, false,
											  TYPALIGN_INT));
}

/* Takes the rows that are held out from the others. */
static void
divide(M1Examples *train, M1Examples *holdout)
{
	int			n = train->n;

	holdout->rows = palloc(n * sizeof *holdout->rows);
	train->n = 0;
	for (int i = 0; i < n; i++)
	{
		M1Examples *part = train->rows[i].held_out ? holdout : train;

		part->rows[part->n++] = train->rows[i];
	}
	if (train->n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("minimax_m1: all rows of the query are held out"),
				 errdetail("None is left to be learnt from."),
				 errhint("train_classify and train_extract hold equal texts out together: where all are equal, give "
						 "holdout.")));
}

/* Each query runs once: what one says at another time may be something else. */
static void
read_rows(FunctionCallInfo fcinfo, M1Examples *train, M1Examples *holdout)
{
	memset(holdout, 0, sizeof *holdout);
	m1pg_examples_read(text_to_cstring(PG_GETARG_TEXT_PP(EXAMPLES)), GetUserId(), 0, MOST_BYTES, train);
	if (train->divided && !PG_ARGISNULL(HOLDOUT))
		m1pg_bad_argument("both holdout and a column held_out are given", "Rows are held out by one of them.");
	if (train->divided)
		divide(train, holdout);
	if (!PG_ARGISNULL(HOLDOUT))
		m1pg_examples_read(text_to_cstring(PG_GETARG_TEXT_PP(HOLDOUT)), GetUserId(), 0, MOST_BYTES, holdout);
}

/* "jsonb_build_object('group_size', $14, ...)": the options by the names of their arguments. */
static char *
options_sql(FunctionCallInfo fcinfo, M1Parameters *p)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	StringInfoData sql;
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tuple, &types, &names, &modes);

	ReleaseSysCache(tuple);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(");
	for (int i = FIRST_OPTION; i < n; i++)
	{
		/* json_text is text, and no other type of them is the extension's */
		m1pg_add_parameter(p, types[i] >= FirstNormalObjectId ? TEXTOID : types[i], fcinfo->args[i].value,
						   PG_ARGISNULL(i));
		appendStringInfo(&sql, "%s%s, $%d", i > FIRST_OPTION ? ", " : "", quote_literal_cstr(names[i]), p->n);
	}
	appendStringInfoString(&sql, "))");
	return sql.data;
}

/* Returns all of the options. */
static Jsonb *
queue(FunctionCallInfo fcinfo, const char *method, const M1Reward *reward, const M1Examples *train,
	  const M1Examples *holdout)
{
	M1Parameters p = {0};
	char	   *options;
	M1Guard		guard;
	bool		isnull;

	m1pg_add_parameter(&p, OIDOID, ObjectIdGetDatum(GetUserId()), false);
	m1pg_add_parameter(&p, NAMEOID, fcinfo->args[NAME].value, false);
	m1pg_add_string(&p, method);
	m1pg_add_parameter(&p, TEXTOID, fcinfo->args[EXAMPLES].value, false);
	m1pg_add_parameter(&p, TEXTOID, fcinfo->args[HOLDOUT].value, PG_ARGISNULL(HOLDOUT));
	m1pg_add_string(&p, reward != NULL ? m1pg_reward_signature(reward) : NULL);
	m1pg_add_parameter(&p, OIDOID, ObjectIdGetDatum(reward != NULL ? reward->function : InvalidOid), reward == NULL);
	m1pg_add_parameter(&p, INT4OID, fcinfo->args[STEPS].value, false);
	m1pg_add_string(&p, GetConfigOption("search_path", false, false));
	m1pg_add_parameter(&p, JSONBARRAYOID, rows_array(train), false);
	m1pg_add_parameter(&p, JSONBARRAYOID, rows_array(holdout), false);
	m1pg_add_parameter(&p, JSONBARRAYOID, asked_array(train), false);
	m1pg_add_parameter(&p, JSONBARRAYOID, asked_array(holdout), false);
	options = options_sql(fcinfo, &p);
	guard = m1pg_become(m1pg_extension_owner(), false);
	(void) m1pg_query_with(psprintf("SELECT minimax_m1._train($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, "
									"%s)", options), &p);
	m1pg_unbecome(&guard);
	return DatumGetJsonbPCopy(m1pg_result(0, 1, &isnull));
}

/* train(name, method, examples, holdout, reward, steps, options...) */
Datum
m1pg_train(PG_FUNCTION_ARGS)
{
	const char *method;
	M1Reward   *reward;
	M1Examples	train;
	M1Examples	holdout;
	M1TrainingOptions options;

	check_server();
	check_arguments(fcinfo);
	method = method_argument(fcinfo);
	reward = reward_argument(fcinfo, method);
	read_rows(fcinfo, &train, &holdout);
	SPI_connect();
	m1pg_training_read_options(queue(fcinfo, method, reward, &train, &holdout), &options);
	if (options.adapter != NULL)
		(void) m1pg_served_adapter_of(options.adapter, 0);
	check_quota(Max(most_tokens(&options, &train, strcmp(method, "sft") != 0),
					most_tokens(&options, &holdout, reward != NULL)));
	check_form(&options, &train.rows[0]);
	SPI_finish();
	PG_RETURN_VOID();
}
