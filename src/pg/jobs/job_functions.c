/*
 * job_functions.c
 *	  submit() and wait_for(), and what the SQL functions of jobs need from C.
 *	  poll(), cancel_job() and the rest are SQL behind the gate (guard.c).
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/parameters.h"
#include "pg/jobs/waiting.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(m1pg_submit);
PG_FUNCTION_INFO_V1(m1pg_check_options);
PG_FUNCTION_INFO_V1(m1pg_check_json_schema);
PG_FUNCTION_INFO_V1(m1pg_check_adapter);
PG_FUNCTION_INFO_V1(m1pg_queue_changed);
PG_FUNCTION_INFO_V1(m1pg_is_own_job);
PG_FUNCTION_INFO_V1(m1pg_wait_for);

/* _queue_changed() */
Datum
m1pg_queue_changed(PG_FUNCTION_ARGS)
{
	m1pg_queue_note();
	PG_RETURN_VOID();
}

/* _check_options(system_prompt, max_tokens, ...) */
Datum
m1pg_check_options(PG_FUNCTION_ARGS)
{
	m1w_generate g;

	m1pg_plain_request(&g);
	m1pg_read_options(fcinfo, 0, &g);
	m1pg_read_stops(fcinfo, 6, &g);
	PG_RETURN_VOID();
}

/*
 * The engine alone knows which schemas it can follow. It is asked for one token,
 * so that a schema is refused here and not with each answer.
 */
static void
check_json_schema(const text *schema)
{
	m1w_generate g;
	M1Result	result;

	m1pg_plain_request(&g);
	g.prompt = m1_slice_of("x");
	g.max_tokens = 1;
	g.thinking_budget = 0;
	m1pg_constrain(&g, M1W_CONSTRAINT_JSON_SCHEMA, text_to_cstring(schema));
	m1pg_run(&g, "check_json_schema", &result);
}

/* _check_json_schema(role, schema): the request is the role's. */
Datum
m1pg_check_json_schema(PG_FUNCTION_ARGS)
{
	M1Guard		guard = m1pg_become(PG_GETARG_OID(0), false);

	check_json_schema(m1pg_json_argument(fcinfo, 1));
	m1pg_unbecome(&guard);
	PG_RETURN_VOID();
}

/* _check_adapter(role, adapter) */
Datum
m1pg_check_adapter(PG_FUNCTION_ARGS)
{
	M1Guard		guard = m1pg_become(PG_GETARG_OID(0), false);

	m1pg_adapters->check(NameStr(*PG_GETARG_NAME(1)));
	m1pg_unbecome(&guard);
	PG_RETURN_VOID();
}

/* ---- submit ---- */

enum
{
	ARG_PROMPT, ARG_SYSTEM, ARG_STOP = 7, ARG_PRIORITY, ARG_DEDUPE_KEY, ARG_MAX_ATTEMPTS, ARG_JSON_SCHEMA
};

/* The columns that make two submissions the same; json is compared as text. */
#define REQUEST_COLUMNS "prompt, system_prompt, max_tokens, thinking_budget, temperature, top_p, stop, json_schema"

#define MOST_PRIORITY 1000

/* It orders the owner's jobs only; what lies beyond is for whoever looks after the queue. */
static void
check_priority(int priority)
{
	if ((priority < -MOST_PRIORITY || priority > MOST_PRIORITY) && !superuser())
		m1pg_bad_argument("priority is out of range",
						  psprintf("It is %d; it must be between -%d and %d.", priority, MOST_PRIORITY, MOST_PRIORITY));
}

/* Once in a session. */
static void
warn_of_waiting(void)
{
	static bool warned = false;

	if (!warned && !m1pg_jobs_can_run())
		ereport(WARNING,
				(errmsg("minimax_m1: jobs wait: the server can start no job runner"),
				 errhint("Raise max_worker_processes to 3 or more.")));
	warned = true;
}

static void
check_submit(FunctionCallInfo fcinfo)
{
	int			max_attempts = PG_ARGISNULL(ARG_MAX_ATTEMPTS) ? 5 : PG_GETARG_INT32(ARG_MAX_ATTEMPTS);

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("minimax_m1: jobs cannot be submitted on a standby"),
				 errdetail("The queue is a table, and the server is in recovery."),
				 errhint("Submit on the primary, or use generate(), which works here.")));
	m1pg_require_shared();
	warn_of_waiting();
	if (max_attempts < 1 || max_attempts > 100)
		m1pg_bad_argument("max_attempts is out of range",
						  psprintf("It is %d; it must be between 1 and 100.", max_attempts));
	if (!PG_ARGISNULL(ARG_PRIORITY))
		check_priority(PG_GETARG_INT32(ARG_PRIORITY));
	if (!PG_ARGISNULL(ARG_JSON_SCHEMA) && !PG_ARGISNULL(ARG_STOP))
		m1pg_bad_argument("both json_schema and stop are given", "An answer that follows a schema ends by itself.");
	if (m1pg_session_adapter() != NULL)
		m1pg_adapters->check(m1pg_session_adapter());
	if (!PG_ARGISNULL(ARG_JSON_SCHEMA))
		check_json_schema(m1pg_json_argument(fcinfo, ARG_JSON_SCHEMA));
	if (!PG_ARGISNULL(ARG_DEDUPE_KEY) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(ARG_DEDUPE_KEY)) > 1000)
		m1pg_bad_argument("dedupe_key is too long", "It must have at most 1000 bytes.");
}

/* What the settings of the session are now is what the job runs with. */
static void
read_submission(FunctionCallInfo fcinfo, M1Parameters *p)
{
	m1w_generate g;
	m1_error	error;

	m1pg_plain_request(&g);
	if (!m1pg_read_prompt(PG_GETARG_TEXT_PP(ARG_PROMPT), &g, &error))
		m1pg_report(&error);
	m1pg_read_options(fcinfo, ARG_SYSTEM, &g);
	m1pg_read_stops(fcinfo, ARG_STOP, &g);
	m1pg_add_parameter(p, OIDOID, ObjectIdGetDatum(GetUserId()), false);
	m1pg_add_parameter(p, TEXTOID, PG_GETARG_DATUM(ARG_PROMPT), false);
	m1pg_add_parameter(p, TEXTOID, PG_ARGISNULL(ARG_SYSTEM) ? CStringGetTextDatum(m1pg_system_prompt) :
					   PG_GETARG_DATUM(ARG_SYSTEM), false);
	m1pg_add_int(p, g.max_tokens);
	m1pg_add_int(p, g.thinking_budget);
	m1pg_add_parameter(p, FLOAT4OID, Float4GetDatum(g.temperature), false);
	m1pg_add_parameter(p, FLOAT4OID, Float4GetDatum(g.top_p), false);
	m1pg_add_parameter(p, TEXTARRAYOID, PG_GETARG_DATUM(ARG_STOP), PG_ARGISNULL(ARG_STOP));
	m1pg_add_parameter(p, JSONOID, PG_ARGISNULL(ARG_JSON_SCHEMA) ? (Datum) 0 :
					   PointerGetDatum(m1pg_json_argument(fcinfo, ARG_JSON_SCHEMA)), PG_ARGISNULL(ARG_JSON_SCHEMA));
	m1pg_add_parameter(p, INT8OID, Int64GetDatum((int64) g.seed), false);
	m1pg_add_int(p, PG_ARGISNULL(ARG_PRIORITY) ? 0 : PG_GETARG_INT32(ARG_PRIORITY));
	m1pg_add_parameter(p, TEXTOID, PG_GETARG_DATUM(ARG_DEDUPE_KEY), PG_ARGISNULL(ARG_DEDUPE_KEY));
	m1pg_add_int(p, PG_ARGISNULL(ARG_MAX_ATTEMPTS) ? 5 : PG_GETARG_INT32(ARG_MAX_ATTEMPTS));
	m1pg_add_string(p, m1pg_session_adapter());
}

/* Adds the job, unless there is one with its dedupe_key. */
static bool
insert_job(M1Parameters *p, int64 *id)
{
	bool		isnull;

	if (m1pg_query_with("INSERT INTO minimax_m1.job "
						"(owner, " REQUEST_COLUMNS ", seed, priority, dedupe_key, max_attempts, adapter) "
						"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) "
						"ON CONFLICT (owner, dedupe_key) "
						"WHERE dedupe_key IS NOT NULL AND state NOT IN ('failed', 'cancelled') "
						"DO NOTHING RETURNING id", p) == 0)
		return false;
	*id = DatumGetInt64(m1pg_result(0, 1, &isnull));
	m1pg_queue_note();
	return true;
}

/* The job that has the dedupe_key already. It must ask for the same. */
static bool
find_job(M1Parameters *p, int64 *id)
{
	bool		isnull;

	if (m1pg_query_with("SELECT id, "
						"(" REQUEST_COLUMNS "::text, adapter) IS NOT DISTINCT FROM "
						"($2, $3, $4, $5, $6, $7, $8, $9::text, $14::name) "
						"FROM minimax_m1.job WHERE owner = $1 AND dedupe_key = $12 "
						"AND state NOT IN ('failed', 'cancelled')", p) == 0)
		return false;
	*id = DatumGetInt64(m1pg_result(0, 1, &isnull));
	if (!DatumGetBool(m1pg_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("minimax_m1: dedupe_key is that of another request"),
				 errdetail("Job " INT64_FORMAT " has it, with another prompt or other options.", *id),
				 errhint("Use another key, or cancel that job.")));
	return true;
}

Datum
m1pg_submit(PG_FUNCTION_ARGS)
{
	M1Parameters p = {0};
	M1Guard		guard;
	int64		id;

	if (PG_ARGISNULL(ARG_PROMPT))
		PG_RETURN_NULL();
	check_submit(fcinfo);
	read_submission(fcinfo, &p);
	SPI_connect();
	guard = m1pg_become(m1pg_extension_owner(), false);
	/* the one that was in the way may be gone when it is looked for */
	while (!insert_job(&p, &id) && !find_job(&p, &id))
		CHECK_FOR_INTERRUPTS();
	m1pg_unbecome(&guard);
	SPI_finish();
	PG_RETURN_INT64(id);
}

/* ---- wait_for ---- */

/* _is_own(job): whether this transaction has queued it, or changed it, and not committed yet. */
Datum
m1pg_is_own_job(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {PG_GETARG_DATUM(0)};
	bool		own = false;
	bool		isnull;

	SPI_connect();
	if (m1pg_query("SELECT xmin FROM minimax_m1.job WHERE id = $1", 1, types, values, NULL, false) == 1)
		own = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(m1pg_result(0, 1, &isnull)));
	SPI_finish();
	PG_RETURN_BOOL(own);
}

/* wait_for(jobs, timeout) */
Datum
m1pg_wait_for(PG_FUNCTION_ARGS)
{
	M1Wait		wait = {
		.procedure = "wait_for", .what = "jobs", .one = "a job",
		.sql = "SELECT unfinished, own FROM minimax_m1._unfinished($1, $2)", .type = INT8ARRAYOID,
		.hint = "They go on; poll() tells their state.", .look_ms = 60000
	};

	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	/* the argument's own memory may end with the transaction */
	wait.value = PointerGetDatum(PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(0)));
	m1pg_wait(fcinfo, &wait);
	PG_RETURN_VOID();
}
