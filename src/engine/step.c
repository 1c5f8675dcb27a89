/* step.c - see step.h. */
#include "engine/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/masker.h"
#include "engine/scored_answer.h"
#include "model/forward.h"
#include "model/sampler.h"

struct m1_step
{
	m1_model *model;
	m1_sampler *sampler;
	m1_masker *masker; /* NULL without a tokenizer */

	m1b_batch batch;	   /* the two below */
	int32_t *tokens;	   /* [max_batch_tokens] */
	m1b_segment *segments; /* [max_sequences] */
	m1_request **owners;   /* [max_sequences] of the segments */

	bool keeps; /* the experts of this step's tokens */
	int n_rows;
	int n_results;		  /* those of rows, and behind them those that waited for their masks */
	m1_result *results;	  /* [max_sequences] in the order of their rows */
	int *rows;			  /* [max_sequences] of the batch */
	float *logits;		  /* [max_sequences, vocab] of those results that were read */
	m1_request **sampled; /* [max_sequences] those that are given tokens */

	/* of those that the device chooses: the same as their results', without gaps */
	m1b_draw *draws;
	m1b_pick *picks;
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
open_sampler(m1_step *s, m1_error *err)
{
	bool *alive = NULL;
	m1_status status;

	if (s->model->tokenizer != NULL && (alive = alive_tokens(s->model)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the sampler");
	status = m1_sampler_create(s->model->config.vocab_size, alive, &s->sampler, err);
	free(alive);
	return status;
}

static m1_status
allocate(m1_step *s, m1_error *err)
{
	const size_t n = (size_t) s->model->max_sequences;

	s->tokens = calloc((size_t) s->model->max_batch_tokens, sizeof *s->tokens);
	s->segments = calloc(n, sizeof *s->segments);
	s->owners = calloc(n, sizeof *s->owners);
	s->results = calloc(n, sizeof *s->results);
	s->rows = calloc(n, sizeof *s->rows);
	s->logits = calloc(n * (size_t) s->model->config.vocab_size, sizeof *s->logits);
	s->sampled = calloc(n, sizeof *s->sampled);
	s->draws = calloc(n, sizeof *s->draws);
	s->picks = calloc(n, sizeof *s->picks);
	if (!s->tokens || !s->segments || !s->owners || !s->results || !s->rows || !s->logits || !s->sampled || !s->draws ||
		!s->picks)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a step of %zu requests", n);
	return M1_OK;
}

m1_status
m1_step_create(m1_model *model, m1_step **out, m1_error *err)
{
	m1_step *s = calloc(1, sizeof *s);
	m1_status status;

	*out = NULL;
	if (s == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a step");
	s->model = model;
	if ((status = allocate(s, err)) == M1_OK && (status = open_sampler(s, err)) == M1_OK && model->tokenizer != NULL)
		status = m1_masker_create(model->max_sequences, &s->masker, err);
	if (status != M1_OK)
	{
		m1_step_free(s);
		return status;
	}
	*out = s;
	return M1_OK;
}

void
m1_step_free(m1_step *s)
{
	if (s == NULL)
		return;
	m1_masker_free(s->masker);
	m1_sampler_free(s->sampler);
	free(s->tokens);
	free(s->segments);
	free(s->owners);
	free(s->results);
	free(s->rows);
	free(s->logits);
	free(s->sampled);
	free(s->draws);
	free(s->picks);
	free(s);
}

/* ---- the batch ---- */

void
m1_step_clear(m1_step *s)
{
	s->batch = (m1b_batch){.tokens = s->tokens, .segments = s->segments};
	s->n_rows = s->n_results = 0;
}

static float *
logits_at(const m1_step *s, int i)
{
	return s->logits + (size_t) i * (size_t) s->model->config.vocab_size;
}

/* The request wants to know what follows a row of the batch. */
static void
want(m1_step *s, m1_request *r, int row)
{
	const bool logits = r->kind == M1_REQUEST_LOGITS || m1_scored_answer_goes_on(r);
	const int i = s->n_results++;

	s->rows[s->n_rows++] = row;
	s->results[i] = (m1_result){.request = r, .logits = logits ? logits_at(s, i) : NULL};
}

void
m1_step_add(m1_step *s, m1_request *r, int n)
{
	m1b_batch *b = &s->batch;

	memcpy(s->tokens + b->n_tokens, r->tokens.data + r->fed, (size_t) n * sizeof *s->tokens);
	s->segments[b->n_segments] =
		(m1b_segment){.state = r->state, .start = r->fed, .n_tokens = n, .row = b->n_tokens, .adapter = r->adapter};
	s->owners[b->n_segments++] = r;
	b->n_tokens += n;
	if (n == m1_request_pending(r))
		want(s, r, b->n_tokens - 1);
}

void
m1_step_add_waiting(m1_step *s, m1_request *r)
{
	s->results[s->n_results++] = (m1_result){.request = r};
}

int
m1_step_size(const m1_step *s)
{
	return s->batch.n_segments;
}

m1_request *
m1_step_request(const m1_step *s, int i)
{
	return s->owners[i];
}

int
m1_step_tokens(const m1_step *s, int i)
{
	return s->segments[i].n_tokens;
}

void
m1_step_keep_experts(const m1_step *s)
{
	for (int i = 0; s->keeps && i < s->batch.n_segments; i++)
	{
		const m1b_segment *segment = &s->segments[i];

		for (int t = 0; s->owners[i]->kept != NULL && t < segment->n_tokens; t++)
			m1_forward_choices(s->model, segment->row + t,
							   m1_kept_reply_experts(s->owners[i]->kept, segment->start + t));
	}
}

/* ---- the forward pass ---- */

static void
start_masks(m1_step *s)
{
	int n = 0;

	for (int i = 0; i < s->n_results; i++)
		if (s->results[i].logits == NULL)
			s->sampled[n++] = s->results[i].request;
	m1_masker_start(s->masker, s->sampled, n);
}

void
m1_step_forward(m1_step *s)
{
	bool keep = false;

	for (int i = 0; i < s->batch.n_segments; i++)
		keep = keep || s->owners[i]->kept != NULL;
	s->keeps = m1_forward_keep_choices(s->model, keep) && keep;
	if (s->masker != NULL)
		start_masks(s);
	if (s->batch.n_tokens > 0)
		m1_forward_start(s->model, &s->batch, s->rows, s->n_rows);
	if (s->masker != NULL)
		m1_masker_wait(s->masker);
}

/* ---- the choice of tokens ---- */

static bool
waits_for_mask(const m1_result *result)
{
	return result->logits == NULL && result->request->cursor != NULL && !result->request->mask_done;
}

/* Chosen where their logits are read: for what those say beside. */
static bool
is_measured(const m1_result *result)
{
	return result->request->logprobs != NULL;
}

static bool
is_sampled(const m1_result *result)
{
	const m1_request *r = result->request;

	return result->logits == NULL && (r->cursor == NULL || (r->mask_done && r->mask_error.code == M1_OK));
}

/* Draw number `completion_tokens` of the request's seed. */
static uint64_t
draw_number(const m1_request *r)
{
	return (uint64_t) r->completion_tokens;
}

static void
note_pick(m1_result *result, m1b_pick pick)
{
	result->token = pick;
	result->broken = isnan(pick.probability);
}

/* M1_E_UNSUPPORTED when the device does not choose. */
static m1_status
sample_on_device(m1_step *s, m1_error *err)
{
	int n = 0;
	m1_status status;

	if (!m1_forward_samples(s->model))
		return M1_E_UNSUPPORTED;
	for (int i = 0; i < s->n_rows; i++)
		if (is_sampled(&s->results[i]) && !is_measured(&s->results[i]))
		{
			const m1_request *r = s->results[i].request;

			s->draws[n++] = m1_sampler_draw(s->sampler, &r->sampling, draw_number(r), r->mask, i);
		}
	if (n == 0)
		return M1_OK;
	if ((status = m1_forward_sample(s->model, s->draws, n, s->picks, err)) == M1_OK)
		while (--n >= 0)
			note_pick(&s->results[s->draws[n].row], s->picks[n]);
	return status;
}

static void
sample_on_host(m1_step *s, m1_result *result, const float *logits)
{
	m1_request *r = result->request;

	if (!is_sampled(result))
		return;
	note_pick(result, m1_sampler_pick(s->sampler, &r->sampling, draw_number(r), r->mask, logits));
	if (is_measured(result) && !result->broken)
		m1_token_logprobs_measure(r->logprobs, logits, s->model->config.vocab_size, result->token.id);
	if (r->kept != NULL && !result->broken)
		m1_kept_reply_measure(r->kept, logits, r->sampling.temperature, r->mask, result->token.id);
}

/* For their own sake, to wait for a mask, or to choose from. */
static bool
wants_logits(const m1_result *result)
{
	return result->logits != NULL || waits_for_mask(result) || is_measured(result);
}

/* Reads the logits of those that want them, or of all; neighbours at once. */
static m1_status
read_logits(m1_step *s, bool all, m1_error *err)
{
	m1_status status = M1_OK;

	for (int i = 0, run; i < s->n_rows && status == M1_OK; i += run)
	{
		const bool wanted = all || wants_logits(&s->results[i]);

		for (run = 1; i + run < s->n_rows && (all || wants_logits(&s->results[i + run]) == wanted); run++)
			;
		if (wanted)
			status = m1_forward_logits(s->model, i, run, logits_at(s, i), err);
		for (int k = i; wanted && status == M1_OK && k < i + run; k++)
			if (wants_logits(&s->results[k]))
				s->results[k].broken = !m1_logits_are_finite(logits_at(s, k), s->model->config.vocab_size);
	}
	return status;
}

/* The tokens of those that were fed. */
static m1_status
sample_rows(m1_step *s, m1_error *err)
{
	m1_status status = sample_on_device(s, err);
	const bool all = status == M1_E_UNSUPPORTED;

	if (status == M1_OK || all)
		status = read_logits(s, all, err);
	for (int i = 0; i < s->n_rows && status == M1_OK; i++)
		if (all || is_measured(&s->results[i]))
			sample_on_host(s, &s->results[i], logits_at(s, i));
	return status;
}

/* What cannot be chosen yet is chosen from the same logits later. */
static void
keep_waiting(m1_step *s)
{
	for (int i = 0; i < s->n_results; i++)
	{
		m1_request *r = s->results[i].request;
		const bool waits = waits_for_mask(&s->results[i]);

		if (waits && !r->waits_for_mask)
			memcpy(r->logits, logits_at(s, i), (size_t) s->model->config.vocab_size * sizeof *r->logits);
		r->waits_for_mask = waits;
	}
}

m1_status
m1_step_sample(m1_step *s, m1_error *err)
{
	m1_status status = s->n_rows > 0 ? sample_rows(s, err) : M1_OK;

	if (status != M1_OK)
		return status;
	for (int i = s->n_rows; i < s->n_results; i++)
		sample_on_host(s, &s->results[i], s->results[i].request->logits);
	keep_waiting(s);
	return M1_OK;
}

/* ---- what came of it ---- */

int
m1_step_results(const m1_step *s)
{
	return s->n_results;
}

const m1_result *
m1_step_result(const m1_step *s, int i)
{
	return &s->results[i];
}
