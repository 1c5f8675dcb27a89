/*
 * training_runner.c
 *	  The process that trains: one in a database, for one training after another.
 *	  The job runner starts it (jobs/training_starts.c).
 *
 *	  It acts as the training's owner where code or queries of others run, with the
 *	  search_path and the time limits that train() was called with. Between a step's parts no transaction
 *	  is open. Whatever happens to it, to the engine or to the server, the next one
 *	  goes on from the step that ended last.
 */
#include "pg/learning/training.h"
#include "pg/attempt.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/process.h"
#include "pg/jobs/training_starts.h"
#include "pg/report.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

extern PGDLLEXPORT void m1pg_training_runner_main(Datum main_arg);

/* After a failure that passes, it waits this long; twice as long after each that follows. */
#define FIRST_PAUSE_MS	200
#define MOST_PAUSE_MS	30000
/* So often an engine may be lost under one step. */
#define MOST_LOSSES		8

M1Training *m1pg_training_taken = NULL;

/* ---- the process ---- */

static void
set_up(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	m1pg_process_settings();
	m1pg_attempt_ends_process = true;
}

/* Whoever looks for trainings looks again, when this process is not to be seen any more. */
static void
tell_launcher(int code, Datum arg)
{
	(void) m1pg_jobs_want(MyDatabaseId, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 500));
}

static void
wait_ms(long ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	while (ms > 0)
	{
		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION) & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	}
}

/* ---- a step, as often as it takes ---- */

/* Whether the engine that had the training was lost by this. */
static bool
is_loss(const M1Training *t, const m1_error *error)
{
	return t->engine != 0 && (error->code == M1_E_UNAVAILABLE || error->code == M1_E_DEVICE);
}

bool
m1pg_training_wait(M1Training *t, const m1_error *error)
{
	if (!m1pg_training_is_passing(t, error) || (is_loss(t, error) && ++t->losses > MOST_LOSSES))
		m1pg_report(error);
	if (m1pg_training_wanted(t) != M1_WANTED_NOTHING)
		return false;
	pgstat_report_activity(STATE_IDLE, "minimax_m1: training waits for the engine");
	wait_ms(t->pause_ms);
	t->pause_ms = Min(t->pause_ms * 2, MOST_PAUSE_MS);
	pgstat_report_activity(STATE_RUNNING, "minimax_m1: training");
	return m1pg_training_wanted(t) == M1_WANTED_NOTHING;
}

static void
begin_step(M1Training *t, MemoryContext context, M1StepResult *r)
{
	m1pg_training_begin_step(t, context, r);
	t->losses = 0;
	t->pause_ms = FIRST_PAUSE_MS;
}

static M1Wanted
do_step(M1Training *t, M1StepEnd *end)
{
	MemoryContext context = AllocSetContextCreate(t->context, "minimax_m1 step", ALLOCSET_DEFAULT_SIZES);
	MemoryContext of_try = AllocSetContextCreate(context, "minimax_m1 try", ALLOCSET_DEFAULT_SIZES);
	M1Wanted	wanted;
	m1_error	error;
	M1StepResult r;

	begin_step(t, context, &r);
	pgstat_report_activity(STATE_RUNNING, "minimax_m1: training");
	MemoryContextSwitchTo(of_try);
	while ((wanted = m1pg_training_wanted(t)) == M1_WANTED_NOTHING &&
		   (*end = m1pg_training_step(t, &r, &error)) == M1_STEP_AGAIN)
	{
		(void) m1pg_training_wait(t, &error);
		MemoryContextReset(of_try);
	}
	if (wanted == M1_WANTED_NOTHING && *end == M1_STEP_DONE)
		m1pg_training_write(t, &r);
	else if (wanted == M1_WANTED_NOTHING)
		m1pg_training_write_last(t, &r);
	MemoryContextSwitchTo(t->context);
	MemoryContextDelete(context);
	return wanted;
}

/* ---- a training ---- */

static void
leave(M1Training *t, M1Wanted wanted)
{
	if (wanted == M1_WANTED_PAUSE)
		m1pg_training_pause(t);
	else if (wanted == M1_WANTED_CANCEL)
		m1pg_training_finish(t, "cancelled", false);
}

/* As the session had it that called train(). */
static void
set(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

static void
train(M1Training *t)
{
	M1Wanted	wanted = M1_WANTED_NOTHING;
	M1StepEnd	end = M1_STEP_DONE;

	set("search_path", t->path);
	set("minimax_m1.reward_timeout", psprintf("%d", t->options.reward_timeout));
	set("minimax_m1.request_timeout", psprintf("%d", t->options.request_timeout));
	while (wanted == M1_WANTED_NOTHING && end == M1_STEP_DONE && t->step < t->steps)
		wanted = do_step(t, &end);
	if (wanted != M1_WANTED_NOTHING)
		leave(t, wanted);
	else
		m1pg_training_finish(t, "done", end == M1_STEP_NOTHING);
	m1pg_training_leave_engine(t);
}

static void
fail(const ErrorData *error)
{
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(m1pg_training_taken->context);
	set("search_path", "pg_catalog, pg_temp");
	m1pg_training_fail(m1pg_training_taken, error);
	m1pg_training_leave_engine(m1pg_training_taken);
}

/* What it was at is failed; what is open of requests goes with the process. */
static void
note_failure(void)
{
	ErrorData  *error;

	MemoryContextSwitchTo(m1pg_training_taken->context);
	error = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	fail(error);
}

/* At the end of the process: the reward has not let it go on, and would not let the next one either. */
static void
note_overdue(int code, Datum arg)
{
	ErrorData	error = {.sqlerrcode = ERRCODE_QUERY_CANCELED, .hint = "It must not catch query_canceled."};

	if (!m1pg_attempt_was_overdue() || m1pg_training_taken == NULL)
		return;
	error.message = psprintf("minimax_m1: the reward \"%s\" could not be cancelled", m1pg_training_taken->reward_name);
	error.detail = psprintf("It went on for twice minimax_m1.reward_timeout, which is %d ms.",
							m1pg_training_taken->options.reward_timeout);
	fail(&error);
}

void
m1pg_training_runner_main(Datum main_arg)
{
	M1Training *t;
	sigjmp_buf	stack;

	set_up(DatumGetObjectId(main_arg));
	before_shmem_exit(tell_launcher, 0);
	before_shmem_exit(note_overdue, 0);
	if (sigsetjmp(stack, 1) != 0)
	{
		error_context_stack = NULL;
		HOLD_INTERRUPTS();
		if (m1pg_training_taken == NULL)
		{
			EmitErrorReport();
			proc_exit(1);
		}
		RESUME_INTERRUPTS();
		PG_exception_stack = NULL;
		note_failure();
		proc_exit(0);
	}
	PG_exception_stack = &stack;
	while ((t = m1pg_training_claim()) != NULL)
	{
		train(t);
		m1pg_training_taken = NULL;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextDelete(t->context);
	}
	proc_exit(0);
}
