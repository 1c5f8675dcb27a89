/*
 * engine.h - the model with a scheduler: requests join and leave between steps of one continuous batch.
 *
 * Two kinds of callers. Any thread may submit, cancel, pause and resume: these check and prepare a request on the
 * caller's own time and leave it in a mailbox. One thread, the step thread, calls m1_engine_step and m1_engine_wait;
 * events are delivered from inside m1_engine_step. The command line uses one thread for both.
 */
#ifndef M1_ENGINE_ENGINE_H
#define M1_ENGINE_ENGINE_H

#include <stdbool.h>

#include "base/status.h"
#include "model/model.h"
#include "wire/message.h"

typedef struct m1_engine m1_engine;

/* What happens to requests. Messages and their slices live only during the call. No callback may call back. */
typedef struct m1_engine_events
{
	void *context;
	void (*progress)(void *context, uint64_t id, const m1w_progress *progress);
	void (*delta)(void *context, uint64_t id, const m1w_delta *delta);
	/* the three ends of a request */
	void (*done)(void *context, uint64_t id, const m1w_done *done);
	void (*vector)(void *context, uint64_t id, const m1w_vector *vector);
	void (*failed)(void *context, uint64_t id, const m1_error *error);
	/* what the prefix cache holds has changed; may be NULL */
	void (*cache)(void *context, const m1w_cache *cache);
	/* the ends of what is asked by m1_engine_learn, beside failed; may be NULL where nothing is */
	void (*learned)(void *context, uint64_t id, const m1w_learned *learned);
	void (*bytes)(void *context, uint64_t id, const m1w_bytes *bytes);
	/* what the greeting says has changed: servers elsewhere come and go; may be NULL where none are */
	void (*ready)(void *context, const m1w_ready *ready);
} m1_engine_events;

typedef struct m1_engine_options
{
	const char *model_path;
	const char *device; /* "auto", "cpu" or "cuda" */
	int gpus;			/* that share the model, where the device is cuda; 0 is 1 */
	const char *isa;	/* NULL, or a CPU instruction set (for tests) */
	m1_weight_format weight_format;
	int threads;					   /* 0 = all cores */
	int max_requests;				   /* sequences in the batch */
	int max_context;				   /* 0 = the model's own */
	int prefill_chunk;				   /* prompt tokens of one step; 0 = what suits the device */
	int loop_guard;					   /* tokens above 0.99 in a row that end a reply; 0 = 3000 */
	size_t kv_bytes;				   /* of KV pages; 0 = a safe share of the memory */
	size_t prefix_cache_bytes;		   /* of prefix snapshots; 0 = none are kept */
	double learning_share;			   /* of the time, that learning may take while requests are served; in [0, 1) */
	size_t adapter_bytes;			   /* of adapters that are served; 0 = a quarter of the memory */
	const m1_adapter_option *adapters; /* [n_adapters] that requests may name */
	int n_adapters;
	void (*log)(void *context, const char *line); /* see m1_model_options */
	void *log_context;
} m1_engine_options;

m1_status m1_engine_open(const m1_engine_options *options, const m1_engine_events *events, m1_engine **out,
						 m1_error *err);
void m1_engine_close(m1_engine *e);

/* For its tokenizer and facts; the forward pass belongs to the step thread. */
const m1_model *m1_engine_model(const m1_engine *e);
/* Name, sizes, device: slices live as long as the engine. */
m1w_ready m1_engine_info(const m1_engine *e);

/*
 * Checks, renders and tokenizes the request, then queues it. On failure nothing is queued and no event follows;
 * on success exactly one of done and failed will. id is the caller's and must be unique among live requests. work: of
 * the preparation, which may take long; NULL, or another thread may cancel it.
 */
m1_status m1_engine_generate(m1_engine *e, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err);
/* Logits after the last of ids; ends with vector or failed. */
m1_status m1_engine_logits(m1_engine *e, uint64_t id, m1w_id_slice ids, m1_error *err);

/*
 * One of the requests about learning, of these types: PUT, FETCH, TRAINING, LESSON, SERVE and FORGET. As for generate;
 * the payload is taken over in any case.
 */
m1_status m1_engine_learn(m1_engine *e, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work, m1_error *err);

/* Unknown ids are ignored: the request may have just ended. */
void m1_engine_cancel(m1_engine *e, uint64_t id);
void m1_engine_pause(m1_engine *e, uint64_t id);
void m1_engine_resume(m1_engine *e, uint64_t id);

/*
 * One step: takes the mail, admits, runs one batch, delivers events. *busy tells whether there was a batch.
 * A failure is the device's: every live request has been failed, and the engine is of no more use.
 */
m1_status m1_engine_step(m1_engine *e, bool *busy, m1_error *err);
/* Blocks until there is mail. */
void m1_engine_wait(m1_engine *e);

#endif
