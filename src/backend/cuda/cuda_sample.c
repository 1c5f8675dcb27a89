/*
 * cuda_sample.c - the next tokens of a step's rows, chosen on the device: the draws and
 * masks go there, the picks are written into the host's memory, and the logits stay.
 * Rules: model/sampler.h; kernels: kernels/sample.cu.
 *
 * Choosing follows the step on its stream, and nothing waits but for the picks. What
 * tells of a reply is wiped afterwards on both sides: draws, masks, and picks.
 *
 * The searches are many small kernels, always the same for so many draws: from the
 * second time on, they are one graph. Masks, which few replies have, are not in it.
 *
 * Of several GPUs, which all have the logits then, the first one chooses.
 */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

/* A vocabulary may be too large. */
static bool
can_sample(const m1b_cuda *c)
{
	return c->g.vocab > 0 && c->g.vocab <= M1K_MAX_VOCAB;
}

void
m1b_cuda_sample_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const size_t states = (size_t) c->g.max_states;
	m1b_cuda_sampling *s = &c->sampling;

	if (!can_sample(c))
		return;
	s->mask_words = (c->g.vocab + 63) / 64;
	m1b_cuda_want(all, &s->draws, states, sizeof *s->draws);
	m1b_cuda_want(all, &s->masks, states * (size_t) s->mask_words, sizeof *s->masks);
	m1b_cuda_want(all, &s->found, states, sizeof *s->found);
	m1b_cuda_want(all, &s->bins, states * M1K_SAMPLE_BINS, sizeof *s->bins);
}

m1_status
m1b_cuda_sample_create(m1b_cuda *c, m1_error *err)
{
	m1b_cuda_sampling *s = &c->sampling;
	const size_t n = (size_t) c->g.max_states;
	m1_status status;

	if (!can_sample(c) || c->rank > 0)
		return M1_OK;
	if ((status = m1b_cuda_pinned(&s->host_draws, n * sizeof *s->host_draws, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&s->host_picks, n * sizeof *s->host_picks, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&s->host_masks, n * (size_t) s->mask_words * sizeof *s->host_masks, err)) != M1_OK)
		return status;
	m1b_cuda_zero(c, s->found, n * sizeof *s->found, "sampling");
	m1b_cuda_zero(c, s->bins, n * M1K_SAMPLE_BINS * sizeof *s->bins, "sampling");
	return m1b_cuda_status(c, err);
}

void
m1b_cuda_sample_free(m1b_cuda *c)
{
	m1b_cuda_sampling *s = &c->sampling;

	cudaFreeHost(s->host_draws);
	cudaFreeHost(s->host_picks);
	cudaFreeHost(s->host_masks);
}

/* ---- to the device ---- */

/* The number of the mask that draw i has: that of an earlier one where both are the same; `next` when it is new. */
static int
mask_of(const m1b_sample *p, const m1k_draw *draws, int i, int next)
{
	if (p->draws[i].allowed == NULL)
		return -1;
	for (int j = 0; j < i; j++)
		if (p->draws[j].allowed == p->draws[i].allowed)
			return draws[j].mask;
	return next;
}

/* Fills the pinned copies. Returns how many masks there are; *stages: the searches that some row needs. */
static int
fill(m1b_cuda *c, const m1b_sample *p, unsigned *stages)
{
	m1b_cuda_sampling *s = &c->sampling;
	const size_t words = (size_t) s->mask_words;
	int masks = 0;

	*stages = 0;
	for (int i = 0; i < p->n; i++)
	{
		const m1b_draw *draw = &p->draws[i];
		const int mask = mask_of(p, s->host_draws, i, masks);

		s->host_draws[i] = (m1k_draw){.logits = p->logits + (size_t) draw->row * (size_t) c->g.vocab,
									  .uniform = draw->uniform,
									  .temperature = draw->temperature,
									  .top_p = draw->top_p,
									  .top_k = draw->top_k,
									  .mask = mask};
		if (mask == masks)
			memcpy(s->host_masks + (size_t) masks++ * words, draw->allowed, words * sizeof *draw->allowed);
		if (draw->temperature > 0.0f)
			*stages |=
				1u << M1K_DRAW | (draw->top_p < 1.0f ? 1u << M1K_TOP_P : 0) | (draw->top_k > 0 ? 1u << M1K_TOP_K : 0);
	}
	return masks;
}

static m1b_cuda_recording *
recording_of(m1b_cuda *c, int n, unsigned stages)
{
	return n <= M1B_CUDA_RECORDINGS ? &c->graphs.draws[n][stages] : NULL;
}

/* Everything but the masks' way there. */
static void
launch(m1b_cuda *c, int n, unsigned stages)
{
	m1b_cuda_sampling *s = &c->sampling;
	const m1k_sample k = {
		.vocab = c->g.vocab,
		.masks = s->masks,
		.mask_words = s->mask_words,
		.draws = s->draws,
		.n = n,
		.found = s->found,
		.bins = s->bins,
		.picks = s->host_picks,
	};

	if (m1b_cuda_replay(c, recording_of(c, n, stages)))
		return;
	do
	{
		m1b_cuda_upload(c, s->draws, s->host_draws, (size_t) n * sizeof *s->draws, "sampling");
		m1k_sample_tokens(&k, stages, c->stream);
		m1b_cuda_launched(c, "sampling");
	} while (!m1b_cuda_end_recording(c));
	m1b_cuda_launch_recorded(c);
}

m1_status
m1b_cuda_sample(m1b_backend *b, const m1b_sample *p, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);
	m1b_cuda_sampling *s = &c->sampling;
	const size_t n = (size_t) p->n;
	size_t mask_bytes;
	unsigned stages;

	if (!can_sample(c))
		return m1_fail(err, M1_E_UNSUPPORTED, "a vocabulary of %d tokens is not sampled on the device", c->g.vocab);
	m1b_cuda_loader_finish(c);
	/* the call before has waited for its picks: its copies have left the pinned memory */
	mask_bytes = (size_t) fill(c, p, &stages) * (size_t) s->mask_words * sizeof *s->masks;
	m1b_cuda_upload(c, s->masks, s->host_masks, mask_bytes, "sampling");
	launch(c, p->n, stages);
	m1b_cuda_zero(c, s->masks, mask_bytes, "sampling");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "running a step");
	for (int i = 0; i < p->n; i++)
		p->picks[i] = (m1b_pick){.id = s->host_picks[i].id, .probability = s->host_picks[i].probability};
	explicit_bzero(s->host_draws, n * sizeof *s->host_draws);
	explicit_bzero(s->host_masks, mask_bytes);
	explicit_bzero(s->host_picks, n * sizeof *s->host_picks);
	return m1b_cuda_status(c, err);
}
