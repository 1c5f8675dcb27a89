/*
 * job_step.c
 *	  A step of a job, in which code of others may run: triggers and all else that
 *	  the owner of an annotated table attaches to it. Such code may sleep, wait or
 *	  loop, and the runner has one thread for all jobs of its database.
 *
 *	  So a step has a time limit, minimax_m1.job_write_timeout, after which it is
 *	  cancelled, as by statement_timeout. Code that catches the cancel has as long
 *	  again; then the runner ends itself. And whose rows take much time waits
 *	  (job_aside.c).
 *
 *	  Such code may also end the process, by a timeout that it sets, or because it
 *	  may. The next runner is told which job this one was at, and what was the last
 *	  that it said (job_shared.c).
 */
#include "pg/jobs/job_step.h"
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/process.h"
#include "pg/settings.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

static TimeoutId last_limit;
static emit_log_hook_type next_emit_log_hook = NULL;

/* An error that is not caught ends the process. */
static void
on_emit_log(ErrorData *error)
{
	if (error->elevel >= ERROR)
		m1pg_runner_note_end(error->sqlerrcode, error->message != NULL ? error->message : "");
	if (next_emit_log_hook != NULL)
		next_emit_log_hook(error);
}

/* A signal handler. */
static void
end_runner(void)
{
	m1pg_runner_step_is_deaf();
	m1pg_process_end();
}

void
m1pg_steps_init(void)
{
	last_limit = RegisterTimeout(USER_TIMEOUT, end_runner);
	next_emit_log_hook = emit_log_hook;
	emit_log_hook = on_emit_log;
}

static void
start_limits(void)
{
	enable_timeout_after(STATEMENT_TIMEOUT, m1pg_job_write_timeout);
	enable_timeout_after(last_limit, 2 * m1pg_job_write_timeout);
}

static void
stop_limits(void)
{
	disable_timeout(last_limit, false);
	disable_timeout(STATEMENT_TIMEOUT, false);
	/* a cancel that came too late is for nobody */
	QueryCancelPending = false;
}

/* Says what was cancelled, and why. */
static void
explain(M1Job *job, ErrorData *error, long elapsed)
{
	job->out_of_time = error->sqlerrcode == ERRCODE_QUERY_CANCELED && elapsed >= m1pg_job_write_timeout;
	if (!job->out_of_time)
		return;
	error->message = psprintf("minimax_m1: the row was not written within %d ms", m1pg_job_write_timeout);
	error->detail = "What triggers and other code of its table do counts, and what they wait for.";
	error->hint = "Let them do less, or raise minimax_m1.job_write_timeout.";
}

ErrorData *
m1pg_try(M1Job *job, M1Step step, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	TimestampTz started = GetCurrentTimestamp();
	ErrorData  *volatile error = NULL;
	long		elapsed;

	job->out_of_time = false;
	m1pg_runner_at_step(job->id);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		start_limits();
		step(job, arg);
		stop_limits();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		stop_limits();
		MemoryContextSwitchTo(job->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	elapsed = TimestampDifferenceMilliseconds(started, GetCurrentTimestamp());
	if (error != NULL)
	{
		MemoryContextSwitchTo(job->context);
		explain(job, error, elapsed);
	}
	if (job->annotator_id != 0)
		m1pg_charge_time(job->annotator_id, job->table_owner, elapsed);
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	m1pg_runner_at_step(0);
	return error;
}
