/*
 * job_launcher.c
 *	  The background worker that starts a job runner for a database when it has
 *	  work. It sleeps on its latch until then.
 *
 *	  Runners come and go, because a process connected to a database that has
 *	  nothing to do would cost a worker slot and stand in the way of DROP DATABASE.
 *	  It runs on a primary only: a standby has no queue of its own.
 */
#include "pg/jobs/job_shared.h"
#include "pg/jobs/jobs.h"
#include "pg/jobs/process.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

void
m1pg_register_job_launcher(void)
{
	BackgroundWorker worker = {0};

	if (!m1pg_jobs_can_run())
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: max_worker_processes is too low for jobs: they will wait"),
				 errdetail("It is %d. The worker takes one, the launcher of jobs takes one, and so does each database "
						   "while it has work.", max_worker_processes)));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 2;
	snprintf(worker.bgw_library_name, sizeof worker.bgw_library_name, "minimax_m1");
	snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "m1pg_job_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "minimax_m1 job launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "minimax_m1 job launcher");
	RegisterBackgroundWorker(&worker);
}

/* Templates do, too. A DROP DATABASE that was broken off leaves one that does not. */
static bool
accepts_connections(Form_pg_database database)
{
	return database->datallowconn && database->datconnlimit >= -1;
}

/* The databases that may have a queue. */
static List *
list_databases(void)
{
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!accepts_connections(db))
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		databases = lappend_oid(databases, db->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

/*
 * By the row of the catalog: what is cached may be as it was before the change
 * that woke this process. Without an index: none can be opened here until a
 * session, after the server's start, has left what is known of shared ones.
 */
static bool
can_be_connected_to(Oid database)
{
	ScanKeyData key;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		can;

	StartTransactionCommand();
	ScanKeyInit(&key, Anum_pg_database_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(database));
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	can = HeapTupleIsValid(tuple) && accepts_connections((Form_pg_database) GETSTRUCT(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return can;
}

/* It is gone, or will be noted again when it can be connected to; which it may have been between the look and this. */
static void
forget(Oid database)
{
	m1pg_launcher_forget(database);
	if (can_be_connected_to(database))
		(void) m1pg_jobs_want(database, 0);
}

static void
start_runner(Oid database)
{
	static bool complained = false;
	BackgroundWorker worker = m1pg_process("m1pg_job_runner_main", "minimax_m1 job runner", database);

	if (!can_be_connected_to(database))
	{
		forget(database);
		return;
	}
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
	{
		complained = false;
		return;
	}
	m1pg_launcher_retry(database);
	if (!complained)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: there is no free background worker for a job runner"),
				 errhint("Jobs wait until there is one. Consider a higher max_worker_processes.")));
	complained = true;
}

void
m1pg_job_launcher_main(Datum main_arg)
{
	List	   *unseen;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	m1pg_launcher_join();
	/* whatever was queued before the server started, or while there was no launcher */
	unseen = list_databases();

	while (!ShutdownRequestPending)
	{
		Oid			database;
		long		timeout;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (unseen == NIL && m1pg_launcher_take_overflow())
			unseen = list_databases();
		while (unseen != NIL && m1pg_jobs_want(linitial_oid(unseen), 0))
			unseen = list_delete_first(unseen);
		while ((database = m1pg_launcher_next()) != InvalidOid)
			start_runner(database);
		timeout = unseen != NIL ? 1000 : m1pg_launcher_timeout();
		if (timeout >= 0)
			events |= WL_TIMEOUT;
		if (WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION) & WL_LATCH_SET)
			ResetLatch(MyLatch);
	}
	/* Not 0, which would tell the postmaster never to start it again. */
	proc_exit(1);
}
