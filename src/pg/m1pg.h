/*
 * m1pg.h - what the files of the PostgreSQL side share.
 *
 *   module.c          library load: settings, shared memory, worker registration
 *   shared.c          the shared-memory table: slots, model facts, counters
 *   channel.c         a backend's side of one request
 *   worker.c          the background worker's loop
 *   relay.c           the worker's side of requests: admission, forwarding, delivery
 *   engine_process.c  the engine as a child process: start, frames, end
 *   report.c          m1_error to ereport
 *   template.c        prompt templates over the columns of a row
 *   jobs.h            lists the files of durable jobs and annotators
 *   batch.c           several requests at once from one backend
 *   usage.h           counters, quotas and caps: see there
 *   planner.c         what calls of the model cost the planner
 *   constrained.c     requests whose answer is constrained
 *   generate.c, tokens.c, summarize.c, aggregates.c, annotate.c, views.c   SQL functions
 *   generate_json.c, classify.c, judge.c, extract.c, type_schema.c   operators: SQL functions with constrained answers
 */
#ifndef M1PG_H
#define M1PG_H

#include "postgres.h"

#include "fmgr.h"
#include "storage/dsm.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "base/status.h"
#include "wire/message.h"

#if PG_VERSION_NUM < 140000
#error "minimax_m1 needs PostgreSQL 14 or later"
#endif

/* PostgreSQL 18 writes it before the declaration. */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* ---- settings (module.c) ---- */

typedef enum M1Device
{
	M1_DEVICE_AUTO,
	M1_DEVICE_CPU,
	M1_DEVICE_CUDA
} M1Device;

/* Whose prefix snapshots a request may use. */
typedef enum M1Sharing
{
	M1_SHARE_ROLE,				/* those of the same role in the same database */
	M1_SHARE_DATABASE,
	M1_SHARE_ALL
} M1Sharing;

typedef enum M1WeightFormat
{
	M1_FORMAT_STORED,
	M1_FORMAT_Q8_0,
	M1_FORMAT_FP8,
	M1_FORMAT_Q4
} M1WeightFormat;

extern char *m1pg_model;
extern int	m1pg_weight_format;
extern int	m1pg_device;
extern int	m1pg_gpus;
extern int	m1pg_threads;
extern int	m1pg_max_requests;
extern int	m1pg_max_queue;
extern int	m1pg_max_context;
extern int	m1pg_kv_cache_size;
extern int	m1pg_prefix_cache_size;
extern int	m1pg_prefix_cache_sharing;
extern char *m1pg_engine_path;
extern int	m1pg_max_tokens;
extern int	m1pg_request_timeout;
extern int	m1pg_default_thinking_budget;
extern double m1pg_temperature;
extern double m1pg_top_p;
extern char *m1pg_system_prompt;
extern int	m1pg_max_calls_per_statement;
extern int	m1pg_max_tokens_per_statement;
extern int	m1pg_max_usage_rows;
extern char *m1pg_context_tiers;

/* What a scalar function does when its request fails. */
typedef enum M1OnError
{
	M1_ON_ERROR_RAISE,
	M1_ON_ERROR_NULL
} M1OnError;

extern int	m1pg_on_error;

extern const char *m1pg_device_name(M1Device device);
extern const char *m1pg_weight_format_name(M1WeightFormat format);

/* ---- shared memory (shared.c) ---- */

#define M1PG_EXCERPT 128		/* bytes of a prompt that the activity view shows */

/*
 * FREE -> CLAIMED (by a backend) -> SUBMITTED (its queues are ready) ->
 * QUEUED and RUNNING (set by the worker) -> FREE (by the backend, at any time).
 */
typedef enum M1SlotState
{
	M1_SLOT_FREE,
	M1_SLOT_CLAIMED,
	M1_SLOT_SUBMITTED,
	M1_SLOT_QUEUED,
	M1_SLOT_RUNNING
} M1SlotState;

typedef struct M1Slot
{
	M1SlotState state;
	uint64		request;		/* grows with every claim; 0 when free */
	PGPROC	   *proc;			/* whose latch to set */
	int			pid;
	Oid			userid;
	Oid			databaseid;
	dsm_handle	handle;
	m1w_type	type;			/* of the request frame */
	bool		cancel;			/* asked for by minimax_m1.cancel() */
	TimestampTz submitted_at;
	TimestampTz deadline;		/* 0 = none */
	TimestampTz state_since;
	m1w_phase	phase;			/* once running */
	int			prompt_tokens;
	int			prefilled;
	int			generated;
	int			cached_tokens;	/* of prompt_tokens */
	int			most_reply;		/* the tokens that the reply may have */
	int64		reserved;		/* the tokens that the request may still take */
	int64		token_limit;	/* what its statement's requests under way may take in all; 0 = no cap */
	char		function[NAMEDATALEN];
	char		excerpt[M1PG_EXCERPT];	/* of the prompt; wiped when freed */
} M1Slot;

typedef enum M1EngineState
{
	M1_ENGINE_STARTING,			/* no process yet, or it is loading */
	M1_ENGINE_READY,
	M1_ENGINE_DRAINING,			/* settings changed: finishes what runs, then restarts */
	M1_ENGINE_FAILED			/* the last start failed; waits for the next try */
} M1EngineState;

/* What the model view shows; written by the worker. */
typedef struct M1ModelInfo
{
	M1EngineState state;
	int			engine_pid;		/* 0 = none */
	int64		restarts;
	m1_error	error;			/* of the last failed start or crash; code M1_OK = none */
	TimestampTz next_try;		/* when state is FAILED */
	char		name[NAMEDATALEN];
	char		architecture[NAMEDATALEN];
	char		device[NAMEDATALEN];
	uint64		parameters;
	uint64		bytes;
	int			layers;
	int			experts;
	int			context;
	int			vocab;
	bool		has_tokenizer;
	int			snapshots;		/* in the engine's prefix cache */
	uint64		snapshot_bytes;
} M1ModelInfo;

typedef struct M1Shared
{
	LWLock	   *lock;			/* protects everything below */
	PGPROC	   *worker;			/* NULL while no worker runs */
	uint64		last_request;
	M1ModelInfo model;
	int			n_slots;		/* max_requests + max_queue */
	M1Slot		slots[FLEXIBLE_ARRAY_MEMBER];
} M1Shared;

/* NULL when the library was not preloaded. */
extern M1Shared *m1pg_shared;

extern Size m1pg_shared_size(void);
extern void m1pg_shared_request(void);
extern void m1pg_shared_startup(void);
/* Raises the error that tells how to preload the library, when it was not. */
extern void m1pg_require_shared(void);
extern void m1pg_wake_worker(void);

/* ---- one request, from a backend (channel.c) ---- */

#define M1PG_REQUEST_QUEUE_BYTES	(16 * 1024)
#define M1PG_EVENT_QUEUE_BYTES		(32 * 1024)
#define M1PG_CHANNEL_MAGIC			0x4d314348
#define M1PG_KEY_REQUESTS			0
#define M1PG_KEY_EVENTS				1

/* A message in a shm_mq: this, then the payload of the frame of that type. */
typedef struct M1Message
{
	uint32		type;			/* m1w_type */
} M1Message;

typedef struct M1Channel M1Channel;

/*
 * Claims a slot and begins to send the request. The channel belongs to the
 * current resource owner: leaving in any way frees the slot and cancels the
 * request. A backend may have several. NULL: refused, and *error says why.
 */
extern M1Channel *m1pg_channel_try_open(m1w_type type, const char *payload, Size len,
										const char *function, const char *excerpt, m1_error *error);

#define M1PG_NO_EVENT	((m1w_type) 0)

/*
 * What has come, without waiting, or M1PG_NO_EVENT; sends on what was left of
 * the request. M1W_ERROR: the request has failed or the worker is lost, and
 * *error says why. *payload lives until the next call.
 */
extern m1w_type m1pg_channel_poll(M1Channel *channel, const char **payload, Size *len, m1_error *error);
/* Sleeps until something may have come on any channel of this backend. Raises interrupts. */
extern void m1pg_channel_wait(void);
/* Waits for the next event but progress; M1W_ERROR: *error. */
extern m1w_type m1pg_channel_try_receive(M1Channel *channel, const char **payload, Size *len, m1_error *error);
/* The same, where a failure is raised. */
extern m1w_type m1pg_channel_receive(M1Channel *channel, const char **payload, Size *len);
extern void m1pg_channel_close(M1Channel *channel);
/* Makes the channel outlive its resource owner: until it is closed, or the process ends. */
extern void m1pg_channel_pin(M1Channel *channel);
/* Whether the request was in the engine when its last event came. */
extern bool m1pg_channel_reached_engine(const M1Channel *channel);
/* Milliseconds that the request waited in the worker's queue. */
extern double m1pg_channel_queue_ms(const M1Channel *channel);

/* ---- errors (report.c) ---- */

pg_noreturn extern void m1pg_report(const m1_error *error);
/* Raises it, unless on_error says that the result of a scalar function is NULL then. A cancel is always raised. */
extern void m1pg_report_or_null(const m1_error *error);
/* Message and detail as a column shows them. */
extern text *m1pg_error_text(const m1_error *error);

/* ---- requests as SQL functions make them (generate.c) ---- */

/* A generate request with texts in UTF-8, palloc'd. Start from m1pg_default_request. */
extern void m1pg_default_request(m1w_generate *g);
extern uint64 m1pg_new_seed(void);
/* Whose snapshots a request of the current user may use. */
extern uint64 m1pg_cache_owner(void);
/*
 * The arguments system_prompt, max_tokens, thinking_budget, temperature, top_p
 * and seed, from number `arg` on. NULL leaves what is there. Raises what is out
 * of range.
 */
extern void m1pg_read_options(FunctionCallInfo fcinfo, int arg, m1w_generate *g);
extern void m1pg_read_stops(FunctionCallInfo fcinfo, int arg, m1w_generate *g);
/* false: it is empty. */
extern bool m1pg_read_prompt(const text *prompt, m1w_generate *g, m1_error *error);
/* "{task}\n\n{document}" of texts in UTF-8; the task is what rows have in common. */
extern void m1pg_task_prompt(m1w_generate *g, m1_slice task, m1_slice document);

/* Converts to UTF-8; the result is palloc'd or the input itself. */
extern m1_slice m1pg_to_utf8(const char *s, Size len);
extern m1_slice m1pg_utf8_of_text(const text *t);
/* A palloc'd copy. */
extern m1_slice m1pg_keep(m1_slice s);
extern text *m1pg_text_from_utf8(m1_slice s);
/* NULL when the database's encoding does not have all of it. */
extern text *m1pg_try_text_from_utf8(m1_slice s);
/* NULL then only if on_error says so; raised otherwise. */
extern text *m1pg_scalar_text(m1_slice s);

/* The end of a request that was run to completion; slices are palloc'd. */
typedef struct M1Result
{
	m1w_done	done;
	double		queue_ms;		/* in worker and engine together */
} M1Result;

/* NULL or false: *error. Nothing is left open then, so the caller may go on. */
extern M1Channel *m1pg_open_generate(const m1w_generate *g, const char *function, m1_error *error);
extern bool m1pg_try_run(const m1w_generate *g, const char *function, M1Result *result, m1_error *error);
extern void m1pg_run(const m1w_generate *g, const char *function, M1Result *result);
/* The result out of the event that came. */
extern void m1pg_read_result(const M1Channel *channel, m1w_type type, const char *payload, Size len,
							 M1Result *result);

/* ---- many requests at once (batch.c) ---- */

typedef struct M1Batch
{
	int			n;
	const char *function;
	void	   *arg;
	/* Fills request i of n. false: there is none to run, *error says why. */
	bool		(*request) (void *arg, int i, m1w_generate *g, m1_error *error);
	/* Its end, in any order: result, or else error. Both live during the call. */
	void		(*finish) (void *arg, int i, const M1Result *result, const m1_error *error);
} M1Batch;

/* Returns when all are finished. An interrupt is raised, and cancels all. */
extern void m1pg_run_batch(const M1Batch *batch);

/* Prepares a set-returning function for rows in a tuplestore (views.c). */
extern void m1pg_start_rows(FunctionCallInfo fcinfo);
/* Whether the current user may see what belongs to a role (views.c). */
extern bool m1pg_may_see(Oid role);

/* Ids and end offsets of a UTF-8 text (tokens.c); palloc'd. false: *error, and nothing is left open. */
extern bool m1pg_try_tokenize(m1_slice utf8, const char *function, int32 **ids, int32 **ends, int *n,
							  m1_error *error);

/* ---- the worker ---- */

extern PGDLLEXPORT void m1pg_worker_main(Datum main_arg);

#endif							/* M1PG_H */
