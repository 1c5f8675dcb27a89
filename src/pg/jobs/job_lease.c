/*
 * job_lease.c
 *	  The leases by which jobs are this runner's: held, renewed, given back.
 *	  Called within a transaction, with SPI connected.
 *
 *	  A lease is of a process and a moment: leased_by and leased_at. Whoever writes
 *	  anything of a job has locked its row and found that it holds the lease.
 */
#include "pg/jobs/job_lease.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_step.h"
#include "pg/settings.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* ---- held ---- */

#define LEASE_IS_MINE "id = $1 AND state = 'running' AND leased_by = $2 AND leased_at = $3"

static uint64
query_lease(const M1Job *job, const char *sql)
{
	Oid			types[3] = {INT8OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[3];

	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(MyProcPid);
	values[2] = TimestampTzGetDatum(job->leased_at);
	return m1pg_query(sql, 3, types, values, NULL, false);
}

bool
m1pg_lock_lease(const M1Job *job)
{
	/* who has it locked is about to cancel it; should that not come about, the lease ends and the job is done anew */
	return query_lease(job, "SELECT 1 FROM minimax_m1.job WHERE " LEASE_IS_MINE " FOR UPDATE SKIP LOCKED") > 0;
}

static Datum
array_of_8_bytes(Datum *values, int n, Oid type)
{
	return PointerGetDatum(construct_array(values, n, type, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

void
m1pg_renew_leases(M1Job *const *jobs, bool *mine, int n)
{
	Datum	   *ids = palloc(Max(n, 1) * sizeof *ids);
	Datum	   *times = palloc(Max(n, 1) * sizeof *times);
	Oid			types[4] = {INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT4OID, FLOAT8OID};
	Datum		values[4];
	uint64		renewed;
	bool		isnull;

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int64GetDatum(jobs[i]->id);
		times[i] = TimestampTzGetDatum(jobs[i]->leased_at);
		mine[i] = false;
	}
	values[0] = array_of_8_bytes(ids, n, INT8OID);
	values[1] = array_of_8_bytes(times, n, TIMESTAMPTZOID);
	values[2] = Int32GetDatum(MyProcPid);
	values[3] = Float8GetDatum(m1pg_job_lease);
	renewed = m1pg_query("UPDATE minimax_m1.job SET lease_until = clock_timestamp() + make_interval(secs => $4) "
						 "WHERE " M1PG_THOSE("l.id", "minimax_m1.job l JOIN unnest($1, $2) u(id, leased_at) "
						 "ON l.id = u.id AND l.leased_at = u.leased_at WHERE l.state = 'running' AND l.leased_by = $3 "
						 "FOR UPDATE OF l SKIP LOCKED") " RETURNING id", 4, types, values, NULL, false);
	for (uint64 r = 0; r < renewed; r++)
	{
		int64		id = DatumGetInt64(m1pg_result(r, 1, &isnull));

		for (int i = 0; i < n; i++)
			if (jobs[i]->id == id)
				mine[i] = true;
	}
}

/* ---- given back ---- */

/*
 * A job is due again after its runner was lost. When that happens to a job that
 * had the engine to itself, it is to blame: it is charged an attempt, waits, and
 * after two of them has failed. 1 is whether it was lost, 2 when it is due else.
 */
#define TO_BLAME	"(%1$s AND losses >= " M1PG_SUSPECT_LOSSES ")"
#define IS_OVER		"(" TO_BLAME " AND (attempts + 1 >= max_attempts OR losses > " M1PG_SUSPECT_LOSSES "))"
#define GIVE_BACK \
	"UPDATE minimax_m1.job SET attempts = attempts + CASE WHEN " TO_BLAME " THEN 1 ELSE 0 END," \
	" losses = losses + CASE WHEN %1$s THEN 1 ELSE 0 END," \
	" " M1PG_NO_LEASE "," \
	" state = CASE WHEN " IS_OVER " THEN 'failed' ELSE 'pending' END," \
	" finished_at = CASE WHEN " IS_OVER " THEN clock_timestamp() END," \
	" run_at = CASE WHEN " TO_BLAME " THEN " M1PG_BACKOFF("%3$d", "attempts") " ELSE %2$s END," \
	" sqlstate = CASE WHEN %1$s THEN '57P03' ELSE sqlstate END," \
	" error = CASE WHEN %1$s THEN 'minimax_m1: the engine or the job runner went away' ELSE error END," \
	" failed_at = CASE WHEN %1$s THEN clock_timestamp() ELSE failed_at END "

static char *
give_back(bool lost, const char *run_at)
{
	return psprintf(GIVE_BACK, lost ? "true" : "false", run_at, m1pg_job_retry_delay);
}

void
m1pg_release(const M1Job *job, bool lost, int delay_ms)
{
	const char *run_at = delay_ms == 0 ? "run_at" : psprintf("clock_timestamp() + %d * interval '1 ms'", delay_ms);

	if (m1pg_lock_lease(job))
		(void) query_lease(job, psprintf("%s WHERE " LEASE_IS_MINE, give_back(lost, run_at)));
}

/* ---- a step that ended its runner ---- */

/* What a job's row is to tell of it. */
static ErrorData
error_of(const M1Blame *blame)
{
	ErrorData	deaf = {
		.sqlerrcode = ERRCODE_QUERY_CANCELED,
		.message = "minimax_m1: the row could not be written, nor writing it be cancelled",
		.detail = "Triggers or other code of its table went on, and the job runner was restarted.",
		.hint = "They must not catch query_canceled."
	};
	ErrorData	ended = {
		.sqlerrcode = blame->sqlstate != 0 ? blame->sqlstate : ERRCODE_ADMIN_SHUTDOWN,
		.message = "minimax_m1: the job runner was ended while it was at this row",
		.detail = psprintf("The last that it said: %s", blame->message),
		.hint = "Triggers and other code of its table must not end the process, nor set timeouts that do."
	};

	return blame->deaf ? deaf : ended;
}

/*
 * The job did not let its runner go on: that is a failed attempt, of which there
 * are three at most, and others go first. If it was just being taken, that was
 * undone.
 */
#define CHARGE_SQL \
	"UPDATE minimax_m1.job SET attempts = attempts + 1," \
	" state = CASE WHEN " LAST_TRY " THEN 'failed' ELSE 'pending' END," \
	" finished_at = CASE WHEN " LAST_TRY " THEN clock_timestamp() END," \
	" run_at = " M1PG_BACKOFF("$2", "attempts") ", failed_at = clock_timestamp()," \
	" sqlstate = $3, error = $4, detail = $5, hint = $6, " M1PG_NO_LEASE \
	" WHERE " M1PG_THOSE("id", "minimax_m1.job WHERE id = $1 AND state IN ('pending', 'running')" \
	" FOR UPDATE SKIP LOCKED") \
	" RETURNING annotator_id, (SELECT c.relowner FROM minimax_m1.annotator a, pg_class c" \
	" WHERE a.id = annotator_id AND c.oid = a.source)"
#define LAST_TRY "attempts + 1 >= least(max_attempts, 3)"

static void
charge_job(const M1Blame *blame)
{
	const ErrorData error = error_of(blame);
	Oid			types[6] = {INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[6];
	bool		isnull;
	Datum		annotator;
	Datum		table_owner;

	values[0] = Int64GetDatum(blame->job);
	values[1] = Int32GetDatum(m1pg_job_retry_delay);
	values[2] = CStringGetTextDatum(unpack_sql_state(error.sqlerrcode));
	values[3] = CStringGetTextDatum(error.message);
	values[4] = CStringGetTextDatum(error.detail);
	values[5] = CStringGetTextDatum(error.hint);
	if (m1pg_query(CHARGE_SQL, 6, types, values, NULL, false) == 0)
		return;
	table_owner = m1pg_result(0, 2, &isnull);
	if (isnull)
		table_owner = ObjectIdGetDatum(InvalidOid);
	annotator = m1pg_result(0, 1, &isnull);
	if (!isnull)
		m1pg_charge_end(DatumGetInt32(annotator), DatumGetObjectId(table_owner));
}

void
m1pg_release_orphans(const M1Blame *blame)
{
	if (blame->job != 0)
		charge_job(blame);
	(void) m1pg_query(psprintf("%s WHERE " M1PG_THOSE("id", "minimax_m1.job WHERE state = 'running' AND "
							   "(lease_until < clock_timestamp() OR NOT EXISTS (SELECT FROM pg_stat_activity a "
							   "WHERE a.pid = leased_by AND a.backend_start <= leased_at)) "
							   "FOR UPDATE SKIP LOCKED"), give_back(blame->job == 0, "run_at")),
					  0, NULL, NULL, NULL, false);
}
