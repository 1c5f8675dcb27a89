/*
 * training_starts.c
 *	  The job runner starts the process that trains (learning/training_runner.c),
 *	  one in a database. It wakes whoever starts runners when it ends, so that one
 *	  that was lost is followed by another.
 */
#include "pg/jobs/training_starts.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/process.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* No process is free. */
#define START_AGAIN_MS	5000
/* One is at work, or is being started, and will tell of its end; unless it is lost before it can. */
#define LOOK_AGAIN_MS	30000

/* A database of an older version of the extension has none. */
static bool
have_trainings(void)
{
	return OidIsValid(get_relname_relid("training_run", get_namespace_oid("minimax_m1", false)));
}

static bool
answer(const char *sql)
{
	bool		isnull;

	(void) m1pg_query(sql, 0, NULL, NULL, NULL, true);
	return DatumGetBool(m1pg_result(0, 1, &isnull));
}

static BackgroundWorkerHandle *last = NULL;	/* that was started */

static bool
start(void)
{
	BackgroundWorker w = m1pg_process("m1pg_training_runner_main", M1PG_TRAINING_PROCESS, MyDatabaseId);
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	if (last != NULL)
		pfree(last);
	last = NULL;
	started = RegisterDynamicBackgroundWorker(&w, &last);
	MemoryContextSwitchTo(old);
	return started;
}

/* One that fails a training at once may never have been seen at work; the next training need not wait for it. */
static bool
has_ended(void)
{
	pid_t		pid;

	return last != NULL && GetBackgroundWorkerPid(last, &pid) == BGWH_STOPPED;
}

TimestampTz
m1pg_trainings_look(void)
{
	static TimestampTz started = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool		starting = started != 0 && !has_ended() && !TimestampDifferenceExceeds(started, now, START_AGAIN_MS);

	if (!have_trainings() ||
		!answer("SELECT EXISTS (SELECT FROM minimax_m1.training_run WHERE state IN ('queued', 'running'))"))
		return 0;
	if (answer("SELECT minimax_m1._training_has_process(NULL)"))
	{
		started = 0;
		return TimestampTzPlusMilliseconds(now, LOOK_AGAIN_MS);
	}
	if (!starting && start())
		started = now;
	return TimestampTzPlusMilliseconds(now, START_AGAIN_MS);
}
