/*
 * shared.c
 *	  The shared-memory table through which backends and worker meet.
 *
 *	  One LWLock protects all of it. It is held for copies only, never while
 *	  waiting. Latches are set after it is released or while it is held; they
 *	  never block.
 */
#include "pg/shared.h"
#include "pg/settings.h"

#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"

#define TRANCHE "minimax_m1"

M1Shared   *m1pg_shared = NULL;

static Size
shared_size(void)
{
	Size		slots = mul_size((Size) m1pg_max_requests + (Size) m1pg_max_queue, sizeof(M1Slot));

	return add_size(offsetof(M1Shared, slots), slots);
}

void
m1pg_shared_request(void)
{
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

void
m1pg_shared_startup(void)
{
	bool		found;

	m1pg_shared = ShmemInitStruct(TRANCHE, shared_size(), &found);
	if (found)
		return;
	memset(m1pg_shared, 0, shared_size());
	m1pg_shared->lock = &(GetNamedLWLockTranche(TRANCHE))->lock;
	m1pg_shared->n_slots = m1pg_max_requests + m1pg_max_queue;
	m1pg_shared->started = GetCurrentTimestamp();
}

void
m1pg_require_shared(void)
{
	if (m1pg_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("minimax_m1 must be loaded when the server starts"),
				 errhint("Add minimax_m1 to shared_preload_libraries and restart the server.")));
}

void
m1pg_slot_clear(M1Slot *slot)
{
	/* all of it: the excerpt is part of somebody's prompt */
	memset(slot, 0, sizeof *slot);
	m1pg_shared->n_used--;
}

void
m1pg_wake_worker(void)
{
	PGPROC	   *worker = m1pg_shared->worker;

	/* A PGPROC is never unmapped; at worst a stranger's latch is set once too often. */
	if (worker != NULL)
		SetLatch(&worker->procLatch);
}
