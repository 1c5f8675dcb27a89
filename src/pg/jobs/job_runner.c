/*
 * job_runner.c
 *	  The job runner of one database: a loop over its latch and the requests that
 *	  it has in flight.
 *
 *	  A turn of the loop is one short transaction: results are written, leases
 *	  renewed, new jobs taken. Their requests are sent after it has committed, and
 *	  while the model works no transaction is open. An error in a turn ends the
 *	  process; what it had in flight is done again by the next. When there is
 *	  nothing to do it leaves, and tells the launcher when to start the next.
 */
#include "pg/client/constrained.h"
#include "pg/client/exchange.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/jobs/agent_runs.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_claim.h"
#include "pg/jobs/job_definition.h"
#include "pg/jobs/job_finish.h"
#include "pg/jobs/job_lease.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/job_step.h"
#include "pg/jobs/jobs.h"
#include "pg/jobs/process.h"
#include "pg/jobs/training_starts.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Without work, it stays this long: more may come. DROP DATABASE waits for 5 s at most. */
#define LINGER_MS		1000
/* Nothing is taken for this long after an outage; it doubles while there are more. */
#define FIRST_PAUSE_MS	500
#define MOST_PAUSE_MS	30000
/* When other databases wait for a runner, this one makes room after this. */
#define FAIR_SHARE_MS	30000
/* A turn holds locks on what it has written: after this, what is left is for the next. */
#define TURN_MS			250
/* The engine or its worker may be lost without a sign: while requests are in flight, no wait is longer than this. */
#define LOOK_MS			1000

static dlist_head jobs = DLIST_STATIC_INIT(jobs);	/* in flight, or with a result that is not written yet */
static int	n_jobs = 0;
static bool more_may_be_due = true;
static bool alone = false;		/* the one job in flight is a suspect */
static TimestampTz renewed_at;
static TimestampTz tidied_at;
static TimestampTz paused_until = 0;
static int	pause_ms = FIRST_PAUSE_MS;
static bool paused_for_engine = false;
static volatile sig_atomic_t in_turn = false;

/* How many jobs may be in flight. */
static int
places(void)
{
	return m1pg_job_requests > 0 ? m1pg_job_requests : m1pg_max_requests;
}

/* Between turns it ends by itself, and gives back what it has; a turn that waits for something is interrupted. */
static void
on_sigterm(SIGNAL_ARGS)
{
	if (in_turn)
		die(postgres_signal_arg);
	else
		SignalHandlerForShutdownRequest(postgres_signal_arg);
}

/* ---- transactions ---- */

static void
begin_turn(void)
{
	in_turn = true;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "minimax_m1: taking and finishing jobs");
}

static void
end_turn(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	m1pg_definitions_end_turn();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	in_turn = false;
}

/* ---- requests ---- */

static void
forget_job(M1Job *job)
{
	if (job->exchange != NULL)
		m1pg_exchange_close(job->exchange);
	dlist_delete(&job->node);
	n_jobs--;
	m1pg_free_job(job);
}

/* A request is its owner's: whoever looks at activity, or is held to a quota. */
static void
send_request(M1Job *job)
{
	Oid			userid;
	int			context;
	int			unused;

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(job->owner, context | SECURITY_LOCAL_USERID_CHANGE);
	MemoryContextSwitchTo(job->context);
	job->request.cache_owner = m1pg_cache_owner();
	if (job->adapter_tries > 0)
		(void) m1pg_adapters->give(job->request.adapter);
	else if (job->adapter != NULL)
		job->request.adapter = m1pg_adapters->find(job->adapter, &unused);
	job->exchange = m1pg_open_generate(&job->request, job->annotator_id != 0 ? "annotate" : "submit", &job->error);
	if (job->exchange != NULL)
		m1pg_exchange_pin(job->exchange);
	else
		job->ended = true;
	SetUserIdAndSecContext(userid, context);
}

/* Of what has kept a request from being sent, its adapter perhaps. */
static m1_status
kind_of(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_OBJECT:
			return M1_E_NOT_FOUND;
		case ERRCODE_INVALID_PARAMETER_VALUE:
			return M1_E_INVALID_ARGUMENT;
		case ERRCODE_DATA_CORRUPTED:
			return M1_E_CORRUPT;
		case ERRCODE_OUT_OF_MEMORY:
			return M1_E_NO_MEMORY;
		case ERRCODE_CONFIGURATION_LIMIT_EXCEEDED:
			return M1_E_OVERLOADED;
		default:
			return M1_E_UNAVAILABLE;
	}
}

/* In a transaction of its own, which has ended when the model begins. */
static void
start_request(M1Job *job)
{
	in_turn = true;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PG_TRY();
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		send_request(job);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(job->context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		job->exchange = NULL;
		job->ended = true;
		job->refusal = error;
		m1_fail(&job->error, kind_of(error), "%s", error->message);
	}
	PG_END_TRY();
	in_turn = false;
}

/* Then the request is sent again, with the adapter. */
static bool
lacked_adapter(const M1Job *job)
{
	return job->error.code == M1_E_NOT_FOUND && job->adapter != NULL && job->adapter_tries < M1PG_ADAPTER_TRIES;
}

/* Takes up what the model has said. */
static void
poll_request(M1Job *job)
{
	const char *payload;
	Size		len;
	MemoryContext old = MemoryContextSwitchTo(job->context);
	m1w_type	type = m1pg_exchange_poll(job->exchange, &payload, &len, &job->error);

	if (type == M1W_DONE && m1w_decode_done(payload, len, &job->done, &job->error) == M1_OK)
	{
		job->done.content = m1pg_keep(job->done.content);
		job->done.reasoning = m1pg_keep(job->done.reasoning);
		if (job->request.constraint != M1W_CONSTRAINT_NONE)
			(void) m1pg_check_complete(&job->done, &job->error);
	}
	else if (type != M1W_ERROR && type != M1W_DONE && type != M1PG_NO_EVENT)
		m1_fail(&job->error, M1_E_INTERNAL, "unexpected event %d", (int) type);
	MemoryContextSwitchTo(old);
	if (type == M1PG_NO_EVENT)
		return;
	job->reached_engine = m1pg_exchange_reached_engine(job->exchange);
	m1pg_exchange_close(job->exchange);
	job->exchange = NULL;
	if (lacked_adapter(job))
	{
		job->error.code = M1_OK;
		job->adapter_tries++;
	}
	else
		job->ended = true;
}

static void
poll_requests(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
	{
		M1Job	   *job = dlist_container(M1Job, node, iter.cur);

		if (job->exchange != NULL)
			poll_request(job);
	}
}

static void
start_requests(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
	{
		M1Job	   *job = dlist_container(M1Job, node, iter.cur);

		if (job->exchange == NULL && !job->ended)
			start_request(job);
	}
}

/* ---- pauses ---- */

static bool
engine_is_ready(void)
{
	return m1pg_shared->worker != NULL && m1pg_shared->model.readiness.state == M1_ENGINE_READY;
}

/* A request may also be refused for its role's sake; then others are not. */
static bool
queue_is_full(void)
{
	bool		full = true;

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	for (int i = 0; i < m1pg_shared->n_slots; i++)
		full = full && m1pg_shared->slots[i].state != M1_SLOT_FREE;
	LWLockRelease(m1pg_shared->lock);
	return full;
}

static void
pause_taking(bool for_engine)
{
	if (paused_until == 0)
	{
		paused_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause_ms);
		pause_ms = Min(pause_ms * 2, MOST_PAUSE_MS);
	}
	paused_for_engine = for_engine;
}

static bool
is_paused(void)
{
	if (m1pg_shared->model.readiness.state == M1_ENGINE_FAILED)
		pause_taking(true);
	if (paused_until != 0 && (GetCurrentTimestamp() >= paused_until || (paused_for_engine && engine_is_ready())))
	{
		paused_until = 0;
		more_may_be_due = true;
	}
	return paused_until != 0;
}

/* ---- a turn ---- */

static bool
can_write(const M1Job *job, TimestampTz now)
{
	return job->ended && (job->write_at == 0 || now >= job->write_at);
}

/* Results may wait here for their rows, but not pile up. */
static bool
may_wait(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
		if (dlist_container(M1Job, node, iter.cur)->write_at != 0)
			n++;
	return n < places();
}

static void
finish_jobs(void)
{
	dlist_mutable_iter iter;
	TimestampTz now = GetCurrentTimestamp();

	dlist_foreach_modify(iter, &jobs)
	{
		M1Job	   *job = dlist_container(M1Job, node, iter.cur);
		M1JobOutcome outcome;

		if (!can_write(job, now))
			continue;
		if (TimestampDifferenceExceeds(now, GetCurrentTimestamp(), TURN_MS))
			break;
		outcome = m1pg_finish(job, may_wait());
		if (outcome == M1_JOB_LATER)
			continue;
		if (outcome == M1_JOB_OUTAGE)
			pause_taking(true);
		else if (outcome == M1_JOB_OVERLOAD && queue_is_full())
			pause_taking(false);
		else
		{
			pause_ms = FIRST_PAUSE_MS;
			if (outcome == M1_JOB_OVERLOAD)
				m1pg_refuse_owner(job->owner);
			else
				m1pg_admit_owner(job->owner);
		}
		/* a row that waited for this one may be taken now */
		more_may_be_due = true;
		forget_job(job);
	}
}

static bool
is_time_again(TimestampTz last)
{
	return TimestampDifferenceExceeds(last, GetCurrentTimestamp(), m1pg_job_lease * 1000 / 3);
}

/* Renews, and stops working on what was cancelled. */
static void
renew_leases(void)
{
	M1Job	  **list = palloc(Max(n_jobs, 1) * sizeof *list);
	bool	   *mine = palloc(Max(n_jobs, 1) * sizeof *mine);
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
		list[n++] = dlist_container(M1Job, node, iter.cur);
	if (n > 0)
		m1pg_renew_leases(list, mine, n);
	for (int i = 0; i < n; i++)
		if (!mine[i])
			forget_job(list[i]);
	renewed_at = GetCurrentTimestamp();
}

static int
count_jobs(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
		n++;
	return n;
}

/* Results that cannot be written yet take no place of the model's. */
static int
places_free(void)
{
	int			n = places();
	dlist_iter	iter;

	dlist_foreach(iter, &jobs)
		if (!dlist_container(M1Job, node, iter.cur)->ended)
			n--;
	return n;
}

static void
take_jobs(bool making_room)
{
	static bool suspect_was_last = false;
	int			n = places_free();

	if (n_jobs == 0)
		alone = false;
	if (!more_may_be_due || making_room || alone || n <= 0 || is_paused())
		return;
	/* between two suspects the others have their turn */
	if (!suspect_was_last && m1pg_suspect_is_due())
	{
		/* first what is in flight ends */
		if (n_jobs > 0)
		{
			more_may_be_due = false;
			return;
		}
		alone = m1pg_claim_suspect(&jobs) > 0;
	}
	/* one that somebody has locked holds up no other */
	if (!alone)
		more_may_be_due = m1pg_claim(n, &jobs) == n || (suspect_was_last && m1pg_suspect_is_due());
	suspect_was_last = alone;
	n_jobs = count_jobs();
	if (n_jobs == 0)
		alone = false;
}

static bool
turn_is_due(void)
{
	dlist_iter	iter;
	TimestampTz now = GetCurrentTimestamp();

	dlist_foreach(iter, &jobs)
		if (can_write(dlist_container(M1Job, node, iter.cur), now))
			return true;
	return (more_may_be_due && !alone && places_free() > 0 && !is_paused()) ||
		(n_jobs > 0 && is_time_again(renewed_at));
}

/* What is done once in a while, however busy the queue is. */
static void
tidy_up(void)
{
	const M1Blame blame = m1pg_runner_take_blame();

	m1pg_release_orphans(&blame);
	m1pg_forget_old();
	tidied_at = GetCurrentTimestamp();
}

/* 0 = never. */
static TimestampTz
earlier(TimestampTz a, TimestampTz b)
{
	return a == 0 || b == 0 ? Max(a, b) : Min(a, b);
}

/* What has processes of its own: when to look at it again. */
static TimestampTz
look_at_others(void)
{
	TimestampTz agents = m1pg_agent_runs_look();

	return earlier(agents, m1pg_trainings_look());
}

/* false when the extension is gone. */
static bool
turn(bool look_at_leases, bool making_room)
{
	bool		installed;

	begin_turn();
	installed = OidIsValid(m1pg_extension_owner());
	if (installed)
	{
		finish_jobs();
		if (look_at_leases || is_time_again(renewed_at))
			renew_leases();
		if (is_time_again(tidied_at))
		{
			tidy_up();
			more_may_be_due = true;
		}
		take_jobs(making_room);
		if (look_at_leases)
			(void) look_at_others();
	}
	end_turn();
	m1pg_jobs_ended();
	start_requests();
	return installed;
}

/* ---- the loop ---- */

static void
set_up(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, on_sigterm);
	BackgroundWorkerUnblockSignals();
	in_turn = true;
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	in_turn = false;
	m1pg_definitions_init();
	m1pg_steps_init();
	m1pg_process_settings();
	/* one table that is locked does not hold up the others */
	SetConfigOption("lock_timeout", "200ms", PGC_SUSET, PGC_S_OVERRIDE);
}

/* When this database's next runner is to be started. */
static TimestampTz
look_ahead(void)
{
	TimestampTz next = 0;

	begin_turn();
	if (OidIsValid(m1pg_extension_owner()))
	{
		TimestampTz others = look_at_others();

		tidy_up();
		next = earlier(m1pg_next_due(), others);
	}
	end_turn();
	return next;
}

static void
release_all(void)
{
	dlist_mutable_iter iter;

	if (n_jobs == 0)
		return;
	begin_turn();
	dlist_foreach_modify(iter, &jobs)
	{
		M1Job	   *job = dlist_container(M1Job, node, iter.cur);

		if (OidIsValid(m1pg_extension_owner()))
			m1pg_release(job, false, 0);
		forget_job(job);
	}
	end_turn();
}

/* Returns false after LINGER_MS in which nothing came. */
static bool
wait_for_something(void)
{
	long		timeout = LINGER_MS;
	int			events;

	if (n_jobs > 0)
		timeout = LOOK_MS;
	else if (paused_until != 0)
		timeout = Max(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), paused_until));
	for (dlist_node *node = dlist_is_empty(&jobs) ? NULL : dlist_head_node(&jobs); node != NULL;
		 node = dlist_has_next(&jobs, node) ? dlist_next_node(&jobs, node) : NULL)
	{
		M1Job	   *job = dlist_container(M1Job, node, node);

		if (job->ended)
			timeout = Min(timeout, Max(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), job->write_at)));
	}
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, PG_WAIT_EXTENSION);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	return (events & WL_LATCH_SET) || n_jobs > 0 || paused_until != 0;
}

/* Works until there is nothing to do. Returns when there will be; 0 = nobody knows. */
static TimestampTz
work(void)
{
	TimestampTz started = GetCurrentTimestamp();

	for (;;)
	{
		TimestampTz next;
		bool		woken;
		bool		making_room;

		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending || m1pg_runner_is_in_the_way())
		{
			release_all();
			return GetCurrentTimestamp();
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		woken = m1pg_runner_woken();
		more_may_be_due = more_may_be_due || woken;
		making_room = TimestampDifferenceExceeds(started, GetCurrentTimestamp(), FAIR_SHARE_MS) &&
			m1pg_runner_others_wait();
		poll_requests();
		start_requests();
		/* a job in flight may be what somebody has cancelled */
		if ((turn_is_due() || (woken && n_jobs > 0)) && !turn(woken, making_room))
			return 0;
		if (making_room && n_jobs == 0)
			return GetCurrentTimestamp();
		if (turn_is_due() && !making_room)
			continue;
		if (wait_for_something() || n_jobs > 0 || is_paused())
			continue;
		next = look_ahead();
		if (next == 0 || TimestampDifferenceExceeds(GetCurrentTimestamp(), next, LINGER_MS))
			return next;
		more_may_be_due = true;
	}
}

void
m1pg_job_runner_main(Datum main_arg)
{
	set_up(DatumGetObjectId(main_arg));
	if (!m1pg_runner_join())
		proc_exit(0);
	m1pg_recall_ends();
	renewed_at = GetCurrentTimestamp();
	/* before the look: whatever comes later wakes again, even when this one has left */
	(void) m1pg_runner_woken();
	if (look_ahead() == 0)
	{
		m1pg_runner_leave(0);
		proc_exit(0);
	}
	m1pg_runner_leave(work());
	proc_exit(0);
}
