/*
 * job.c
 *	  A job in a runner's memory: a memory context with all that belongs to it.
 */
#include "pg/jobs/job.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

static void
wipe(const void *data, Size len)
{
	if (len > 0)
		explicit_bzero(unconstify(void *, data), len);
}

void
m1pg_free_job(M1Job *job)
{
	wipe(job->request.prompt.data, job->request.prompt.len);
	wipe(job->request.system.data, job->request.system.len);
	wipe(job->done.content.data, job->done.content.len);
	wipe(job->done.reasoning.data, job->done.reasoning.len);
	MemoryContextDelete(job->context);
}

uint8 *
m1pg_hash_prompt(const char *prompt)
{
	bytea	   *hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(prompt)));
	uint8	   *copy = palloc(32);

	memcpy(copy, VARDATA_ANY(hash), 32);
	return copy;
}

ErrorData *
m1pg_try(M1Job *job, M1Step step, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(job, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(job->context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
