/* outcome.c - see outcome.h. */
#include "engine/outcome.h"

#include <stdlib.h>

#include "engine/scoring.h"
#include "model/forward.h"

/* What one request is given. */
typedef struct answer
{
	m1_request *request;
	bool logits; /* rather than a token */
	m1b_pick pick;
} answer;

struct m1_outcome
{
	m1_model *model;
	m1_sampler *sampler;
	int n;
	answer *answers;	  /* [max_sequences] in the order of their rows */
	int *rows;			  /* [max_sequences] of the batch */
	float *logits;		  /* [max_sequences, vocab] of those that were read */
	m1_request **sampled; /* [max_sequences] those that are given tokens */

	/* those that the device chooses: the same as their answers', without gaps */
	m1b_draw *draws;
	m1b_pick *picks;
};

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
open_sampler(m1_outcome *o, m1_error *err)
{
	bool *alive = NULL;
	m1_status status;

	if (o->model->tokenizer != NULL && (alive = alive_tokens(o->model)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the sampler");
	status = m1_sampler_create(o->model->config.vocab_size, alive, &o->sampler, err);
	free(alive);
	return status;
}

m1_status
m1_outcome_create(m1_model *model, m1_outcome **out, m1_error *err)
{
	const size_t n = (size_t) model->max_sequences;
	m1_outcome *o = calloc(1, sizeof *o);
	m1_status status;

	*out = NULL;
	if (o == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a step");
	o->model = model;
	o->answers = calloc(n, sizeof *o->answers);
	o->rows = calloc(n, sizeof *o->rows);
	o->logits = calloc(n * (size_t) model->config.vocab_size, sizeof *o->logits);
	o->sampled = calloc(n, sizeof *o->sampled);
	o->draws = calloc(n, sizeof *o->draws);
	o->picks = calloc(n, sizeof *o->picks);
	if (!o->answers || !o->rows || !o->logits || !o->sampled || !o->draws || !o->picks)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for a step of %zu requests", n);
	else
		status = open_sampler(o, err);
	if (status != M1_OK)
	{
		m1_outcome_free(o);
		return status;
	}
	*out = o;
	return M1_OK;
}

void
m1_outcome_free(m1_outcome *o)
{
	if (o == NULL)
		return;
	m1_sampler_free(o->sampler);
	free(o->answers);
	free(o->rows);
	free(o->logits);
	free(o->sampled);
	free(o->draws);
	free(o->picks);
	free(o);
}

/* ---- what is wanted ---- */

void
m1_outcome_clear(m1_outcome *o)
{
	o->n = 0;
}

void
m1_outcome_want(m1_outcome *o, m1_request *r, int row)
{
	o->rows[o->n] = row;
	o->answers[o->n++] = (answer){.request = r, .logits = r->kind == M1_REQUEST_LOGITS || m1_scoring_goes_on(r)};
}

/* ---- the step ---- */

static float *
logits_at(const m1_outcome *o, int i)
{
	return o->logits + (size_t) i * (size_t) o->model->config.vocab_size;
}

static bool
is_sampled(const answer *a)
{
	return !a->logits && (a->request->cursor == NULL || a->request->mask_error.code == M1_OK);
}

/* Draw number `completion_tokens` of the request's seed. */
static uint64_t
draw_number(const m1_request *r)
{
	return (uint64_t) r->completion_tokens;
}

/* M1_E_UNSUPPORTED when the device does not choose. */
static m1_status
sample_there(m1_outcome *o, m1_error *err)
{
	int n = 0;
	m1_status status;

	if (!m1_forward_samples(o->model))
		return M1_E_UNSUPPORTED;
	for (int i = 0; i < o->n; i++)
		if (is_sampled(&o->answers[i]))
		{
			const m1_request *r = o->answers[i].request;

			o->draws[n++] = m1_sampler_draw(o->sampler, &r->sampling, draw_number(r), r->mask, i);
		}
	if (n == 0)
		return M1_OK;
	if ((status = m1_forward_sample(o->model, o->draws, n, o->picks, err)) == M1_OK)
		while (--n >= 0)
			o->answers[o->draws[n].row].pick = o->picks[n];
	return status;
}

/* Reads the logits of those that want them, or of all; neighbours at once. */
static m1_status
read_logits(m1_outcome *o, bool all, m1_error *err)
{
	m1_status status = M1_OK;

	for (int i = 0, run; i < o->n && status == M1_OK; i += run)
	{
		const bool wanted = all || o->answers[i].logits;

		for (run = 1; i + run < o->n && (all || o->answers[i + run].logits == wanted); run++)
			;
		if (wanted)
			status = m1_forward_logits(o->model, i, run, logits_at(o, i), err);
	}
	return status;
}

static void
sample_here(m1_outcome *o)
{
	for (int i = 0; i < o->n; i++)
		if (is_sampled(&o->answers[i]))
		{
			m1_request *r = o->answers[i].request;

			o->answers[i].pick = m1_sampler_pick(o->sampler, &r->sampling, draw_number(r), r->mask, logits_at(o, i));
		}
}

static void
start_masks(m1_outcome *o, m1_masker *masker)
{
	int n = 0;

	for (int i = 0; i < o->n; i++)
		if (!o->answers[i].logits)
			o->sampled[n++] = o->answers[i].request;
	m1_masker_start(masker, o->sampled, n);
}

m1_status
m1_outcome_run(m1_outcome *o, const m1b_batch *batch, m1_masker *masker, m1_error *err)
{
	m1_status status;

	if (masker != NULL)
		start_masks(o, masker);
	m1_forward_start(o->model, batch, o->rows, o->n);
	if (masker != NULL)
		m1_masker_wait(masker);
	status = sample_there(o, err);
	if (status != M1_E_UNSUPPORTED)
		return status == M1_OK ? read_logits(o, false, err) : status;
	if ((status = read_logits(o, true, err)) == M1_OK)
		sample_here(o);
	return status;
}

/* ---- what came of it ---- */

int
m1_outcome_count(const m1_outcome *o)
{
	return o->n;
}

m1_request *
m1_outcome_request(const m1_outcome *o, int i)
{
	return o->answers[i].request;
}

const float *
m1_outcome_logits(const m1_outcome *o, int i)
{
	return o->answers[i].logits ? logits_at(o, i) : NULL;
}

m1b_pick
m1_outcome_pick(const m1_outcome *o, int i)
{
	return o->answers[i].pick;
}
