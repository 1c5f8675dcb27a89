/*
 * shared.h - the shared memory through which backends and worker meet (shared.c):
 * a table with a slot for each request and what is known of the engine, and the
 * segment of each request, with its two queues.
 */
#ifndef M1PG_SHARED_H
#define M1PG_SHARED_H

#include "pg/m1pg.h"

#include "datatype/timestamp.h"
#include "storage/dsm.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "wire/message.h"

/* ---- the table ---- */

#define M1PG_EXCERPT 128		/* bytes of a prompt that the activity view shows */

/*
 * FREE -> CLAIMED (by a backend) -> SUBMITTED (its queues are ready) ->
 * QUEUED and RUNNING (set by the worker) -> FREE (by the backend, at any time;
 * by the worker, when the whole reply is in the client's queue).
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
	int			share;			/* of its role, when places are given away */
	dsm_handle	handle;
	m1w_type	type;			/* of the request frame */
	Size		text_len;		/* M1W_TOKENIZE: of its text */
	m1w_wanted	wanted;
	Size		n_ids;			/* tokens of a prompt of ids; 0 = it is none */
	bool		stream;			/* M1W_GENERATE: as in the request */
	int			max_tokens;
	bool		scored;
	bool		logprobs;
	bool		keep;
	bool		background;
	uint64		fetch_offset;	/* M1W_FETCH: as in the request */
	uint32		fetch_most;
	uint8		fetch_part;
	Size		lesson_tokens;	/* M1W_LESSON: of all its sequences */
	bool		update;
	bool		want_logprobs;
	bool		cancel;			/* asked for by minimax_m1.cancel() */
	TimestampTz submitted_at;
	TimestampTz forwarded_at;	/* to the engine; 0 = not yet */
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
	M1_ENGINE_FAILED			/* the last start failed; waits for the next try, or tries */
} M1EngineState;

/* What there is of the engine. worker/readiness.h has the table of states, and who changes them. */
typedef struct M1Readiness
{
	M1EngineState state;
	int			pid;			/* 0 = no process */
	m1_error	error;			/* in FAILED: why; else code M1_OK */
	TimestampTz next_try;		/* without a process: when to start one; 0 = at once */
} M1Readiness;

/* Whether there is a process that has loaded the model. */
static inline bool
m1pg_engine_serves(M1EngineState state)
{
	return state == M1_ENGINE_READY || state == M1_ENGINE_DRAINING;
}

/* With a server's address, of an engine elsewhere. */
#define M1PG_DEVICE_LEN 256

/* What the model view shows; written by the worker. */
typedef struct M1ModelInfo
{
	M1Readiness readiness;
	int64		restarts;
	char		name[NAMEDATALEN];
	char		architecture[NAMEDATALEN];
	char		device[M1PG_DEVICE_LEN];
	uint64		parameters;
	uint64		bytes;
	int			layers;
	int			experts;
	int			context;
	int			vocab;
	bool		has_tokenizer;
	int			snapshots;		/* in the engine's prefix cache */
	uint64		snapshot_bytes;
	uint64		machine_bytes;	/* what the engine, when it started, could count on */
} M1ModelInfo;

typedef struct M1Shared
{
	LWLock	   *lock;			/* protects everything below */
	PGPROC	   *worker;			/* NULL while no worker runs */
	TimestampTz started;		/* since when all processes have begun */
	uint64		last_request;
	M1ModelInfo model;
	int			n_slots;		/* max_requests + max_queue */
	int			n_used;			/* of them, not free */
	M1Slot		slots[FLEXIBLE_ARRAY_MEMBER];
} M1Shared;

/* NULL when the library was not preloaded. */
extern M1Shared *m1pg_shared;

/* As the server starts; the latter with AddinShmemInitLock held. */
extern void m1pg_shared_request(void);
extern void m1pg_shared_startup(void);
/* Raises the error that tells how to preload the library, when it was not. */
extern void m1pg_require_shared(void);
extern void m1pg_wake_worker(void);
/* Nobody's any more: wiped. The lock is to be held. */
extern void m1pg_slot_clear(M1Slot *slot);

/* ---- the segment of a request: made by the backend, found by its handle in the slot ---- */

#define M1PG_REQUEST_QUEUE_BYTES	(16 * 1024)
#define M1PG_EVENT_QUEUE_BYTES		(32 * 1024)
#define M1PG_SEGMENT_MAGIC			0x4d314348
#define M1PG_KEY_REQUESTS			0
#define M1PG_KEY_EVENTS				1
#define M1PG_KEY_LAST				2	/* an M1Slot: what the slot was when the worker freed it; before, zeros */

/* A message in a shm_mq: this, then the payload of the frame of that type, or a part of it (wire/frame.h). */
typedef struct M1Message
{
	uint32		type;			/* m1w_type */
	uint32		more;			/* bytes of the payload in messages to come */
} M1Message;

#endif							/* M1PG_SHARED_H */
