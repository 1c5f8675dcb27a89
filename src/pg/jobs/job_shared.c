/*
 * job_shared.c
 *	  The shared-memory table through which sessions, the launcher and the
 *	  runners wake each other: a place for each database that has work.
 *
 *	  It only says where to look; what there is to do is in the table
 *	  minimax_m1.job. Losing it costs a look at every database, which the launcher
 *	  takes when it starts. One LWLock protects all of it, held for copies only.
 */
#include "pg/jobs/job_shared.h"
#include "pg/jobs/jobs.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define TRANCHE		"minimax_m1 jobs"
#define MAX_PLACES	128
/* A runner that was started and has not come: it is started again. */
#define START_PATIENCE_MS	10000
/* A runner that has made way is followed by the next after this. */
#define MADE_WAY_MS		1000
/* A runner that ended by an error is started again after this. */
#define RESTART_MS	5000
/* Nobody tells when a prepared transaction is committed: while there is one, it is looked for. */
#define PREPARED_MS	1000

typedef struct Place
{
	Oid			database;		/* InvalidOid = free */
	bool		woken;
	TimestampTz wake_at;		/* 0 = when woken */
	TimestampTz starting_until; /* 0 = not being started */
	TimestampTz running_since;
	PGPROC	   *runner;			/* NULL = none */
	bool		make_way;		/* the runner is to leave */
	M1Blame		blame;			/* of the runner, or of the last one */
	M1Ender		enders[M1PG_ENDERS];
} Place;

typedef struct Shared
{
	LWLock	   *lock;
	PGPROC	   *launcher;
	bool		overflow;		/* a database found no place: look at all of them again */
	ConditionVariable ended;	/* a job has ended */
	Place		places[MAX_PLACES];
} Shared;

static Shared *shared = NULL;

void
m1pg_jobs_shared_request(void)
{
	RequestAddinShmemSpace(sizeof(Shared));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* With AddinShmemInitLock held. */
void
m1pg_jobs_shared_startup(void)
{
	bool		found;

	shared = ShmemInitStruct(TRANCHE, sizeof(Shared), &found);
	if (found)
		return;
	memset(shared, 0, sizeof *shared);
	shared->lock = &(GetNamedLWLockTranche(TRANCHE))->lock;
	ConditionVariableInit(&shared->ended);
}

/* ---- places ---- */

static Place *
find_place(Oid database)
{
	for (int i = 0; i < MAX_PLACES; i++)
		if (shared->places[i].database == database)
			return &shared->places[i];
	return NULL;
}

static bool
is_at_rest(const Place *p)
{
	return !p->woken && p->wake_at == 0 && p->starting_until == 0 && p->runner == NULL;
}

/* A place of its own, or NULL. Where none is free, that is given away which has been at rest for the longest. */
static Place *
take_place(Oid database)
{
	Place	   *p = find_place(database);

	if (p != NULL)
		return p;
	for (int i = 0; i < MAX_PLACES; i++)
	{
		Place	   *other = &shared->places[i];

		if (is_at_rest(other) && (p == NULL || other->running_since < p->running_since))
			p = other;
	}
	if (p != NULL)
	{
		memset(p, 0, sizeof *p);
		p->database = database;
	}
	return p;
}

static void
wake_launcher(void)
{
	if (shared->launcher != NULL)
		SetLatch(&shared->launcher->procLatch);
}

bool
m1pg_jobs_want(Oid database, TimestampTz when)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	p = take_place(database);
	if (p == NULL)
		shared->overflow = true;
	else if (when == 0)
		p->woken = true;
	else if (p->wake_at == 0 || when < p->wake_at)
		p->wake_at = when;
	if (p != NULL && p->runner != NULL)
		SetLatch(&p->runner->procLatch);
	else
		wake_launcher();
	LWLockRelease(shared->lock);
	return p != NULL;
}

/* ---- the end of a transaction that has changed the queue ---- */

static bool queue_changed = false;
static Oid	changed_database = InvalidOid;	/* created or altered */
static bool databases_changed = false;	/* more than that one */

static void
note_databases(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->overflow = shared->overflow || databases_changed;
	wake_launcher();
	LWLockRelease(shared->lock);
	if (OidIsValid(changed_database))
		(void) m1pg_jobs_want(changed_database, 0);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && OidIsValid(changed_database))
		note_databases();
	if (event == XACT_EVENT_COMMIT && queue_changed)
	{
		(void) m1pg_jobs_want(MyDatabaseId, 0);
		ConditionVariableBroadcast(&shared->ended);
	}
	else if (event == XACT_EVENT_PREPARE && queue_changed)
		(void) m1pg_jobs_want(MyDatabaseId, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PREPARED_MS));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE || event == XACT_EVENT_ABORT)
	{
		queue_changed = databases_changed = false;
		changed_database = InvalidOid;
	}
}

/* false without shared memory: there are no runners, who look at the queue when there are. */
static bool
watch_transaction(void)
{
	static bool registered = false;

	if (shared != NULL && !registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = shared != NULL;
	return registered;
}

void
m1pg_queue_note(void)
{
	if (watch_transaction())
		queue_changed = true;
}

void
m1pg_database_note(Oid database)
{
	if (!watch_transaction())
		return;
	databases_changed = databases_changed || (OidIsValid(changed_database) && changed_database != database);
	changed_database = database;
}

bool
m1pg_jobs_can_run(void)
{
	return max_worker_processes >= 3;
}

/* ---- waiting for jobs ---- */

void
m1pg_jobs_prepare_wait(void)
{
	m1pg_require_shared();
	ConditionVariablePrepareToSleep(&shared->ended);
}

bool
m1pg_jobs_sleep(long ms)
{
	return !ConditionVariableTimedSleep(&shared->ended, ms, PG_WAIT_EXTENSION);
}

void
m1pg_jobs_cancel_wait(void)
{
	ConditionVariableCancelSleep();
}

void
m1pg_jobs_ended(void)
{
	ConditionVariableBroadcast(&shared->ended);
}

/* The engine answers again: runners that pause need not wait longer. */
void
m1pg_jobs_engine_ready(void)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_PLACES; i++)
		if (shared->places[i].runner != NULL)
			SetLatch(&shared->places[i].runner->procLatch);
	LWLockRelease(shared->lock);
}

/* ---- runners ---- */

static bool joined = false;
static Place *joined_place = NULL;

static void
leave(TimestampTz wake_at)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	p = find_place(MyDatabaseId);
	if (p != NULL && p->runner == MyProc)
	{
		p->runner = NULL;
		p->starting_until = p->make_way ? TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MADE_WAY_MS) : 0;
		p->make_way = false;
		p->wake_at = wake_at;
	}
	wake_launcher();
	LWLockRelease(shared->lock);
}

/* A runner that has not left before its end met an error. */
static void
leave_at_exit(int code, Datum arg)
{
	if (joined)
		leave(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), joined_place->blame.job != 0 ? 0 : RESTART_MS));
}

bool
m1pg_runner_join(void)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	p = take_place(MyDatabaseId);
	if (p != NULL && p->runner == NULL)
	{
		p->runner = MyProc;
		p->running_since = GetCurrentTimestamp();
		p->starting_until = 0;
		p->wake_at = 0;
		joined = true;
		joined_place = p;
	}
	LWLockRelease(shared->lock);
	if (joined)
		before_shmem_exit(leave_at_exit, 0);
	return joined;
}

void
m1pg_runner_leave(TimestampTz wake_at)
{
	leave(wake_at);
	joined = false;
}

void
m1pg_runner_make_way(Oid database)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	p = find_place(database);
	if (p != NULL && (p->runner != NULL || p->starting_until != 0))
		p->make_way = true;
	if (p != NULL && p->runner != NULL)
		SetLatch(&p->runner->procLatch);
	LWLockRelease(shared->lock);
}

bool
m1pg_runner_is_in_the_way(void)
{
	return joined_place->make_way;
}

bool
m1pg_is_runner(void)
{
	return joined_place != NULL;
}

/* ---- what ended a runner; it alone writes that, and the next one, which is not there yet, reads it ---- */

void
m1pg_runner_at_step(int64 job)
{
	if (!joined_place->blame.deaf)
		joined_place->blame.job = job;
}

void
m1pg_runner_step_is_deaf(void)
{
	joined_place->blame.deaf = true;
}

void
m1pg_runner_note_end(int sqlstate, const char *message)
{
	if (joined_place == NULL || joined_place->blame.job == 0)
		return;
	joined_place->blame.sqlstate = sqlstate;
	memset(joined_place->blame.message, 0, sizeof joined_place->blame.message);
	memcpy(joined_place->blame.message, message,
		   pg_mbcliplen(message, strlen(message), sizeof joined_place->blame.message - 1));
}

M1Blame
m1pg_runner_take_blame(void)
{
	M1Blame		blame = joined_place->blame;

	memset(&joined_place->blame, 0, sizeof joined_place->blame);
	return blame;
}

int
m1pg_runner_enders(M1Ender *enders)
{
	int			n = 0;

	for (int i = 0; i < M1PG_ENDERS; i++)
		if (joined_place->enders[i].annotator != 0)
			enders[n++] = joined_place->enders[i];
	return n;
}

void
m1pg_runner_remember_ender(const M1Ender *ender)
{
	M1Ender    *enders = joined_place->enders;
	M1Ender    *place = enders;

	for (int i = 0; i < M1PG_ENDERS; i++)
		if (enders[i].annotator == ender->annotator)
			place = &enders[i];
		else if (place->annotator != ender->annotator && enders[i].last < place->last)
			place = &enders[i];
	*place = *ender;
}

bool
m1pg_runner_woken(void)
{
	Place	   *p;
	bool		woken;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	p = find_place(MyDatabaseId);
	woken = p != NULL && (p->woken || p->wake_at != 0);
	if (p != NULL)
	{
		p->woken = false;
		p->wake_at = 0;
	}
	LWLockRelease(shared->lock);
	return woken;
}

static bool
is_due(const Place *p, TimestampTz now)
{
	return p->database != InvalidOid && p->runner == NULL && now >= p->starting_until &&
		(p->woken || (p->wake_at != 0 && now >= p->wake_at));
}

bool
m1pg_runner_others_wait(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		wait = false;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_PLACES; i++)
		wait = wait || is_due(&shared->places[i], now);
	LWLockRelease(shared->lock);
	return wait;
}

/* ---- the launcher ---- */

static void
launcher_leave(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (shared->launcher == MyProc)
		shared->launcher = NULL;
	LWLockRelease(shared->lock);
}

void
m1pg_launcher_join(void)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher = MyProc;
	LWLockRelease(shared->lock);
	before_shmem_exit(launcher_leave, 0);
}

bool
m1pg_launcher_take_overflow(void)
{
	bool		overflow;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	overflow = shared->overflow;
	shared->overflow = false;
	LWLockRelease(shared->lock);
	return overflow;
}

Oid
m1pg_launcher_next(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			active = 0;
	Place	   *next = NULL;
	Oid			database = InvalidOid;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_PLACES; i++)
	{
		Place	   *p = &shared->places[i];

		if (p->runner != NULL || now < p->starting_until)
			active++;
		/* whose last runner is the longest ago */
		else if (is_due(p, now) && (next == NULL || p->running_since < next->running_since))
			next = p;
	}
	if (next != NULL && active < m1pg_max_job_runners)
	{
		next->starting_until = TimestampTzPlusMilliseconds(now, START_PATIENCE_MS);
		database = next->database;
	}
	LWLockRelease(shared->lock);
	return database;
}

void
m1pg_launcher_forget(Oid database)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((p = find_place(database)) != NULL)
		memset(p, 0, sizeof *p);
	LWLockRelease(shared->lock);
}

void
m1pg_launcher_retry(Oid database)
{
	Place	   *p;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if ((p = find_place(database)) != NULL)
		p->starting_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_MS);
	LWLockRelease(shared->lock);
}

static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

long
m1pg_launcher_timeout(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_PLACES; i++)
	{
		const Place *p = &shared->places[i];

		if (p->database == InvalidOid || p->runner != NULL)
			continue;
		if (p->starting_until > now)
			next = earlier(next, p->starting_until);
		else if (p->wake_at > now && !p->woken)
			next = earlier(next, p->wake_at);
	}
	LWLockRelease(shared->lock);
	return next == 0 ? -1 : Max(1, TimestampDifferenceMilliseconds(now, next));
}
