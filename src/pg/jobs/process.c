/*
 * process.c
 *	  What runners, trainers and agents are alike in, when they are started.
 */
#include "pg/jobs/process.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/guc.h"

BackgroundWorker
m1pg_process(const char *function, const char *name, Oid database)
{
	BackgroundWorker w = {0};

	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	w.bgw_main_arg = ObjectIdGetDatum(database);
	snprintf(w.bgw_library_name, sizeof w.bgw_library_name, "minimax_m1");
	snprintf(w.bgw_function_name, sizeof w.bgw_function_name, "%s", function);
	snprintf(w.bgw_name, BGW_MAXLEN, "%s", name);
	snprintf(w.bgw_type, BGW_MAXLEN, "%s", name);
	return w;
}

static void
override(const char *name, const char *value)
{
	/* what this version of PostgreSQL has not, limits nothing */
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
m1pg_process_settings(void)
{
	override("search_path", "pg_catalog, pg_temp");
	override("default_transaction_isolation", "read committed");
	override("default_transaction_read_only", "off");
	override("default_transaction_deferrable", "off");
	override("statement_timeout", "0");
	override("lock_timeout", "0");
	override("idle_in_transaction_session_timeout", "0");
	override("transaction_timeout", "0");
}

void
m1pg_process_end(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}
