/*
 * module.c
 *	  Library load: puts settings, shared memory and background workers together.
 */
#include "pg/attempt.h"
#include "pg/jobs/jobs.h"
#include "pg/learning/served_adapter.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"
#include "pg/usage/usage_file.h"
#include "pg/worker/worker.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static shmem_startup_hook_type previous_startup_hook = NULL;
#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type previous_request_hook = NULL;
#endif

static void
on_shmem_request(void)
{
#if PG_VERSION_NUM >= 150000
	if (previous_request_hook)
		previous_request_hook();
#endif
	m1pg_shared_request();
	m1pg_usage_request();
	m1pg_jobs_shared_request();
}

static void
on_shmem_startup(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	m1pg_shared_startup();
	if (m1pg_usage_startup())
		m1pg_usage_load();
	m1pg_jobs_shared_startup();
	LWLockRelease(AddinShmemInitLock);
}

static void
register_worker(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 2;
	snprintf(worker.bgw_library_name, sizeof worker.bgw_library_name, "minimax_m1");
	snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "m1pg_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "minimax_m1 worker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "minimax_m1 worker");
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	m1pg_define_settings();
	m1pg_use_adapters();
	m1pg_watch_attempts();
	if (!process_shared_preload_libraries_in_progress)
		return;
#if PG_VERSION_NUM >= 150000
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
#else
	on_shmem_request();
#endif
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	m1pg_engine_ready_hook = m1pg_jobs_engine_ready;
	register_worker();
	m1pg_register_job_launcher();
	m1pg_watch_databases();
}
