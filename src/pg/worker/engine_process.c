/*
 * engine_process.c
 *	  The engine as a child of the worker: started with fork and exec, spoken to
 *	  over a socket pair, restarted when it ends.
 *
 *	  A process of its own, because a crash inside a process that is attached to
 *	  shared memory restarts the whole cluster; a crashed engine only fails the
 *	  requests it was working on.
 */
#include "pg/jobs/jobs.h"
#include "pg/shared.h"
#include "pg/worker/command_line.h"
#include "pg/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_BACKOFF_MS	1000
#define MOST_BACKOFF_MS		60000
/* An engine that lives this long was well; its end is not held against the next start. */
#define HEALTHY_MS			10000
#define STOP_GRACE_MS		2000
#define READ_CHUNK			65536

static struct
{
	M1FrameHandler handler;
	M1EnginePhase phase;
	pid_t		pid;			/* 0 = none */
	pgsocket	sock;			/* PGINVALID_SOCKET = none */
	m1_buf		in;
	m1_buf		out;
	bool		draining;
	bool		ever_started;
	int			failures;		/* starts in a row that failed or did not last */
	TimestampTz ready_at;
	TimestampTz next_try;		/* 0 = at once */
	m1_error	refusal;		/* code M1_OK = none: requests may wait */
	StringInfoData command_line;	/* of the last start */
} engine = {.sock = PGINVALID_SOCKET};

/* ---- what the world sees ---- */

static void
publish_state(M1EngineState state)
{
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->model.state = state;
	m1pg_shared->model.engine_pid = engine.pid;
	m1pg_shared->model.error = engine.refusal;
	m1pg_shared->model.next_try = engine.next_try;
	if (engine.phase != M1_PROCESS_READY)
		m1pg_shared->model.snapshots = m1pg_shared->model.snapshot_bytes = 0;
	LWLockRelease(m1pg_shared->lock);
}

static void
copy_name(char *to, m1_slice from)
{
	Size		n = Min(from.len, NAMEDATALEN - 1);

	memcpy(to, from.data, n);
	to[n] = '\0';
}

static void
publish_ready(const m1w_ready *ready)
{
	M1ModelInfo *info = &m1pg_shared->model;

	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	copy_name(info->name, ready->name);
	copy_name(info->architecture, ready->architecture);
	copy_name(info->device, ready->device);
	info->parameters = ready->parameters;
	info->bytes = ready->bytes;
	info->layers = ready->layers;
	info->experts = ready->experts;
	info->context = ready->context;
	info->vocab = ready->vocab;
	info->has_tokenizer = ready->has_tokenizer;
	LWLockRelease(m1pg_shared->lock);
}

/* ---- start ---- */

/* In the child, between fork and exec: async-signal-safe calls only. */
static void
become_engine(int sock, pid_t parent, char *const argv[])
{
	sigset_t	none;

	/* The engine never outlives the worker, however that ends. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	if (sock == M1PG_ENGINE_FD)
		fcntl(sock, F_SETFD, 0);
	else if (dup2(sock, M1PG_ENGINE_FD) < 0)
		_exit(1);
	/* PostgreSQL's files are none of the engine's business. */
	if (close_range(M1PG_ENGINE_FD + 1, ~0U, 0) != 0)
		for (int fd = M1PG_ENGINE_FD + 1; fd < 65536; fd++)
			close(fd);
	for (int sig = 1; sig < 32; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(argv[0], argv);
	_exit(127);
}

static void
refuse_until(m1_status code, TimestampTz next_try, const char *message, const char *detail, const char *hint)
{
	m1_fail(&engine.refusal, code, "%s", message);
	m1_error_detail(&engine.refusal, "%s", detail);
	m1_error_hint(&engine.refusal, "%s", hint);
	engine.next_try = next_try;
	publish_state(M1_ENGINE_FAILED);
}

static TimestampTz
next_try_after_failure(void)
{
	int			shift = Min(engine.failures, 6);
	int			wait = Min(FIRST_BACKOFF_MS << shift, MOST_BACKOFF_MS);

	engine.failures++;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait);
}

static bool
is_executable(const char *program)
{
	char	   *detail;

	if (access(program, X_OK) == 0)
		return true;
	detail = psprintf("\"%s\": %m", program);
	refuse_until(M1_E_UNAVAILABLE, next_try_after_failure(), "the engine executable cannot be run",
				 detail, "Install it beside the library, or set minimax_m1.engine_path.");
	ereport(LOG, (errmsg("minimax_m1: the engine executable cannot be run: %s", detail)));
	pfree(detail);
	return false;
}

/* false: the system does not let us. */
static bool
spawn(char *const argv[])
{
	int			socks[2];
	pid_t		parent = getpid();
	pid_t		pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) != 0)
		ereport(ERROR, (errcode_for_socket_access(), errmsg("minimax_m1: could not create a socket pair: %m")));
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become_engine(socks[1], parent, argv);
	close(socks[1]);
	if (pid < 0)
	{
		close(socks[0]);
		return false;
	}
	fcntl(socks[0], F_SETFL, O_NONBLOCK);
	engine.sock = socks[0];
	engine.pid = pid;
	return true;
}

static void
note_start(void)
{
	char		model[MAXPGPATH];

	engine.phase = M1_PROCESS_LOADING;
	engine.next_try = 0;
	if (engine.ever_started)
	{
		LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
		m1pg_shared->model.restarts++;
		LWLockRelease(m1pg_shared->lock);
	}
	engine.ever_started = true;
	/* While a failed model is tried again, requests still fail at once instead of waiting in vain. */
	publish_state(engine.refusal.code == M1_OK ? M1_ENGINE_STARTING : M1_ENGINE_FAILED);
	m1pg_model_path(model);
	ereport(LOG, (errmsg("minimax_m1: started engine with process ID %d for model \"%s\"", (int) engine.pid, model)));
}

static void
start_engine(void)
{
	char	  **argv;

	m1pg_command_line(&engine.command_line);
	argv = m1pg_command_line_argv(&engine.command_line);
	if (is_executable(argv[0]))
	{
		if (spawn(argv))
			note_start();
		else
			refuse_until(M1_E_UNAVAILABLE, next_try_after_failure(), "the engine could not be started",
						 "fork failed.", "Look for a lack of memory or processes.");
	}
	pfree(argv);
}

/* ---- end ---- */

/* Closes the socket, which ends a healthy engine; waits, then kills. Returns the wait status. */
static int
reap(int grace_ms)
{
	int			status = 0;
	int			waited = 0;

	if (engine.sock != PGINVALID_SOCKET)
		closesocket(engine.sock);
	engine.sock = PGINVALID_SOCKET;
	m1_buf_free(&engine.in);
	m1_buf_free(&engine.out);
	if (engine.pid == 0)
		return 0;
	while (waitpid(engine.pid, &status, WNOHANG) == 0)
	{
		if (waited >= grace_ms)
		{
			kill(engine.pid, SIGKILL);
			while (waitpid(engine.pid, &status, 0) < 0 && errno == EINTR)
				;
			break;
		}
		pg_usleep(10000L);
		waited += 10;
	}
	engine.pid = 0;
	engine.phase = M1_PROCESS_NONE;
	return status;
}

static void
describe_end(int status, char *text, Size size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "The engine process was terminated by signal %d.", WTERMSIG(status));
	else
		snprintf(text, size, "The engine process ended with exit code %d.", WEXITSTATUS(status));
}

/* The engine ended, or has to: `why` is NULL when it went by itself. */
static void
engine_lost(const char *why)
{
	bool		was_ready = engine.phase == M1_PROCESS_READY;
	bool		healthy = was_ready &&
		TimestampDifferenceExceeds(engine.ready_at, GetCurrentTimestamp(), HEALTHY_MS);
	char		end[128];
	m1_error	lost;

	describe_end(reap(why == NULL ? STOP_GRACE_MS : 0), end, sizeof end);
	ereport(LOG, (errmsg("minimax_m1: the engine is gone%s%s", why != NULL ? ": " : "", why != NULL ? why : ""),
				  errdetail("%s", end)));
	m1_fail(&lost, M1_E_UNAVAILABLE, "the engine went away");
	m1_error_detail(&lost, "%s", why != NULL ? why : end);
	m1_error_hint(&lost, "The request was not completed. It is safe to try again; the engine restarts by itself.");
	m1pg_relays_fail_running(&lost);
	if (healthy)
		engine.failures = 0;
	/* A first crash is answered by a restart at once; requests that wait for it go on waiting. */
	if (was_ready && engine.failures == 0)
	{
		engine.failures = 1;
		engine.next_try = 0;
		publish_state(M1_ENGINE_STARTING);
		return;
	}
	if (engine.refusal.code == M1_OK)
		refuse_until(M1_E_UNAVAILABLE, next_try_after_failure(), "the engine does not stay up",
					 why != NULL ? why : end, "The server log has the engine's own messages.");
	else
	{
		engine.next_try = next_try_after_failure();
		publish_state(M1_ENGINE_FAILED);
	}
}

void
m1pg_engine_stop(void)
{
	reap(STOP_GRACE_MS);
}

/* ---- frames ---- */

static void
on_ready(const char *payload, Size len)
{
	m1w_ready	ready;
	m1_error	error;

	if (m1w_decode_ready(payload, len, &ready, &error) != M1_OK)
	{
		engine_lost("It sent a malformed greeting.");
		return;
	}
	engine.phase = M1_PROCESS_READY;
	engine.ready_at = GetCurrentTimestamp();
	memset(&engine.refusal, 0, sizeof engine.refusal);
	publish_ready(&ready);
	publish_state(engine.draining ? M1_ENGINE_DRAINING : M1_ENGINE_READY);
	m1pg_jobs_engine_ready();
	ereport(LOG, (errmsg("minimax_m1: model \"%s\" is ready on %s", m1pg_shared->model.name,
						 m1pg_shared->model.device)));
}

/* The engine says why it cannot start; its end follows. */
static void
on_start_failure(const char *payload, Size len)
{
	m1w_failure failure;
	m1_error	error;

	if (m1w_decode_failure(payload, len, &failure, &error) == M1_OK)
		m1w_failure_to_error(&failure, &error);
	engine.refusal = error;
	ereport(LOG, (errmsg("minimax_m1: the model could not be loaded: %s", error.message),
				  error.detail[0] != '\0' ? errdetail("%s", error.detail) : 0));
}

static void
on_cache(const char *payload, Size len)
{
	m1w_cache	cache;
	m1_error	error;

	if (m1w_decode_cache(payload, len, &cache, &error) != M1_OK)
	{
		engine_lost(error.message);
		return;
	}
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	m1pg_shared->model.snapshots = cache.snapshots;
	m1pg_shared->model.snapshot_bytes = cache.bytes;
	LWLockRelease(m1pg_shared->lock);
}

static void
on_frame(const m1w_header *header, const char *payload)
{
	if (header->request_id != 0)
		engine.handler(header, payload);
	else if (header->type == M1W_READY && engine.phase == M1_PROCESS_LOADING)
		on_ready(payload, header->length);
	else if (header->type == M1W_CACHE && engine.phase == M1_PROCESS_READY)
		on_cache(payload, header->length);
	else if (header->type == M1W_ERROR)
		on_start_failure(payload, header->length);
	else
		engine_lost("It sent a frame that makes no sense.");
}

static void
handle_input(void)
{
	Size		done = 0;
	bool		complete = true;

	while (complete && engine.sock != PGINVALID_SOCKET)
	{
		m1w_header	header;
		m1_error	error;

		if (m1w_frame_peek(engine.in.data + done, engine.in.len - done, &header, &complete, &error) != M1_OK)
		{
			engine_lost(error.message);
			return;
		}
		if (!complete)
			break;
		done += sizeof header;
		on_frame(&header, engine.in.data + done);
		done += header.length;
	}
	if (engine.sock != PGINVALID_SOCKET)
	{
		m1_buf_consume(&engine.in, done);
		if (engine.in.len == 0)
			m1_buf_free(&engine.in);
	}
}

static void
read_engine(void)
{
	while (engine.sock != PGINVALID_SOCKET)
	{
		ssize_t		n;

		if (!m1_buf_reserve(&engine.in, READ_CHUNK))
		{
			engine_lost("Out of memory for its answers.");
			return;
		}
		n = recv(engine.sock, engine.in.data + engine.in.len, engine.in.cap - engine.in.len, 0);
		if (n > 0)
		{
			engine.in.len += n;
			handle_input();
		}
		else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
		{
			engine_lost(NULL);
			return;
		}
		else if (errno != EINTR)
			return;
	}
}

static void
write_engine(void)
{
	while (engine.sock != PGINVALID_SOCKET && engine.out.len > 0)
	{
		ssize_t		n = send(engine.sock, engine.out.data, engine.out.len, MSG_NOSIGNAL);

		if (n > 0)
			m1_buf_consume(&engine.out, n);
		else if (errno != EINTR)
			return;				/* a broken socket shows up as end of input */
	}
	if (engine.out.len == 0)
		m1_buf_free(&engine.out);
}

void
m1pg_engine_send(m1w_type type, uint64 request, const void *payload, Size len)
{
	/* Callers may be walking over the requests: a failure is acted on in the next pump. */
	if (engine.phase == M1_PROCESS_READY)
		m1w_frame_append(&engine.out, type, request, payload, len);
}

void
m1pg_engine_pump(void)
{
	if (engine.out.failed)
		engine_lost("Out of memory for a request to it.");
	write_engine();
	read_engine();
}

/* ---- supervision ---- */

void
m1pg_engine_init(M1FrameHandler handler)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	initStringInfo(&engine.command_line);
	MemoryContextSwitchTo(old);
	engine.handler = handler;
}

M1EnginePhase
m1pg_engine_supervise(void)
{
	if (engine.phase == M1_PROCESS_NONE &&
		(engine.next_try == 0 || GetCurrentTimestamp() >= engine.next_try))
		start_engine();
	return engine.phase;
}

static void
restart(void)
{
	engine.failures = 0;
	memset(&engine.refusal, 0, sizeof engine.refusal);
	if (engine.phase == M1_PROCESS_NONE)
	{
		engine.next_try = 0;
		publish_state(M1_ENGINE_STARTING);
		return;
	}
	engine.draining = true;
	publish_state(M1_ENGINE_DRAINING);
}

void
m1pg_engine_heed_settings(void)
{
	StringInfoData now;

	initStringInfo(&now);
	m1pg_command_line(&now);
	if (now.len != engine.command_line.len || memcmp(now.data, engine.command_line.data, now.len) != 0)
		restart();
	pfree(now.data);
}

bool
m1pg_engine_is_draining(void)
{
	return engine.draining;
}

void
m1pg_engine_end_drain(void)
{
	engine.draining = false;
	reap(STOP_GRACE_MS);
	engine.next_try = 0;
	publish_state(M1_ENGINE_STARTING);
}

pgsocket
m1pg_engine_socket(bool *want_write)
{
	*want_write = engine.out.len > 0;
	return engine.sock;
}

long
m1pg_engine_timeout(void)
{
	if (engine.phase != M1_PROCESS_NONE || engine.next_try == 0)
		return -1;
	return Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), engine.next_try));
}

m1_error
m1pg_engine_refusal(void)
{
	m1_error	refusal = engine.refusal;
	long		wait = m1pg_engine_timeout();
	Size		used = strlen(refusal.detail);

	if (refusal.code != M1_OK && wait >= 0)
		snprintf(refusal.detail + used, sizeof refusal.detail - used, "%sThe next try is in %ld s.",
				 used > 0 ? " " : "", (wait + 999) / 1000);
	return refusal;
}
