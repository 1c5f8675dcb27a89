/*
 * engine.c - see engine.h: the mailbox, and one step of continuous batching.
 *
 * Requests wait in order of arrival for a state (see admission.h); with one, they are active. A step
 * takes one token of every active request that is decoding, and as many whole
 * prefill chunks as fit beside them, starting with a different request each time,
 * so that neither a long prompt nor many of them stall a running answer.
 */
#define _POSIX_C_SOURCE 200809L /* pthread */
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/admission.h"
#include "engine/masker.h"
#include "engine/request.h"
#include "engine/scoring.h"
#include "model/forward.h"
#include "model/sampler.h"

#define DEFAULT_LOOP_GUARD 3000 /* as in M1's training */
#define PROGRESS_TOKENS 16		/* decoded tokens between two progress events */

typedef enum mail_kind
{
	MAIL_REQUEST,
	MAIL_CANCEL,
	MAIL_PAUSE,
	MAIL_RESUME,
} mail_kind;

typedef struct mail
{
	mail_kind kind;
	uint64_t id;
	m1_request *request;
	struct mail *next;
} mail;

struct m1_engine
{
	m1_model *model;
	m1_sampler *sampler;
	m1_constraints *constraints; /* NULL without a tokenizer */
	m1_masker *masker;
	m1_engine_events events;
	int prefill_chunk;
	int loop_guard;

	/* the mailbox: the only part that several threads touch */
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	mail *first_mail;
	mail **last_mail;
	bool stopped;

	/* the step thread's own */
	m1_prefix_cache *cache;
	m1w_cache cache_told; /* the last that was told of it */
	m1_request *waiting;  /* in order of arrival */
	m1_request **active;  /* [max_sequences] */
	int n_active;
	int turn; /* which active request's prefill comes first */

	/* one step's batch; allocated once */
	int32_t *tokens;	   /* [max_batch_tokens] */
	m1b_segment *segments; /* [max_sequences] */
	m1_request **owners;   /* [max_sequences] of the segments */
	int *rows;			   /* [max_sequences] whose logits are wanted */
	m1_request **samplers; /* [max_sequences] of the rows */
	float *logits;		   /* [max_sequences, vocab] */
	int n_rows;
	m1b_batch batch;
};

/* ---- life ---- */

static bool *
alive_tokens(const m1_model *model)
{
	bool *alive = calloc((size_t) model->config.vocab_size, sizeof *alive);

	if (alive != NULL)
		for (int32_t i = 0; i < model->config.vocab_size; i++)
			alive[i] = m1_tokenizer_piece(model->tokenizer, i).data != NULL;
	return alive;
}

/* Rows of the table that no token uses are never sampled; without a tokenizer, all may be. */
static m1_status
open_sampler(m1_engine *e, m1_error *err)
{
	bool *alive = NULL;
	m1_status status;

	if (e->model->tokenizer != NULL && (alive = alive_tokens(e->model)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the sampler");
	status = m1_sampler_create(e->model->config.vocab_size, alive, &e->sampler, err);
	free(alive);
	return status;
}

static m1_status
open_constraints(m1_engine *e, m1_error *err)
{
	if (e->model->tokenizer == NULL)
		return M1_OK;
	if ((e->constraints = m1_constraints_create(e->model->tokenizer, e->model->config.vocab_size)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for constraints");
	return m1_masker_create(e->model->max_sequences, &e->masker, err);
}

static m1_status
allocate_batch(m1_engine *e, size_t prefix_cache_bytes, m1_error *err)
{
	const size_t n = (size_t) e->model->max_sequences;

	e->active = calloc(n, sizeof *e->active);
	e->tokens = calloc((size_t) e->model->max_batch_tokens, sizeof *e->tokens);
	e->segments = calloc(n, sizeof *e->segments);
	e->owners = calloc(n, sizeof *e->owners);
	e->rows = calloc(n, sizeof *e->rows);
	e->samplers = calloc(n, sizeof *e->samplers);
	e->logits = calloc(n * (size_t) e->model->config.vocab_size, sizeof *e->logits);
	e->cache = m1_prefix_cache_create(e->model->backend, prefix_cache_bytes, 64);
	if (!e->cache || !e->active || !e->tokens || !e->segments || !e->owners || !e->rows || !e->samplers || !e->logits)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %zu requests", n);
	return M1_OK;
}

m1_status
m1_engine_open(const m1_engine_options *o, const m1_engine_events *events, m1_engine **out, m1_error *err)
{
	const int chunk = o->prefill_chunk > 0 ? o->prefill_chunk : M1_DEFAULT_PREFILL_CHUNK;
	m1_model_options model = {
		.path = o->model_path,
		.device = o->device,
		.gpus = o->gpus,
		.isa = o->isa,
		.weight_format = o->weight_format,
		.threads = o->threads,
		.max_context = o->max_context,
		.max_sequences = o->max_requests,
		.max_batch_tokens = o->max_requests + chunk,
		.kv_bytes = o->kv_bytes,
		.snapshot_bytes = o->prefix_cache_bytes,
		.log = o->log,
		.log_context = o->log_context,
	};
	m1_engine *e;
	m1_status status;

	*out = NULL;
	if (o->max_requests < 1 || o->max_requests > 65536 || chunk > 65536)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "max_requests must be between 1 and 65536");
	if ((e = calloc(1, sizeof *e)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the engine");
	e->events = *events;
	e->prefill_chunk = chunk;
	e->loop_guard = o->loop_guard > 0 ? o->loop_guard : DEFAULT_LOOP_GUARD;
	e->last_mail = &e->first_mail;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->arrived, NULL);
	if ((status = m1_model_open(&model, &e->model, err)) != M1_OK || (status = open_sampler(e, err)) != M1_OK ||
		(status = open_constraints(e, err)) != M1_OK ||
		(status = allocate_batch(e, o->prefix_cache_bytes, err)) != M1_OK)
	{
		m1_engine_close(e);
		return status;
	}
	*out = e;
	return M1_OK;
}

static void
free_list(m1_request *r)
{
	while (r != NULL)
	{
		m1_request *next = r->next;

		m1_request_free(r);
		r = next;
	}
}

void
m1_engine_close(m1_engine *e)
{
	if (e == NULL)
		return;
	while (e->first_mail != NULL)
	{
		mail *m = e->first_mail;

		e->first_mail = m->next;
		m1_request_free(m->request);
		free(m);
	}
	free_list(e->waiting);
	for (int i = 0; i < e->n_active; i++)
		m1_request_free(e->active[i]);
	m1_prefix_cache_free(e->cache);
	m1_masker_free(e->masker);
	m1_constraints_free(e->constraints);
	m1_sampler_free(e->sampler);
	m1_model_close(e->model);
	free(e->active);
	free(e->tokens);
	free(e->segments);
	free(e->owners);
	free(e->rows);
	free(e->samplers);
	free(e->logits);
	pthread_cond_destroy(&e->arrived);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

const m1_model *
m1_engine_model(const m1_engine *e)
{
	return e->model;
}

m1w_ready
m1_engine_info(const m1_engine *e)
{
	const m1_model *m = e->model;
	m1w_ready info = {
		.name = m1_slice_of(m->name),
		.architecture = m1_slice_of(m->config.architecture),
		.device = m1_slice_of(m->backend->ops->describe(m->backend)),
		.parameters = m->weights.parameters,
		.bytes = m->weight_bytes,
		.layers = m->config.layers,
		.experts = m->config.experts,
		.context = m->max_context,
		.vocab = m->config.vocab_size,
		.has_tokenizer = m->tokenizer != NULL,
	};

	return info;
}

/* ---- the mailbox ---- */

static bool
post(m1_engine *e, mail_kind kind, uint64_t id, m1_request *request)
{
	mail *m = calloc(1, sizeof *m);

	if (m == NULL)
		return false;
	*m = (mail){.kind = kind, .id = id, .request = request};
	pthread_mutex_lock(&e->lock);
	*e->last_mail = m;
	e->last_mail = &m->next;
	pthread_cond_signal(&e->arrived);
	pthread_mutex_unlock(&e->lock);
	return true;
}

static m1_status
post_request(m1_engine *e, m1_request *r, m1_error *err)
{
	r->submitted_ms = m1_now_ms();
	if (m1_request_cut(r, e->prefill_chunk) && post(e, MAIL_REQUEST, r->id, r))
		return M1_OK;
	m1_request_free(r);
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
}

m1_status
m1_engine_generate(m1_engine *e, uint64_t id, const m1w_generate *g, m1_error *err)
{
	m1_request *r;
	m1_status status = m1_request_create(e->model, e->constraints, id, g, e->loop_guard, &r, err);

	return status == M1_OK ? post_request(e, r, err) : status;
}

m1_status
m1_engine_logits(m1_engine *e, uint64_t id, m1w_id_slice ids, m1_error *err)
{
	m1_request *r;
	m1_status status = m1_request_create_logits(e->model, id, ids, &r, err);

	return status == M1_OK ? post_request(e, r, err) : status;
}

void
m1_engine_cancel(m1_engine *e, uint64_t id)
{
	post(e, MAIL_CANCEL, id, NULL);
}

void
m1_engine_pause(m1_engine *e, uint64_t id)
{
	post(e, MAIL_PAUSE, id, NULL);
}

void
m1_engine_resume(m1_engine *e, uint64_t id)
{
	post(e, MAIL_RESUME, id, NULL);
}

bool
m1_engine_wait(m1_engine *e)
{
	bool stopped;

	pthread_mutex_lock(&e->lock);
	while (e->first_mail == NULL && !e->stopped)
		pthread_cond_wait(&e->arrived, &e->lock);
	stopped = e->stopped;
	pthread_mutex_unlock(&e->lock);
	return !stopped;
}

void
m1_engine_stop(m1_engine *e)
{
	pthread_mutex_lock(&e->lock);
	e->stopped = true;
	pthread_cond_signal(&e->arrived);
	pthread_mutex_unlock(&e->lock);
}

static m1_request *
find_request(m1_engine *e, uint64_t id)
{
	for (int i = 0; i < e->n_active; i++)
		if (e->active[i]->id == id)
			return e->active[i];
	for (m1_request *r = e->waiting; r != NULL; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

static m1_crowd
crowd(m1_engine *e)
{
	return (m1_crowd){.active = e->active, .n_active = e->n_active, .waiting = e->waiting};
}

static void
enqueue(m1_engine *e, m1_request *r)
{
	const m1_crowd others = crowd(e);
	m1_request **end = &e->waiting;

	m1_admission_arrived(e->cache, &others, r);

	while (*end != NULL)
		end = &(*end)->next;
	*end = r;
}

static void
read_mail(m1_engine *e)
{
	mail *m;

	pthread_mutex_lock(&e->lock);
	m = e->first_mail;
	e->first_mail = NULL;
	e->last_mail = &e->first_mail;
	pthread_mutex_unlock(&e->lock);
	while (m != NULL)
	{
		mail *next = m->next;
		m1_request *r = m->kind == MAIL_REQUEST ? NULL : find_request(e, m->id);

		if (m->kind == MAIL_REQUEST)
			enqueue(e, m->request);
		else if (r != NULL && m->kind == MAIL_CANCEL)
			r->cancelled = true;
		else if (r != NULL)
			r->paused = m->kind == MAIL_PAUSE;
		free(m);
		m = next;
	}
}

/* ---- events ---- */

static void
report_progress(m1_engine *e, m1_request *r)
{
	m1w_progress p = {
		.phase = r->fed < r->prompt_tokens ? M1W_PHASE_PREFILL : M1W_PHASE_DECODE,
		.prompt_tokens = r->prompt_tokens,
		.prefilled = r->fed < r->prompt_tokens ? r->fed : r->prompt_tokens,
		.generated = r->completion_tokens,
	};

	r->reported = r->completion_tokens;
	e->events.progress(e->events.context, r->id, &p);
}

static void
send_deltas(m1_engine *e, m1_request *r)
{
	/* reasoning comes first when one step ends it and begins the content */
	static const m1w_channel order[] = {M1W_REASONING, M1W_CONTENT};

	if (!r->stream)
		return;
	for (int i = 0; i < M1W_CHANNEL_COUNT; i++)
	{
		m1_slice text = m1_reply_text(r->reply, order[i]);
		size_t *sent = &r->sent[order[i]];

		if (text.len > *sent)
		{
			m1w_delta delta = {.channel = (uint8_t) order[i], .text = {text.data + *sent, text.len - *sent}};

			e->events.delta(e->events.context, r->id, &delta);
			*sent = text.len;
		}
	}
}

/* The request is over, and not done. */
static void
fail_request(m1_engine *e, m1_request *r, const m1_error *error)
{
	e->events.failed(e->events.context, r->id, error);
	r->cancelled = r->ended = true;
}

static void
send_failure(m1_engine *e, const m1_request *r, m1_status code, const char *why)
{
	m1_error error;

	m1_fail(&error, code, "%s", why);
	e->events.failed(e->events.context, r->id, &error);
}

static void
send_done(m1_engine *e, m1_request *r)
{
	const double now = m1_now_ms();
	m1_buf calls = {0};
	m1w_done done = {
		.finish = (uint8_t) r->finish,
		.prompt_tokens = r->prompt_tokens,
		.cached_tokens = r->cached_tokens,
		.reasoning_tokens = r->reasoning_tokens,
		.completion_tokens = r->completion_tokens,
		.seed = r->sampling.seed,
		.queue_ms = r->started_ms - r->submitted_ms,
		.prefill_ms = r->prefilled_ms - r->started_ms,
		.decode_ms = now - r->prefilled_ms,
	};

	if (r->kind == M1_REQUEST_IDS)
		done.ids = (m1w_id_slice){r->tokens.data + r->prompt_tokens, r->tokens.len - (size_t) r->prompt_tokens};
	else
	{
		if (!m1_reply_finish(r->reply) || !m1_reply_tool_calls(r->reply, &calls))
		{
			send_failure(e, r, M1_E_NO_MEMORY, "out of memory for the reply");
			m1_buf_free(&calls);
			return;
		}
		send_deltas(e, r);
		if (r->answer_start > 0)
			done.choice_logprobs = m1_scorer_logprobs(r->scorer);
		done.tool_calls = (m1_slice){calls.data, calls.len};
		if (!r->stream)
		{
			done.content = m1_reply_text(r->reply, M1W_CONTENT);
			done.reasoning = m1_reply_text(r->reply, M1W_REASONING);
		}
	}
	e->events.done(e->events.context, r->id, &done);
	m1_buf_free(&calls);
}

static void
report_cache(m1_engine *e)
{
	const m1w_cache now = m1_prefix_cache_contents(e->cache);

	if (now.snapshots == e->cache_told.snapshots && now.bytes == e->cache_told.bytes)
		return;
	e->cache_told = now;
	if (e->events.cache != NULL)
		e->events.cache(e->events.context, &now);
}

/* ---- joining and leaving ---- */

static void
leave(m1_engine *e, int index)
{
	m1_request *r = e->active[index];

	m1_scoring_leave(e->model->backend, r);
	if (r->state != NULL)
		e->model->backend->ops->state_release(e->model->backend, r->state);
	m1_request_free(r);
	/* keep the order of arrival: turns go by it */
	memmove(&e->active[index], &e->active[index + 1], (size_t) (e->n_active - index - 1) * sizeof *e->active);
	e->n_active--;
}

static void
drop_cancelled(m1_engine *e)
{
	for (int i = e->n_active - 1; i >= 0; i--)
		if (e->active[i]->cancelled)
		{
			send_failure(e, e->active[i], M1_E_CANCELLED, "the request was cancelled");
			leave(e, i);
		}
	for (m1_request **at = &e->waiting; *at != NULL;)
	{
		m1_request *r = *at;

		if (!r->cancelled)
		{
			at = &r->next;
			continue;
		}
		*at = r->next;
		send_failure(e, r, M1_E_CANCELLED, "the request was cancelled");
		m1_request_free(r);
	}
}

/*
 * In order of arrival: a large request that does not fit yet is not overtaken forever by small ones. One that waits for
 * a snapshot is next as soon as that is there.
 */
static void
admit(m1_engine *e)
{
	m1_request **at = &e->waiting;

	while (*at != NULL && e->n_active < e->model->max_sequences)
	{
		m1_request *r = *at;
		const m1_crowd others = crowd(e);
		m1_admission what = m1_admission_try(e->cache, e->model->backend, &others, r);

		if (what == M1_WAITS_FOR_MEMORY)
			return;
		if (what == M1_WAITS_FOR_PREFIX)
		{
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->next = NULL;
		r->started_ms = m1_now_ms();
		e->active[e->n_active++] = r;
		report_progress(e, r);
	}
}

/* ---- one step ---- */

static void
add_segment(m1_engine *e, m1_request *r, int n)
{
	m1b_batch *b = &e->batch;

	memcpy(e->tokens + b->n_tokens, r->tokens.data + r->fed, (size_t) n * sizeof *e->tokens);
	e->segments[b->n_segments] = (m1b_segment){.state = r->state, .start = r->fed, .n_tokens = n, .row = b->n_tokens};
	e->owners[b->n_segments++] = r;
	b->n_tokens += n;
	if (n == m1_request_pending(r))
	{
		e->rows[e->n_rows] = b->n_tokens - 1;
		e->samplers[e->n_rows++] = r;
	}
}

static void
build_batch(m1_engine *e)
{
	int room = e->prefill_chunk;

	e->batch = (m1b_batch){.tokens = e->tokens, .segments = e->segments};
	e->n_rows = 0;
	for (int i = 0; i < e->n_active; i++)
		if (!e->active[i]->paused && m1_request_pending(e->active[i]) == 1)
			add_segment(e, e->active[i], 1);
	for (int i = 0; i < e->n_active; i++)
	{
		m1_request *r = e->active[(e->turn + i) % e->n_active];
		int n = m1_request_next_chunk(r, e->prefill_chunk);

		if (r->paused || m1_request_pending(r) == 1 || n > room)
			continue;
		add_segment(e, r, n);
		room -= n;
	}
	e->turn = e->n_active > 0 ? (e->turn + 1) % e->n_active : 0;
}

static void
fail_all(m1_engine *e, const m1_error *error)
{
	for (int i = 0; i < e->n_active; i++)
		e->events.failed(e->events.context, e->active[i]->id, error);
	while (e->n_active > 0)
		leave(e, e->n_active - 1);
	for (m1_request *r = e->waiting; r != NULL; r = r->next)
		e->events.failed(e->events.context, r->id, error);
	free_list(e->waiting);
	e->waiting = NULL;
}

static void
advance_fed(m1_engine *e)
{
	for (int i = 0; i < e->batch.n_segments; i++)
	{
		m1_request *r = e->owners[i];

		r->fed += e->segments[i].n_tokens;
		if (r->prefilled_ms == 0 && r->fed >= r->prompt_tokens)
			r->prefilled_ms = m1_now_ms();
		if (r->fed < r->prompt_tokens)
		{
			const m1_crowd others = crowd(e);

			m1_admission_fed(e->cache, &others, r);
			report_progress(e, r);
		}
	}
}

/* The next token of a reply, from what its constraint allows. */
static m1_status
sample(m1_engine *e, m1_request *r, const float *logits, m1_error *err)
{
	if (r->cursor != NULL && r->mask_error.code != M1_OK)
	{
		*err = r->mask_error;
		return err->code;
	}
	return m1_request_accept(
		r, m1_sampler_pick(e->sampler, &r->sampling, (uint64_t) r->completion_tokens, r->mask, logits), err);
}

/* What the logits of one row mean for the request that asked for them. */
static void
use_logits(m1_engine *e, m1_request *r, const float *logits)
{
	m1_status status;
	m1_error error;

	if (r->kind == M1_REQUEST_LOGITS)
	{
		m1w_vector vector = {.values = {(const char *) logits, (size_t) e->model->config.vocab_size * sizeof *logits}};

		e->events.vector(e->events.context, r->id, &vector);
		r->ended = true;
		return;
	}
	if (m1_scoring_goes_on(r))
		status = m1_scoring_step(e->model->backend, r, logits, &error);
	else
		status = sample(e, r, logits, &error);
	if (status != M1_OK)
	{
		fail_request(e, r, &error);
		return;
	}
	if (r->ended)
		return;
	if (r->completion_tokens == 1 || r->completion_tokens - r->reported >= PROGRESS_TOKENS)
		report_progress(e, r);
	if (r->kind == M1_REQUEST_CHAT)
		send_deltas(e, r);
}

static void
remove_ended(m1_engine *e)
{
	for (int i = e->n_active - 1; i >= 0; i--)
	{
		m1_request *r = e->active[i];

		if (!r->ended)
			continue;
		if (r->kind != M1_REQUEST_LOGITS && !r->cancelled)
			send_done(e, r);
		leave(e, i);
	}
}

m1_status
m1_engine_step(m1_engine *e, bool *busy, m1_error *err)
{
	const size_t vocab = (size_t) e->model->config.vocab_size;
	m1_status status;

	read_mail(e);
	drop_cancelled(e);
	admit(e);
	build_batch(e);
	*busy = e->batch.n_segments > 0;
	if (!*busy)
		return M1_OK;
	if (e->masker != NULL)
		m1_masker_start(e->masker, e->samplers, e->n_rows);
	status = m1_forward(e->model, &e->batch, e->rows, e->n_rows, e->logits, err);
	if (e->masker != NULL)
		m1_masker_wait(e->masker);
	if (status != M1_OK)
	{
		fail_all(e, err);
		return status;
	}
	advance_fed(e);
	report_cache(e); /* before the ends of requests: whoever has an answer sees what it left */
	for (int i = 0; i < e->n_rows; i++)
		use_logits(e, e->samplers[i], e->logits + (size_t) i * vocab);
	remove_ended(e);
	return M1_OK;
}
