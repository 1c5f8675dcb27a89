/*
 * attempt.c
 *	  Runs what may fail, or never end: rewards, queries of examples, SQL that a
 *	  model has written, and tools that it calls. Each is a subtransaction with a
 *	  time limit. Unless a tool is to change something, it is rolled back, is read
 *	  only, runs as one role and cannot become another.
 *
 *	  Attempts nest: a reward may run a query. The limit of the outer one holds for
 *	  both. One process has one timer for all of them.
 */
#include "pg/attempt.h"

#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

static bool has_timer = false;
static TimeoutId timer;
static TimestampTz deadline = 0;	/* of the innermost attempt; 0 = none */
static volatile sig_atomic_t rang = false;

/* A signal handler: as a cancel, which code for OTHERS does not catch. One that is on its way means all of it. */
static void
ring(void)
{
	if (QueryCancelPending)
		return;
	rang = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Sets the time at which it rings; 0 = never. */
static void
set_deadline(TimestampTz when)
{
	if (!has_timer)
		timer = RegisterTimeout(USER_TIMEOUT, ring);
	has_timer = true;
	disable_timeout(timer, false);
	deadline = when;
	if (when != 0)
		enable_timeout_at(timer, when);
}

static TimestampTz
deadline_of(const M1Attempt *attempt)
{
	TimestampTz own = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), attempt->limit_ms);

	if (attempt->limit_ms == 0)
		return deadline;
	return deadline != 0 && deadline < own ? deadline : own;
}

static void
begin_read_only(Oid role)
{
	Oid			userid;
	int			context;

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	/* the end of the subtransaction takes it back; until then it cannot be set to false */
	XactReadOnly = true;
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
	ErrorData  *volatile error = NULL;

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
