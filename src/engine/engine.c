/*
 * engine.c - see engine.h: one step of continuous batching.
 *
 * Requests wait in order of arrival for a state (see admission.h); with one, they are active. A step
 * takes one token of every active request that is decoding, and as many whole
 * prefill chunks as fit beside them, starting with a different request each time,
 * so that neither a long prompt nor many of them stall a running answer.
 */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/admission.h"
#include "engine/mailbox.h"
#include "engine/masker.h"
#include "engine/outcome.h"
#include "engine/report.h"
#include "engine/request.h"
#include "engine/scoring.h"
#include "model/state.h"

#define DEFAULT_LOOP_GUARD 3000 /* as in M1's training */
#define PROGRESS_TOKENS 16		/* decoded tokens between two progress events */

struct m1_engine
{
	m1_model *model;
	m1_constraints *constraints; /* NULL without a tokenizer */
	m1_masker *masker;
	m1_engine_events events;
	int prefill_chunk;
	int loop_guard;

	m1_mailbox mailbox; /* the only part that several threads touch */

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
	m1b_batch batch;
	m1_outcome *outcome;
};

/* ---- life ---- */

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
	e->cache = m1_prefix_cache_create(e->model, prefix_cache_bytes, 64);
	if (!e->cache || !e->active || !e->tokens || !e->segments || !e->owners)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %zu requests", n);
	return m1_outcome_create(e->model, &e->outcome, err);
}

m1_status
m1_engine_open(const m1_engine_options *o, const m1_engine_events *events, m1_engine **out, m1_error *err)
{
	const int chunk = o->prefill_chunk > 0 ? o->prefill_chunk : m1_model_prefill_chunk(o->device);
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
	m1_mailbox_init(&e->mailbox);
	if ((status = m1_model_open(&model, &e->model, err)) != M1_OK || (status = open_constraints(e, err)) != M1_OK ||
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
	m1_mailbox_free(&e->mailbox);
	free_list(e->waiting);
	for (int i = 0; i < e->n_active; i++)
		m1_request_free(e->active[i]);
	m1_prefix_cache_free(e->cache);
	m1_masker_free(e->masker);
	m1_constraints_free(e->constraints);
	m1_outcome_free(e->outcome);
	m1_model_close(e->model);
	free(e->active);
	free(e->tokens);
	free(e->segments);
	free(e->owners);
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
		.device = m1_slice_of(m1_model_device(m)),
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

static m1_status
post_request(m1_engine *e, m1_request *r, m1_error *err)
{
	r->submitted_ms = m1_now_ms();
	if (m1_request_cut(r, e->prefill_chunk) && m1_mailbox_post(&e->mailbox, M1_MAIL_REQUEST, r->id, r))
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
	m1_mailbox_post(&e->mailbox, M1_MAIL_CANCEL, id, NULL);
}

void
m1_engine_pause(m1_engine *e, uint64_t id)
{
	m1_mailbox_post(&e->mailbox, M1_MAIL_PAUSE, id, NULL);
}

void
m1_engine_resume(m1_engine *e, uint64_t id)
{
	m1_mailbox_post(&e->mailbox, M1_MAIL_RESUME, id, NULL);
}

void
m1_engine_wait(m1_engine *e)
{
	m1_mailbox_wait(&e->mailbox);
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
	m1_mail *next;

	for (m1_mail *m = m1_mailbox_take(&e->mailbox); m != NULL; m = next)
	{
		m1_request *r = m->kind == M1_MAIL_REQUEST ? NULL : find_request(e, m->id);

		next = m->next;
		if (m->kind == M1_MAIL_REQUEST)
			enqueue(e, m->request);
		else if (r != NULL && m->kind == M1_MAIL_CANCEL)
			r->cancelled = true;
		else if (r != NULL)
			r->paused = m->kind == M1_MAIL_PAUSE;
		free(m);
	}
}

/* ---- events ---- */

/* The request is over, and not done. */
static void
fail_request(m1_engine *e, m1_request *r, const m1_error *error)
{
	e->events.failed(e->events.context, r->id, error);
	r->cancelled = r->ended = true;
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

	m1_scoring_leave(e->model, r);
	m1_state_release(e->model, r->state);
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
			m1_report_failure(&e->events, e->active[i], M1_E_CANCELLED, "the request was cancelled");
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
		m1_report_failure(&e->events, r, M1_E_CANCELLED, "the request was cancelled");
		m1_request_free(r);
	}
}

/*
 * In order of arrival: a large request that does not fit yet is not overtaken forever by small ones. One that waits for
 * a snapshot, or for a place to score at, is next as soon as that is there.
 */
static void
admit(m1_engine *e)
{
	m1_request **at = &e->waiting;

	while (*at != NULL && e->n_active < e->model->max_sequences)
	{
		m1_request *r = *at;
		const m1_crowd others = crowd(e);
		m1_admission what = m1_admission_try(e->cache, e->model, &others, r);

		if (what == M1_WAITS_FOR_MEMORY)
			return;
		if (what == M1_WAITS_FOR_OTHERS)
		{
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->next = NULL;
		r->started_ms = m1_now_ms();
		e->active[e->n_active++] = r;
		m1_report_progress(&e->events, r);
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
		m1_outcome_want(e->outcome, r, b->n_tokens - 1);
}

static void
build_batch(m1_engine *e)
{
	int room = e->prefill_chunk;

	e->batch = (m1b_batch){.tokens = e->tokens, .segments = e->segments};
	m1_outcome_clear(e->outcome);
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
			m1_report_progress(&e->events, r);
		}
	}
}

/* What the step's i-th outcome means for its request. */
static m1_status
use_outcome(m1_engine *e, m1_request *r, int i, m1_error *err)
{
	const float *logits = m1_outcome_logits(e->outcome, i);

	if (r->kind == M1_REQUEST_LOGITS)
	{
		m1w_vector vector = {.values = {(const char *) logits, (size_t) e->model->config.vocab_size * sizeof *logits}};

		e->events.vector(e->events.context, r->id, &vector);
		r->ended = true;
		return M1_OK;
	}
	if (logits != NULL)
		return m1_scoring_step(e->model, r, logits, err);
	if (r->cursor != NULL && r->mask_error.code != M1_OK)
	{
		*err = r->mask_error;
		return err->code;
	}
	return m1_request_accept(r, m1_outcome_pick(e->outcome, i), err);
}

static void
report_outcome(m1_engine *e, m1_request *r)
{
	if (r->ended)
		return;
	if (r->completion_tokens == 1 || r->completion_tokens - r->reported >= PROGRESS_TOKENS)
		m1_report_progress(&e->events, r);
	if (r->kind == M1_REQUEST_CHAT)
		m1_report_deltas(&e->events, r);
}

static void
use_outcomes(m1_engine *e)
{
	for (int i = 0; i < m1_outcome_count(e->outcome); i++)
	{
		m1_request *r = m1_outcome_request(e->outcome, i);
		m1_error error;

		if (use_outcome(e, r, i, &error) == M1_OK)
			report_outcome(e, r);
		else
			fail_request(e, r, &error);
	}
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
			m1_report_done(&e->events, r);
		leave(e, i);
	}
}

m1_status
m1_engine_step(m1_engine *e, bool *busy, m1_error *err)
{
	m1_status status;

	read_mail(e);
	drop_cancelled(e);
	admit(e);
	build_batch(e);
	*busy = e->batch.n_segments > 0;
	if (!*busy)
		return M1_OK;
	if ((status = m1_outcome_run(e->outcome, &e->batch, e->masker, err)) != M1_OK)
	{
		fail_all(e, err);
		return status;
	}
	advance_fed(e);
	report_cache(e); /* before the ends of requests: whoever has an answer sees what it left */
	use_outcomes(e);
	remove_ended(e);
	return M1_OK;
}
