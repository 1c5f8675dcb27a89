/*
 * attempt.c
 *	  Runs what may fail, or never end: rewards, queries of examples, SQL that a
 *	  model has written, and tools that it calls. Each is a subtransaction with a
 *	  time limit. Unless a tool is to change something, it is rolled back, is read
 *	  only, runs as one role and cannot become another.
 *
 *	  Attempts nest: a reward may run a query. The limit of the outer one holds for
 *	  both. One process has one timer for all of them.
 *
 *	  Code may catch the cancel and go on. So it is cancelled again and again; and a
 *	  process that serves others ends itself when that goes on for as long as the
 *	  limit was.
 */
#include "pg/attempt.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

static bool has_timer = false;
static TimeoutId timer;
static TimestampTz deadline = 0;	/* of the innermost attempt; 0 = none */
static TimestampTz patience_until = 0;	/* of the outermost attempt with a limit; 0 = none */
static volatile sig_atomic_t rang = false;
static volatile sig_atomic_t overdue = false;

bool		m1pg_attempt_ends_process = false;

/* What code has to unwind, it does within this, if it wants to. */
#define RING_AGAIN_MS	100

bool
m1pg_attempt_was_overdue(void)
{
	return overdue;
}

/* A signal handler: as a cancel, which code for OTHERS does not catch. One that is on its way means all of it. */
static void
ring(void)
{
	if (m1pg_attempt_ends_process && patience_until != 0 && GetCurrentTimestamp() >= patience_until)
	{
		overdue = true;
		ProcDiePending = true;
	}
	else if (QueryCancelPending)
		return;
	rang = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Sets the time from which on it rings; 0 = never. */
static void
set_deadline(TimestampTz when)
{
	if (!has_timer)
		timer = RegisterTimeout(USER_TIMEOUT, ring);
	has_timer = true;
	disable_timeout(timer, false);
	deadline = when;
	if (when != 0)
		enable_timeout_every(timer, when, RING_AGAIN_MS);
}

static TimestampTz
deadline_of(const M1Attempt *attempt)
{
	TimestampTz own = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), attempt->limit_ms);

	if (attempt->limit_ms == 0)
		return deadline;
	return deadline != 0 && deadline < own ? deadline : own;
}

/* ---- what a rollback does not take back ---- */

static bool read_only = false;	/* in an attempt that leaves nothing */
static object_access_hook_type next_object_access_hook = NULL;

/*
 * Locks stay, and take room in a table that all sessions share; numbers drawn in the session afterwards would be
 * others, and processes that were ended are. Of the rest, PostgreSQL refuses what it knows to last, such as LISTEN.
 */
static bool
lasts(Oid function)
{
	switch (function)
	{
		case F_PG_ADVISORY_LOCK_INT8:
		case F_PG_ADVISORY_LOCK_INT4_INT4:
		case F_PG_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_XACT_LOCK_INT8:
		case F_PG_ADVISORY_XACT_LOCK_INT4_INT4:
		case F_PG_ADVISORY_XACT_LOCK_SHARED_INT8:
		case F_PG_ADVISORY_XACT_LOCK_SHARED_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_INT8:
		case F_PG_TRY_ADVISORY_LOCK_INT4_INT4:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT8:
		case F_PG_TRY_ADVISORY_LOCK_SHARED_INT4_INT4:
		case F_PG_TRY_ADVISORY_XACT_LOCK_INT8:
		case F_PG_TRY_ADVISORY_XACT_LOCK_INT4_INT4:
		case F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT8:
		case F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_INT8:
		case F_PG_ADVISORY_UNLOCK_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT8:
		case F_PG_ADVISORY_UNLOCK_SHARED_INT4_INT4:
		case F_PG_ADVISORY_UNLOCK_ALL:
		case F_SETSEED:
		case F_PG_CANCEL_BACKEND:
		case F_PG_TERMINATE_BACKEND:
			return true;
		default:
			return false;
	}
}

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (next_object_access_hook != NULL)
		next_object_access_hook(access, class, object, sub, arg);
	if (read_only && access == OAT_FUNCTION_EXECUTE && lasts(object))
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("minimax_m1: %s() is not for what leaves nothing behind", get_func_name(object)),
				 errdetail("Rewards, queries of examples and tools that only read are undone; that would stay.")));
}

void
m1pg_watch_attempts(void)
{
	next_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
}

/* ---- an attempt ---- */

static void
begin_read_only(Oid role)
{
	Oid			userid;
	int			context;

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	/* the end of the subtransaction takes it back; until then it cannot be set to false */
	XactReadOnly = true;
	read_only = true;
}

/*
 * Whether an error is one that the attempt is for. Its own limit cancels it; whoever else cancels, be it the attempt
 * around it, means all of it.
 */
static bool
is_ours(const M1Attempt *attempt, const ErrorData *error)
{
	return attempt->out_of_time || error->sqlerrcode != ERRCODE_QUERY_CANCELED;
}

ErrorData *
m1pg_attempt(M1Attempt *attempt)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	TimestampTz outer = deadline;
	TimestampTz own = deadline_of(attempt);
	TimestampTz outer_patience = patience_until;
	bool		outer_read_only = read_only;
	ErrorData  *volatile error = NULL;

	if (patience_until == 0 && attempt->limit_ms != 0)
		patience_until = TimestampTzPlusMilliseconds(own, attempt->limit_ms);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (attempt->read_only)
			begin_read_only(attempt->role);
		set_deadline(own);
		attempt->run(attempt->arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	set_deadline(0);
	attempt->out_of_time = rang && own != outer && error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED;
	if (rang)
		QueryCancelPending = false; /* one that came too late is for nobody */
	rang = rang && own == outer;
	if (attempt->keep && error == NULL)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	patience_until = outer_patience;
	read_only = outer_read_only;
	set_deadline(outer);
	if (error != NULL && !is_ours(attempt, error))
		ReThrowError(error);
	return error;
}

void
m1pg_check_execute(Oid function, const char *name)
{
#if PG_VERSION_NUM >= 160000
	AclResult	result = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);
#else
	AclResult	result = pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);
#endif

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, name);
}
