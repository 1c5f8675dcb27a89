/*
 * waiting.c
 *	  wait_for() and wait_for_training(): looking again whenever something has
 *	  ended, without a transaction in between.
 */
#include "pg/jobs/waiting.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job_shared.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* How many have not ended. */
static int64
count_unfinished(Oid caller, const M1Wait *wait)
{
	Oid			types[2] = {OIDOID, wait->type};
	Datum		values[2] = {ObjectIdGetDatum(caller), wait->value};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	int64		n;
	bool		isnull;

	(void) m1pg_query(wait->sql, 2, types, values, NULL, false);
	n = DatumGetInt64(m1pg_result(0, 1, &isnull));
	if (DatumGetBool(m1pg_result(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("minimax_m1: cannot wait for %s of this transaction", wait->one),
				 errdetail("It starts when the transaction has committed."),
				 errhint("Commit, then wait.")));
	m1pg_unbecome(&guard);
	/* the caller looks again and again in one SPI connection */
	SPI_freetuptable(SPI_tuptable);
	return n;
}

static TimestampTz
deadline_of(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1))
		return 0;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
												   PG_GETARG_DATUM(1)));
}

static void
timed_out(const M1Wait *wait, int64 unfinished)
{
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("minimax_m1: timed out waiting for %s", wait->what),
			 errdetail(INT64_FORMAT " of them have not ended.", unfinished),
			 errhint("%s", wait->hint)));
}

/* Until something ends. */
static void
sleep_until(const M1Wait *wait, TimestampTz deadline, int64 unfinished)
{
	long		ms = wait->look_ms;

	if (deadline != 0)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left <= 0)
			timed_out(wait, unfinished);
		ms = Min(ms, left);
	}
	(void) m1pg_jobs_sleep(ms);
}

static void
check_may_wait(const M1Wait *wait)
{
	m1pg_require_shared();
	if (m1pg_is_runner())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("minimax_m1: the job runner cannot wait for %s", wait->what),
				 errdetail("It runs the triggers of annotated tables, and the jobs that it would wait for.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("minimax_m1: %s needs the isolation level READ COMMITTED", wait->procedure),
				 errdetail("This transaction would never see that %s has ended.", wait->one)));
}

void
m1pg_wait(FunctionCallInfo fcinfo, const M1Wait *wait)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;
	TimestampTz deadline = deadline_of(fcinfo);
	Oid			caller = GetUserId();
	MemoryContext context = CurrentMemoryContext;
	int64		n;

	check_may_wait(wait);
	SPI_connect_ext(atomic ? 0 : SPI_OPT_NONATOMIC);
	m1pg_jobs_prepare_wait();
	while ((n = count_unfinished(caller, wait)) > 0)
	{
		/* hold no snapshot, and no transaction where the caller allows */
		if (!atomic)
			SPI_commit();
		sleep_until(wait, deadline, n);
		CHECK_FOR_INTERRUPTS();
	}
	m1pg_jobs_cancel_wait();
	SPI_finish();
	MemoryContextSwitchTo(context);
}
