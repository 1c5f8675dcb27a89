/*
 * job.c
 *	  A job in a runner's memory: a memory context with all that belongs to it.
 */
#include "pg/jobs/job.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

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

bytea *
m1pg_hash(const char *text)
{
	return DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(text)));
}

uint8 *
m1pg_hash_prompt(const char *prompt)
{
	uint8	   *copy = palloc(M1PG_HASH_SIZE);

	memcpy(copy, VARDATA_ANY(m1pg_hash(prompt)), M1PG_HASH_SIZE);
	return copy;
}

bytea *
m1pg_hash_target(const char *target)
{
	bytea	   *empty;

	if (target != NULL)
		return m1pg_hash(target);
	empty = palloc(VARHDRSZ);
	SET_VARSIZE(empty, VARHDRSZ);
	return empty;
}
