/*
 * engine.c - see engine.h: the scheduler of continuous batching; m1_engine_step, at the end, is the whole of it.
 *
 * Requests wait in order of arrival for a state (see admission.h); with one, they are active. A step takes one token of
 * every active request that is decoding, and as many whole prefill chunks as fit beside them, starting with a different
 * request each time, so that neither a long prompt nor many of them stall a running answer. Those that nobody waits
 * for, the answers that a training draws, take part in a step as often as their share of the time allows: see share.h.
 */
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/admission.h"
#include "engine/constraints.h"
#include "engine/events.h"
#include "engine/learning.h"
#include "engine/mailbox.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/scored_answer.h"
#include "engine/share.h"
#include "engine/step.h"
#include "model/state.h"

#define DEFAULT_LOOP_GUARD 3000 /* as in M1's training */
#define PROGRESS_TOKENS 16		/* decoded tokens between two progress events */
#define ABOUT_MS 20.0			/* others are about as long as this after their last step */

struct m1_engine
{
	m1_model *model;
	m1_constraints *constraints; /* NULL without a tokenizer */
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
	m1_learning *learning;
	m1_share share;	  /* what trainings take of the time */
	double served_ms; /* when others were served for the last time */
	int turn;		  /* which active request's prefill comes first */
	m1_step *step;
};

/* ---- life ---- */

static m1_status
open_parts(m1_engine *e, const m1_engine_options *o, m1_error *err)
{
	const m1_model *m = e->model;

	if (m->tokenizer != NULL && (e->constraints = m1_constraints_create(m->tokenizer, m->config.vocab_size)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for constraints");
	e->active = calloc((size_t) m->max_sequences, sizeof *e->active);
	e->cache = m1_prefix_cache_create(m, o->prefix_cache_bytes, 64);
	e->learning = m1_learning_create(e->model, &e->events, o->adapter_bytes);
	if (e->active == NULL || e->cache == NULL || e->learning == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d requests", m->max_sequences);
	return m1_step_create(e->model, &e->step, err);
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
		.adapters = o->adapters,
		.n_adapters = o->n_adapters,
		.log = o->log,
		.log_context = o->log_context,
	};
	m1_engine *e;
	m1_status status;

	*out = NULL;
	if (o->max_requests < 1 || o->max_requests > 65536 || chunk > 65536)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "max_requests must be between 1 and 65536");
	if (!(o->learning_share >= 0.0 && o->learning_share <= 0.95))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "learning_share must be between 0 and 0.95");
	if ((e = calloc(1, sizeof *e)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the engine");
	e->events = *events;
	e->share.share = o->learning_share;
	e->prefill_chunk = chunk;
	e->loop_guard = o->loop_guard > 0 ? o->loop_guard : DEFAULT_LOOP_GUARD;
	m1_mailbox_init(&e->mailbox);
	if ((status = m1_model_open(&model, &e->model, err)) != M1_OK || (status = open_parts(e, o, err)) != M1_OK)
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
	m1_step_free(e->step);
	m1_constraints_free(e->constraints);
	m1_learning_free(e->learning);
	m1_model_close(e->model);
	free(e->active);
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
m1_engine_generate(m1_engine *e, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err)
{
	m1_request *r;
	m1_status status = m1_request_create(e->model, e->constraints, id, g, e->loop_guard, work, &r, err);

	return status == M1_OK ? post_request(e, r, err) : status;
}

m1_status
m1_engine_logits(m1_engine *e, uint64_t id, m1w_id_slice ids, m1_error *err)
{
	m1_request *r;
	m1_status status = m1_request_create_logits(e->model, id, ids, &r, err);

	return status == M1_OK ? post_request(e, r, err) : status;
}

m1_status
m1_engine_learn(m1_engine *e, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work, m1_error *err)
{
	m1_learn_request *r;
	m1_status status = m1_learn_request_create(e->model, id, type, payload, work, &r, err);

	if (status != M1_OK)
		return status;
	m1_learning_prepare(e->learning, r);
	if (m1_mailbox_post_learn(&e->mailbox, r))
		return M1_OK;
	m1_learn_request_free(r);
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
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
	m1_mailbox_wait(&e->mailbox, -1.0);
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

/* In order of arrival; those that nobody waits for stand behind the others, whose memory they would block. */
static void
enqueue(m1_engine *e, m1_request *r)
{
	const m1_crowd others = crowd(e);
	m1_request **at = &e->waiting;

	m1_admission_arrived(e->cache, &others, r);

	while (*at != NULL && (r->background || !(*at)->background))
		at = &(*at)->next;
	r->next = *at;
	*at = r;
}

static void
take_mail(m1_engine *e)
{
	m1_mail *next;

	for (m1_mail *m = m1_mailbox_take(&e->mailbox); m != NULL; m = next)
	{
		m1_request *r = m->kind == M1_MAIL_REQUEST ? NULL : find_request(e, m->id);

		next = m->next;
		if (m->kind == M1_MAIL_REQUEST)
			enqueue(e, m->request);
		else if (m->kind == M1_MAIL_LEARN)
			m1_learning_add(e->learning, m->learn);
		else if (r == NULL && m->kind == M1_MAIL_CANCEL)
			m1_learning_cancel(e->learning, m->id);
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
	m1_event_failed(&e->events, r, error);
	r->cancelled = r->ended = true;
}

static void
tell_cancelled(m1_engine *e, const m1_request *r)
{
	m1_error error;

	m1_fail(&error, M1_E_CANCELLED, "the request was cancelled");
	m1_event_failed(&e->events, r, &error);
}

static void
tell_cache(m1_engine *e)
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

	m1_scored_answer_leave(e->model, r);
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
			tell_cancelled(e, e->active[i]);
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
		tell_cancelled(e, r);
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
		m1_event_progress(&e->events, r);
	}
}

/* ---- one step ---- */

/* Whether a step may feed it now. */
static bool
can_be_fed(const m1_request *r)
{
	return !r->paused && m1_request_pending(r) > 0;
}

/* Somebody waits for what a step does; a paused one is waited for by nobody. */
static bool
serves_others(const m1_engine *e)
{
	for (int i = 0; i < e->n_active; i++)
	{
		const m1_request *r = e->active[i];

		if (!r->background && (can_be_fed(r) || (r->waits_for_mask && !r->paused)))
			return true;
	}
	return false;
}

static void
tell_wants(m1_engine *e)
{
	bool requests = false;

	for (int i = 0; i < e->n_active; i++)
		requests = requests || (e->active[i]->background && can_be_fed(e->active[i]));
	m1_share_want(&e->share, M1_SHARE_REQUESTS, requests);
	m1_share_want(&e->share, M1_SHARE_LESSONS, m1_learning_pending(e->learning));
}

static void
add_decoding(m1_engine *e, bool background)
{
	for (int i = 0; i < e->n_active; i++)
	{
		m1_request *r = e->active[i];

		if (r->background == background && !r->paused && m1_request_pending(r) == 1)
			m1_step_add(e->step, r, 1);
	}
}

/* So many chunks at most. Returns what is left of the room. */
static int
add_prefill(m1_engine *e, bool background, int chunks, int room)
{
	for (int i = 0; i < e->n_active && chunks > 0; i++)
	{
		m1_request *r = e->active[(e->turn + i) % e->n_active];
		int n = m1_request_next_chunk(r, e->prefill_chunk);

		if (r->background != background || r->paused || m1_request_pending(r) <= 1 || n > room)
			continue;
		m1_step_add(e->step, r, n);
		room -= n;
		chunks--;
	}
	return room;
}

/* Beside others, a training's prompts come one at a time: each makes a step longer that others wait for. */
static void
build_batch(m1_engine *e, bool beside)
{
	int room;

	m1_step_clear(e->step);
	add_decoding(e, false);
	room = add_prefill(e, false, e->n_active, e->prefill_chunk);
	if (!beside || m1_share_has_turn(&e->share, M1_SHARE_REQUESTS))
	{
		add_decoding(e, true);
		add_prefill(e, true, beside ? 1 : e->n_active, room);
	}
	/* also when they are paused: others may wait for what a half-done mask keeps */
	for (int i = 0; i < e->n_active; i++)
		if (e->active[i]->waits_for_mask)
			m1_step_add_waiting(e->step, e->active[i]);
	e->turn = e->n_active > 0 ? (e->turn + 1) % e->n_active : 0;
}

static void
fail_all(m1_engine *e, const m1_error *error)
{
	for (int i = 0; i < e->n_active; i++)
		m1_event_failed(&e->events, e->active[i], error);
	while (e->n_active > 0)
		leave(e, e->n_active - 1);
	for (m1_request *r = e->waiting; r != NULL; r = r->next)
		m1_event_failed(&e->events, r, error);
	free_list(e->waiting);
	e->waiting = NULL;
	m1_learning_fail(e->learning, error);
}

static void
advance_fed(m1_engine *e)
{
	for (int i = 0; i < m1_step_size(e->step); i++)
	{
		m1_request *r = m1_step_request(e->step, i);

		r->fed += m1_step_tokens(e->step, i);
		if (r->prefilled_ms == 0 && r->fed >= r->prompt_tokens)
			r->prefilled_ms = m1_now_ms();
		if (r->fed < r->prompt_tokens)
		{
			const m1_crowd others = crowd(e);

			m1_admission_fed(e->cache, &others, r);
			m1_event_progress(&e->events, r);
		}
	}
}

static m1_status
use_result(m1_engine *e, const m1_result *result, m1_error *err)
{
	m1_request *r = result->request;

	if (result->broken)
		return m1_model_not_finite(err);
	if (r->kind == M1_REQUEST_LOGITS)
	{
		m1_event_vector(&e->events, r, result->logits, e->model->config.vocab_size);
		r->ended = true;
		return M1_OK;
	}
	if (result->logits != NULL)
		return m1_scored_answer_read(e->model, r, result->logits, err);
	if (r->cursor != NULL && r->mask_error.code != M1_OK)
	{
		*err = r->mask_error;
		return err->code;
	}
	return m1_request_accept(r, result->token, err);
}

static void
tell_progress(m1_engine *e, m1_request *r)
{
	if (r->ended)
		return;
	if (r->completion_tokens == 1 || r->completion_tokens - r->reported >= PROGRESS_TOKENS)
		m1_event_progress(&e->events, r);
	if (r->kind == M1_REQUEST_CHAT)
		m1_event_deltas(&e->events, r);
}

static void
use_results(m1_engine *e)
{
	for (int i = 0; i < m1_step_results(e->step); i++)
	{
		const m1_result *result = m1_step_result(e->step, i);
		m1_error error;

		if (result->request->waits_for_mask && !result->broken)
			continue;
		if (use_result(e, result, &error) == M1_OK)
			tell_progress(e, result->request);
		else
			fail_request(e, result->request, &error);
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
			m1_event_done(&e->events, r);
		leave(e, i);
	}
}

/* Others were served a moment ago: whoever asks one thing after the other is about to ask the next. */
static bool
others_are_about(const m1_engine *e, double now)
{
	return e->served_ms > 0.0 && now - e->served_ms < ABOUT_MS;
}

/* What the step took is put down; the time of one without tokens is that of a mask. */
static void
share_time(m1_engine *e, bool beside, double ms)
{
	int tokens[2] = {0};

	for (int i = 0; i < m1_step_size(e->step); i++)
		tokens[m1_step_request(e->step, i)->background] += m1_step_tokens(e->step, i);
	if (beside)
		m1_share_step(&e->share, tokens[false], tokens[true], ms);
	else
		m1_share_free_step(&e->share, tokens[true], ms);
}

/* A piece of a lesson, if it is learning's turn. */
static bool
learn(m1_engine *e, bool beside)
{
	const double began = m1_now_ms();

	if (!m1_learning_pending(e->learning) || (beside && !m1_share_has_turn(&e->share, M1_SHARE_LESSONS)))
		return false;
	m1_learning_piece(e->learning);
	m1_share_piece(&e->share, beside, m1_now_ms() - began);
	return true;
}

/* There is nothing for a batch. Returns whether there is something to do all the same, or will be in a moment. */
static bool
learn_or_wait(m1_engine *e, bool beside)
{
	if (!m1_share_is_wanted(&e->share))
		return false;
	if (!learn(e, beside) && beside)
		m1_mailbox_wait(&e->mailbox, ABOUT_MS - (m1_now_ms() - e->served_ms));
	return true;
}

static m1_status
run_batch(m1_engine *e, m1_error *err)
{
	m1_status status;

	m1_step_forward(e->step);
	if ((status = m1_step_sample(e->step, err)) != M1_OK)
	{
		fail_all(e, err);
		return status;
	}
	m1_step_keep_experts(e->step);
	advance_fed(e);
	tell_cache(e); /* before the ends of requests: whoever has an answer sees what it left */
	use_results(e);
	return M1_OK;
}

m1_status
m1_engine_step(m1_engine *e, bool *busy, m1_error *err)
{
	const double began = m1_now_ms();
	bool served;
	bool beside;
	m1_status status;

	take_mail(e);
	drop_cancelled(e);
	admit(e);
	served = serves_others(e);
	beside = served || others_are_about(e, began);
	tell_wants(e);
	build_batch(e, beside);
	if (m1_step_size(e->step) == 0 && m1_step_results(e->step) == 0)
	{
		*busy = learn_or_wait(e, beside);
		return M1_OK;
	}
	*busy = true;
	if ((status = run_batch(e, err)) != M1_OK)
		return status;
	if (served)
		e->served_ms = m1_now_ms();
	share_time(e, beside, m1_now_ms() - began);
	remove_ended(e);
	m1_adapter_set_sweep(e->model->adapters);
	learn(e, beside);
	return M1_OK;
}
