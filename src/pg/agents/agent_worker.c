/*
 * agent_worker.c
 *	  The process of one run of an agent that was submitted. Its session is that of
 *	  the run's owner, and nobody else's; the run is one transaction, behind a short
 *	  one that notes whose process it is. The job runner starts it
 *	  (jobs/agent_runs.c), and finds out what has become of it by the run's row.
 *
 *	  A run keeps to its own limits. What does not, such as a trigger that waits at
 *	  the commit, is ended with the process when the run's lease is.
 */
#include "pg/attempt.h"
#include "pg/jobs/agent_runs.h"
#include "pg/jobs/process.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

extern PGDLLEXPORT void m1pg_agent_worker_main(Datum main_arg);

/* A transaction with a statement of the run. Whether it says true. */
static bool
run_alone(const char *sql, int64 run)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run)};
	bool		isnull;
	bool		said;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "minimax_m1: the run cannot be begun");
	said = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return said;
}

void
m1pg_agent_worker_main(Datum main_arg)
{
	M1AgentRun	run;

	memcpy(&run, MyBgworkerEntry->bgw_extra, sizeof run);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg), run.owner, 0);
	m1pg_attempt_ends_process = true;
	enable_timeout_at(RegisterTimeout(USER_TIMEOUT, m1pg_process_end), run.until);
	pgstat_report_activity(STATE_RUNNING, "minimax_m1: running an agent");
	if (run_alone("SELECT minimax_m1._agent_take($1)", run.id))
		(void) run_alone("SELECT minimax_m1._agent_resume($1) IS NULL", run.id);
	proc_exit(0);
}
