/*
 * worker.c
 *	  The background worker: one loop over its latch, the engine's socket and
 *	  the clock. It does all PostgreSQL calls and no arithmetic.
 *
 *	  Nothing in the loop blocks, but for the fsync of the usage file twice a
 *	  minute. An error here ends the worker with exit code 1:
 *	  the postmaster starts a new one, the cluster does not restart, and the
 *	  backends that were waiting see their queues detached.
 */
#include "pg/worker/worker.h"
#include "pg/shared.h"
#include "pg/usage/usage_file.h"
#include "pg/worker/engine_process.h"
#include "pg/worker/readiness.h"
#include "pg/worker/relay.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

void		(*m1pg_engine_ready_hook) (void) = NULL;

static void
leave_shared(int code, Datum arg)
{
	m1pg_engine_stop();
	m1pg_relays_end();
	m1pg_usage_save(true);
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	if (m1pg_shared->worker == MyProc)
		m1pg_shared->worker = NULL;
	/* whoever waits for an answer looks up and sees that there is no worker */
	for (int i = 0; i < m1pg_shared->n_slots; i++)
		if (m1pg_shared->slots[i].proc != NULL)
			SetLatch(&m1pg_shared->slots[i].proc->procLatch);
	LWLockRelease(m1pg_shared->lock);
}

static void
join_shared(void)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->worker = MyProc;
	LWLockRelease(m1pg_shared->lock);
	before_shmem_exit(leave_shared, 0);
}

static void
reload(void)
{
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	m1pg_engine_heed_settings();
}

static long
earlier(long a, long b)
{
	if (a < 0 || b < 0)
		return Max(a, b);
	return Min(a, b);
}

/*
 * A set is made for each wait: the engine's socket comes and goes, and a set
 * cannot forget one. One epoll instance a wait costs microseconds.
 */
static void
wait_for_something(void)
{
	bool		want_write;
	pgsocket	sock = m1pg_engine_socket(&want_write);
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout = earlier(earlier(m1pg_engine_timeout(), m1pg_relays_timeout()), m1pg_usage_timeout());

	if (timeout >= 0)
		events |= WL_TIMEOUT;
	if (sock != PGINVALID_SOCKET)
		events |= WL_SOCKET_READABLE | (want_write ? WL_SOCKET_WRITEABLE : 0);
	if (WaitLatchOrSocket(MyLatch, events, sock, timeout, PG_WAIT_EXTENSION) & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

static void
tell_ready(void)
{
	SetLatch(MyLatch);			/* requests may wait for it: the loop goes round once more */
	if (m1pg_engine_ready_hook != NULL)
		m1pg_engine_ready_hook();
}

void
m1pg_worker_main(Datum main_arg)
{
	static const M1EngineHandler handler = {tell_ready, m1pg_relays_fail_running, m1pg_relays_frame};

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	m1pg_engine_init(&handler);
	m1pg_relays_init();
	join_shared();

	while (!ShutdownRequestPending)
	{
		if (ConfigReloadPending)
			reload();
		m1pg_engine_pump();
		m1pg_engine_supervise();
		m1pg_relays_pump();
		if (m1pg_readiness()->state == M1_ENGINE_DRAINING && m1pg_relays_running() == 0)
		{
			m1pg_engine_stop();
			continue;
		}
		m1pg_engine_pump();
		m1pg_usage_save(false);
		wait_for_something();
	}
	/* Not 0, which would tell the postmaster never to start the worker again: a lone SIGTERM is a restart. */
	proc_exit(1);
}
