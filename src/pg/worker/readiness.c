/*
 * readiness.c
 *	  What there is of the engine, and what the world sees of it: the worker's
 *	  part of shared memory that is about the model.
 */
#include "pg/worker/readiness.h"

#include "base/memory.h"
#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

static M1Readiness current;

const M1Readiness *
m1pg_readiness(void)
{
	return &current;
}

void
m1pg_set_readiness(const M1Readiness *now)
{
	M1ModelInfo *info = &m1pg_shared->model;

	Assert(now->pid != 0 || !m1pg_engine_serves(now->state));
	Assert((now->error.code != M1_OK) == (now->state == M1_ENGINE_FAILED));
	current = *now;
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	info->readiness = current;
	if (!m1pg_engine_serves(current.state))
		info->snapshots = info->snapshot_bytes = 0;
	LWLockRelease(m1pg_shared->lock);
}

m1_error
m1pg_refusal(void)
{
	m1_error	refusal = current.error;
	Size		used = strlen(refusal.detail);
	long		wait;

	if (current.pid == 0)
	{
		wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), current.next_try);
		snprintf(refusal.detail + used, sizeof refusal.detail - used, "%sThe next try is in %ld s.",
				 used > 0 ? " " : "", (Max(0, wait) + 999) / 1000);
	}
	return refusal;
}

/* A folder's name may be in any encoding; what is not UTF-8 is shown as PostgreSQL shows an application_name. */
static void
copy_name(char *to, int size, m1_slice from)
{
	bool		utf8 = pg_verify_mbstr(PG_UTF8, from.data, (int) from.len, true);
	int			n = pg_encoding_mbcliplen(PG_UTF8, from.data, (int) from.len, size - 1);

	for (int i = 0; i < n; i++)
		to[i] = utf8 || (from.data[i] >= 32 && from.data[i] <= 126) ? from.data[i] : '?';
	to[n] = '\0';
}

void
m1pg_publish_model(const m1w_ready *ready)
{
	M1ModelInfo *info = &m1pg_shared->model;
	const uint64 machine_bytes = m1_machine_memory();

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	copy_name(info->name, sizeof info->name, ready->name);
	copy_name(info->architecture, sizeof info->architecture, ready->architecture);
	copy_name(info->device, sizeof info->device, ready->device);
	info->parameters = ready->parameters;
	info->bytes = ready->bytes;
	info->layers = ready->layers;
	info->experts = ready->experts;
	info->context = ready->context;
	info->vocab = ready->vocab;
	info->has_tokenizer = ready->has_tokenizer;
	info->machine_bytes = machine_bytes;
	LWLockRelease(m1pg_shared->lock);
}

void
m1pg_publish_snapshots(const m1w_cache *cache)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->model.snapshots = cache->snapshots;
	m1pg_shared->model.snapshot_bytes = cache->bytes;
	LWLockRelease(m1pg_shared->lock);
}

void
m1pg_publish_restart(void)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->model.restarts++;
	LWLockRelease(m1pg_shared->lock);
}
