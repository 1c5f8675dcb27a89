/*
 * engine_process.c
 *	  The engine as a child of the worker: started with fork and exec, spoken to
 *	  over a socket pair, restarted when it ends.
 *
 *	  A process of its own, because a crash inside a process that is attached to
 *	  shared memory restarts the whole cluster; a crashed engine only fails the
 *	  requests it was working on.
 */
#include "pg/worker/engine_process.h"
#include "pg/report.h"
#include "pg/worker/answer.h"
#include "pg/worker/command_line.h"
#include "pg/worker/readiness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_BACKOFF_MS	1000
#define MOST_BACKOFF_MS		60000
/* The same for an engine that was well: it will be again, and until then everybody is refused. */
#define MOST_BACKOFF_WELL_MS 5000
/* An engine that lives this long was well; its end is not held against the next start. */
#define HEALTHY_MS			10000
/* An engine that served is started again at once, this often in a row. */
#define FREE_RESTARTS		3
#define STOP_GRACE_MS		2000
#define READ_CHUNK			65536
/* In one round of the worker's loop, so that an engine that floods keeps it from nothing else. */
#define MOST_READ			(4 * 1024 * 1024)
#define NONSENSE			"It sent a frame that makes no sense."

static struct
{
	const M1EngineHandler *handler;
	StringInfoData command_line;	/* of the last start */
	pgsocket	sock;			/* PGINVALID_SOCKET = none */
	m1_buf		in;
	m1_buf		out;
	bool		ever_started;
	bool		was_well;		/* with these settings */
	int			restarts;		/* at once, in a row, without having been well since */
	int			failures;		/* starts that failed or did not last, after those */
	TimestampTz ready_at;
} engine = {.sock = PGINVALID_SOCKET};

/* ---- readiness: see there for the states ---- */

static bool
is_serving(void)
{
	return m1pg_engine_serves(m1pg_readiness()->state);
}

static bool
is_loading(void)
{
	return m1pg_readiness()->pid != 0 && !is_serving();
}

/* The process that there is serves. */
static void
serve(M1EngineState state)
{
	M1Readiness now = {.state = state, .pid = m1pg_readiness()->pid};

	m1pg_set_readiness(&now);
}

/* There is no process; one is to be started at once. */
static void
start_over(void)
{
	M1Readiness now = {.state = M1_ENGINE_STARTING};

	m1pg_set_readiness(&now);
}

/* There is no process; one is to be started after a while, which is longer each time. */
static void
back_off(const m1_error *error)
{
	M1Readiness now = {.state = M1_ENGINE_FAILED, .error = *error};
	int			shift = Min(engine.failures, 6);
	int			wait = Min(FIRST_BACKOFF_MS << shift, engine.was_well ? MOST_BACKOFF_WELL_MS : MOST_BACKOFF_MS);

	engine.failures++;
	now.next_try = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait);
	m1pg_set_readiness(&now);
}

static void
back_off_for(const char *message, const char *detail, const char *hint)
{
	m1_error	error;

	m1_fail(&error, M1_E_UNAVAILABLE, "%s", message);
	m1_error_detail(&error, "%s", detail);
	m1_error_hint(&error, "%s", hint);
	back_off(&error);
}

/* A process was started. While a failed model is tried again, requests go on failing at once. */
static void
loading(pid_t pid)
{
	M1Readiness now = *m1pg_readiness();

	now.pid = pid;
	now.next_try = 0;
	m1pg_set_readiness(&now);
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

static bool
is_executable(const char *program)
{
	char	   *detail;

	if (m1pg_can_run(program))
		return true;
	detail = psprintf("\"%s\": %m", program);
	back_off_for("the engine executable cannot be run", detail,
				 "Install it beside the library, or set minimax_m1.engine_path.");
	ereport(LOG, (errmsg("minimax_m1: the engine executable cannot be run: %s", detail)));
	pfree(detail);
	return false;
}

/* Returns the process, and sets engine.sock; -1 when there can be none. */
static pid_t
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
		return -1;
	}
	fcntl(socks[0], F_SETFL, O_NONBLOCK);
	engine.sock = socks[0];
	return pid;
}

static void
note_start(pid_t pid)
{
	char		model[MAXPGPATH];

	if (engine.ever_started)
		m1pg_publish_restart();
	engine.ever_started = true;
	loading(pid);
	m1pg_model_path(model);
	ereport(LOG, (errmsg("minimax_m1: started engine with process ID %d for model \"%s\"", (int) pid, model)));
}

static void
start_engine(void)
{
	char	  **argv;
	pid_t		pid;

	m1pg_command_line(&engine.command_line);
	argv = m1pg_command_line_argv(&engine.command_line);
	if (is_executable(argv[0]))
	{
		if ((pid = spawn(argv)) > 0)
			note_start(pid);
		else
			back_off_for("the engine could not be started", "fork failed.",
						 "Look for a lack of memory or processes.");
	}
	pfree(argv);
}

/* ---- end ---- */

/*
 * Closes the socket, which ends a healthy engine; waits, then kills. Returns the
 * wait status. The readiness is the caller's to change.
 */
static int
reap(int grace_ms)
{
	pid_t		pid = m1pg_readiness()->pid;
	int			status = 0;
	int			waited = 0;

	if (engine.sock != PGINVALID_SOCKET)
		closesocket(engine.sock);
	engine.sock = PGINVALID_SOCKET;
	m1_buf_free(&engine.in);
	m1_buf_free(&engine.out);
	if (pid == 0)
		return 0;
	while (waitpid(pid, &status, WNOHANG) == 0)
	{
		if (waited >= grace_ms)
		{
			kill(pid, SIGKILL);
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			break;
		}
		pg_usleep(10000L);
		waited += 10;
	}
	return status;
}

/* The same, and tells the log; `why` is NULL when the engine goes by itself. *end says how it went. */
static void
bury(const char *why, char *end, Size size)
{
	int			status = reap(why == NULL ? STOP_GRACE_MS : 0);

	if (WIFSIGNALED(status))
		snprintf(end, size, "The engine process was terminated by signal %d.", WTERMSIG(status));
	else
		snprintf(end, size, "The engine process ended with exit code %d.", WEXITSTATUS(status));
	ereport(LOG, (errmsg("minimax_m1: the engine is gone%s%s", why != NULL ? ": " : "", why != NULL ? why : ""),
				  errdetail("%s", end)));
}

static void
forget_failures(void)
{
	engine.restarts = engine.failures = 0;
}

/* What an engine that was well did before counts no more. */
static void
note_health(void)
{
	if (!is_serving() || !TimestampDifferenceExceeds(engine.ready_at, GetCurrentTimestamp(), HEALTHY_MS))
		return;
	engine.was_well = true;
	forget_failures();
}

/* The engine ended, or has to: `why` is NULL when it went by itself. */
static void
engine_lost(const char *why)
{
	bool		worth_a_try;
	char		end[128];
	m1_error	lost;

	note_health();
	worth_a_try = (is_serving() || engine.was_well) && engine.restarts < FREE_RESTARTS;
	bury(why, end, sizeof end);
	/* requests that wait go on waiting */
	if (worth_a_try)
	{
		engine.restarts++;
		start_over();
	}
	else
		back_off_for("the engine does not stay up", why != NULL ? why : end,
					 "The server log has the engine's own messages.");
	m1_fail(&lost, M1_E_UNAVAILABLE, "the engine went away");
	m1_error_detail(&lost, "%s", why != NULL ? why : end);
	m1_error_hint(&lost, "The request was not completed. It is safe to try again; the engine restarts by itself.");
	engine.handler->lost(&lost);
}

void
m1pg_engine_stop(void)
{
	reap(STOP_GRACE_MS);
	start_over();
}

/* ---- frames ---- */

static void
on_ready(const char *payload, Size len)
{
	m1w_ready	ready;
	m1_error	error;
	const char *wrong = "It sent a malformed greeting.";

	if (m1w_decode_ready(payload, len, &ready, &error) != M1_OK || (wrong = m1pg_judge_ready(&ready)) != NULL)
	{
		engine_lost(wrong);
		return;
	}
	engine.ready_at = GetCurrentTimestamp();
	m1pg_publish_model(&ready);
	serve(M1_ENGINE_READY);
	engine.handler->ready();
	ereport(LOG, (errmsg("minimax_m1: model \"%s\" is ready on %s", m1pg_displayable(m1pg_shared->model.name),
						 m1pg_displayable(m1pg_shared->model.device))));
}

/* Where requests are computed has changed. */
static void
on_news(const char *payload, Size len)
{
	m1w_ready	ready;
	m1_error	error;
	const char *wrong = "It sent a malformed greeting.";

	if (m1w_decode_ready(payload, len, &ready, &error) != M1_OK || (wrong = m1pg_judge_news(&ready)) != NULL)
		engine_lost(wrong);
	else
		m1pg_publish_model(&ready);
}

/* The engine says why it cannot start, and ends. */
static void
on_start_failure(const char *payload, Size len)
{
	m1_error	error;
	char		end[128];

	m1pg_read_failure(payload, len, &error);
	if (error.code == M1_OK)
	{
		engine_lost(NONSENSE);
		return;
	}
	ereport(LOG, (errmsg("minimax_m1: the model could not be loaded: %s", m1pg_displayable(error.message)),
				  error.detail[0] != '\0' ? errdetail("%s", m1pg_displayable(error.detail)) : 0,
				  error.hint[0] != '\0' ? errhint("%s", m1pg_displayable(error.hint)) : 0));
	bury(NULL, end, sizeof end);
	back_off(&error);
}

static void
on_cache(const char *payload, Size len)
{
	m1w_cache	cache;
	m1_error	error;
	const char *wrong;

	if (m1w_decode_cache(payload, len, &cache, &error) != M1_OK)
		engine_lost(error.message);
	else if ((wrong = m1pg_judge_cache(&cache)) != NULL)
		engine_lost(wrong);
	else
		m1pg_publish_snapshots(&cache);
}

static void
on_frame(const m1w_header *header, const char *payload)
{
	const char *wrong;

	if (header->request_id != 0)
	{
		if ((wrong = engine.handler->frame(header, payload)) != NULL)
			engine_lost(wrong);
	}
	else if (header->type == M1W_READY && is_loading())
		on_ready(payload, header->length);
	else if (header->type == M1W_ERROR && is_loading())
		on_start_failure(payload, header->length);
	else if (header->type == M1W_READY && is_serving())
		on_news(payload, header->length);
	else if (header->type == M1W_CACHE && is_serving())
		on_cache(payload, header->length);
	else
		engine_lost(NONSENSE);
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
	Size		taken = 0;

	while (engine.sock != PGINVALID_SOCKET && taken < MOST_READ)
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
			taken += n;
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

/* Callers may be walking over the requests: that memory ran out is acted on in the next pump. */
bool
m1pg_engine_send_part(m1w_type type, uint64 request, const void *part, Size len, Size more)
{
	if (is_serving())
		return m1w_frame_append(&engine.out, type, request, part, len, more) || engine.out.failed;
	return true;
}

void
m1pg_engine_note(m1w_type type, uint64 request)
{
	m1pg_engine_send_part(type, request, NULL, 0, 0);
}

bool
m1pg_engine_takes_more(void)
{
	return engine.out.len < M1W_MAX_PART;
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
m1pg_engine_init(const M1EngineHandler *handler)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	initStringInfo(&engine.command_line);
	MemoryContextSwitchTo(old);
	engine.handler = handler;
	start_over();
}

void
m1pg_engine_supervise(void)
{
	const M1Readiness *now = m1pg_readiness();

	if (now->pid == 0 && (now->next_try == 0 || GetCurrentTimestamp() >= now->next_try))
		start_engine();
}

long
m1pg_engine_timeout(void)
{
	const M1Readiness *now = m1pg_readiness();

	if (now->pid != 0 || now->next_try == 0)
		return -1;
	return Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), now->next_try));
}

pgsocket
m1pg_engine_socket(bool *want_write)
{
	*want_write = engine.out.len > 0;
	return engine.sock;
}

/* ---- new settings ---- */

static bool
command_line_changed(void)
{
	StringInfoData now;
	bool		changed;

	initStringInfo(&now);
	m1pg_command_line(&now);
	changed = now.len != engine.command_line.len || memcmp(now.data, engine.command_line.data, now.len) != 0;
	pfree(now.data);
	return changed;
}

void
m1pg_engine_heed_settings(void)
{
	if (!command_line_changed())
		return;
	engine.was_well = false;
	forget_failures();
	if (is_serving())
		serve(M1_ENGINE_DRAINING);
	else
		m1pg_engine_stop();
}
