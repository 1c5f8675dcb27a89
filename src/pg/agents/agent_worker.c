/*
 * agent_worker.c
 *	  The process of one run of an agent that was submitted. Its session is that of
 *	  the run's owner, and nobody else's; the run is its only transaction. The job
 *	  runner starts it (jobs/agent_runs.c), and finds out what has become of it by
 *	  the run's row.
 */
#include "pg/jobs/agent_runs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"

extern PGDLLEXPORT void m1pg_agent_worker_main(Datum main_arg);

void
m1pg_agent_worker_main(Datum main_arg)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	M1AgentRun	run;

	memcpy(&run, MyBgworkerEntry->bgw_extra, sizeof run);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg), run.owner, 0);
	values[0] = Int64GetDatum(run.id);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "minimax_m1: running an agent");
	if (SPI_execute_with_args("SELECT minimax_m1._agent_resume($1)", 1, types, values, NULL, false, 0) < 0)
		elog(ERROR, "minimax_m1: the run cannot be begun");
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	proc_exit(0);
}
