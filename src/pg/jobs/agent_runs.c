/*
 * agent_runs.c
 *	  The job runner starts runs of agents that were submitted, each in a background
 *	  worker of its own, whose session is the owner's. A tool may take long, and is
 *	  code of others; here it holds up nobody and has nobody else's rights. Owners
 *	  take turns, and have one run at a time, a few of them side by side, for so long
 *	  as the run's lease: who was served longest ago is next, also before what is
 *	  begun again.
 *
 *	  A run is one transaction of its worker, so one that is lost leaves nothing
 *	  behind and is begun again, up to so many times. What counts is the row, which
 *	  also says whose process it is, for who cancels it. After a crash of the server
 *	  no worker is left: runs that were under way are due at once.
 */
#include "pg/jobs/agent_runs.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/process.h"
#include "pg/shared.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MOST_ATTEMPTS	"3"		/* in SQL */
#define MOST_WORKERS	2		/* of a database; others want processes, too */
#define DUE	"(state = 'queued' OR (state = 'running' AND claimed_until < clock_timestamp()))"

/* Of the runs that are under way; without a handle there is none. */
typedef struct AgentWorker
{
	BackgroundWorkerHandle *handle;
	int64		run;
} AgentWorker;

static AgentWorker workers[MOST_WORKERS];
static M1AgentRun claimed;		/* by this process, whose worker begins when that is committed */
static bool is_claimed = false;

/* A database of an older version of the extension has none. */
static bool
have_runs(void)
{
	return OidIsValid(get_relname_relid("agent_run", get_namespace_oid("minimax_m1", false)));
}

/* A worker that has gone leaves its run to be begun again, if it has not come to its end. */
static void
notice_end(AgentWorker *worker)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(worker->run)};
	pid_t		pid;

	if (worker->handle == NULL || GetBackgroundWorkerPid(worker->handle, &pid) != BGWH_STOPPED)
		return;
	pfree(worker->handle);
	worker->handle = NULL;
	(void) m1pg_query("UPDATE minimax_m1.agent_run SET claimed_until = '-infinity' WHERE id = $1 AND state = 'running'",
					  1, types, values, NULL, false);
}

/*
 * Once in each process: what was begun before the server, or since before a crash
 * of it, has no worker any more. Nor has what an earlier runner began, if its
 * process is gone, or has not come within a minute.
 */
static void
notice_lost(void)
{
	static bool noticed = false;
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1] = {TimestampTzGetDatum(m1pg_shared->started)};

	if (noticed)
		return;
	(void) m1pg_query("UPDATE minimax_m1.agent_run SET claimed_until = '-infinity' "
					  "WHERE state = 'running' AND (started_at < $1 OR CASE WHEN pid IS NULL "
					  "THEN started_at < clock_timestamp() - interval '1 min' "
					  "ELSE NOT EXISTS (SELECT FROM pg_stat_activity a "
					  "WHERE a.pid = agent_run.pid AND a.backend_start = process_started) END)",
					  1, types, values, NULL, false);
	noticed = true;
}

static void
give_up(void)
{
	(void) m1pg_query("WITH f AS (UPDATE minimax_m1.agent_run SET state = 'failed', finished_at = clock_timestamp() "
					  "WHERE " M1PG_THOSE("id", "minimax_m1.agent_run "
					  "WHERE state = 'running' AND claimed_until < clock_timestamp() AND attempts >= " MOST_ATTEMPTS
					  " FOR UPDATE SKIP LOCKED") " RETURNING id) "
					  "INSERT INTO minimax_m1.agent_step (run, step, kind, error) SELECT id, 1, 'error', "
					  "'the run was begun " MOST_ATTEMPTS " times, and did not come to its end: see the server''s log' "
					  "FROM f", 0, NULL, NULL, NULL, false);
}

static AgentWorker *
free_worker(void)
{
	for (int i = 0; i < MOST_WORKERS; i++)
		if (workers[i].handle == NULL)
			return &workers[i];
	return NULL;
}

/*
 * The oldest run of each owner that has none under way, however many there
 * are: one look into the index for each owner. The run before it is the one that
 * its owner was served with last.
 */
#define NEXT_RUN(where)	"(SELECT id FROM minimax_m1.agent_run WHERE " DUE " AND " where " ORDER BY owner, id LIMIT 1)"
#define CLAIM \
	"WITH RECURSIVE running AS (SELECT owner FROM minimax_m1.agent_run " \
	"WHERE state = 'running' AND claimed_until >= clock_timestamp()), " \
	"next AS (SELECT r.id, r.owner FROM minimax_m1.agent_run r WHERE r.id = " NEXT_RUN("true") " UNION ALL " \
	"SELECT r.id, r.owner FROM next n JOIN minimax_m1.agent_run r ON r.id = " NEXT_RUN("owner > n.owner") "), " \
	"turn AS (SELECT n.id FROM next n WHERE n.owner NOT IN (SELECT owner FROM running) ORDER BY " \
	"(SELECT r.started_at FROM minimax_m1.agent_run r WHERE r.owner = n.owner AND r.id <= n.id AND r.attempts > 0 " \
	"ORDER BY r.id DESC LIMIT 1) NULLS FIRST, n.id LIMIT 1) " \
	"UPDATE minimax_m1.agent_run SET state = 'running', attempts = attempts + 1, pid = NULL, " \
	"started_at = clock_timestamp(), claimed_until = clock_timestamp() + lease " \
	"WHERE id = (SELECT id FROM minimax_m1.agent_run WHERE id = (SELECT id FROM turn) AND " DUE \
	" FOR UPDATE SKIP LOCKED) " \
	"RETURNING id, owner::oid, claimed_until"

/* The next run of the owner whose turn it is; false: there is none to be started. */
static bool
claim(M1AgentRun *run)
{
	bool		isnull;

	if (free_worker() == NULL || m1pg_query(CLAIM, 0, NULL, NULL, NULL, false) == 0)
		return false;
	run->id = DatumGetInt64(m1pg_result(0, 1, &isnull));
	run->owner = DatumGetObjectId(m1pg_result(0, 2, &isnull));
	run->until = DatumGetTimestampTz(m1pg_result(0, 3, &isnull));
	return true;
}

static bool
start(const M1AgentRun *run)
{
	BackgroundWorker w = m1pg_process("m1pg_agent_worker_main", "minimax_m1 agent", MyDatabaseId);
	AgentWorker *worker = free_worker();
	MemoryContext old;
	bool		started;

	w.bgw_notify_pid = MyProcPid;
	memcpy(w.bgw_extra, run, sizeof *run);
	worker->run = run->id;
	/* the handle outlives the turn */
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&w, &worker->handle);
	MemoryContextSwitchTo(old);
	if (!started)
		worker->handle = NULL;
	return started;
}

/* No process is free: it was not begun. It may have been cancelled meanwhile. */
static void
put_back(const M1AgentRun *run)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(run->id)};

	(void) m1pg_query("UPDATE minimax_m1.agent_run SET state = 'queued', attempts = attempts - 1, claimed_until = NULL "
					  "WHERE id = $1 AND state = 'running'", 1, types, values, NULL, false);
}

static TimestampTz
next_look(void)
{
	bool		isnull;
	Datum		next;

	(void) m1pg_query("SELECT least((SELECT min(greatest(claimed_until, clock_timestamp() + '1 s')) "
					  "FROM minimax_m1.agent_run WHERE state = 'running'), "
					  "(SELECT clock_timestamp() + '5 s' FROM minimax_m1.agent_run WHERE state = 'queued' LIMIT 1))",
					  0, NULL, NULL, NULL, false);
	next = m1pg_result(0, 1, &isnull);
	/* the runner stays as long as its workers do, whose end it notices */
	for (int i = 0; i < MOST_WORKERS; i++)
		if (workers[i].handle != NULL)
			return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 100);
	return isnull ? 0 : DatumGetTimestampTz(next);
}

TimestampTz
m1pg_agent_runs_look(void)
{
	if (!have_runs())
		return 0;
	for (int i = 0; i < MOST_WORKERS; i++)
		notice_end(&workers[i]);
	notice_lost();
	give_up();
	if (!is_claimed)
		is_claimed = claim(&claimed);
	else
	{
		/* a worker that is faster than this process would find a run that is not under way yet */
		is_claimed = false;
		if (!start(&claimed))
			put_back(&claimed);
	}
	return is_claimed ? GetCurrentTimestamp() : next_look();
}
