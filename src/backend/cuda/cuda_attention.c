/* cuda_attention.c - lightning and softmax attention on the GPU: the kernels' constants and parameters. */
#include "backend/cuda/cuda_internal.h"

#include <math.h>
#include <stdlib.h>

#define SPLIT_BLOCKS 264 /* of one decoding token: two for each multiprocessor of an H100 or H200 */

/* Into how many ranges, at most, a decoding token's keys are divided: see m1k_attention. */
static int
splits_of(const m1b_geometry *g)
{
	/* with as many, the longest context has the shortest ranges */
	const int enough = (m1b_pages_for(g->max_context) + M1K_RANGE_PAGES - 1) / M1K_RANGE_PAGES;
	const int most = enough < M1K_MAX_SPLITS ? enough : M1K_MAX_SPLITS;
	const int splits = SPLIT_BLOCKS / g->kv_heads;

	return splits < 1 ? 1 : splits > most ? most : splits;
}

/* ---- life ---- */

void
m1b_cuda_attention_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	const size_t rotary_dim = (size_t) g->rotary_dim;

	m1b_cuda_want(all, &c->attention.inv_freq, rotary_dim / 2 + 1, sizeof *c->attention.inv_freq);
	m1b_cuda_want(all, &c->attention.rope, (size_t) g->max_tokens * rotary_dim + 1, sizeof *c->attention.rope);
	m1b_cuda_want(all, &c->attention.partial,
				  (size_t) g->max_states * (size_t) (g->heads * splits_of(g)) * ((size_t) g->head_dim + 2),
				  sizeof *c->attention.partial);
}

/* As the CPU backend computes them: the angles must be the same. */
m1_status
m1b_cuda_attention_create(m1b_cuda *c, m1_error *err)
{
	const int half = c->g.rotary_dim / 2;
	float *inv_freq = calloc((size_t) half + 1, sizeof *inv_freq);

	if (inv_freq == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	for (int j = 0; j < half; j++)
		inv_freq[j] = 1.0f / powf(c->g.rope_theta, 2.0f * (float) j / (float) c->g.rotary_dim);
	m1b_cuda_upload(c, c->attention.inv_freq, inv_freq, ((size_t) half + 1) * sizeof *inv_freq, "uploading constants");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "uploading constants");
	free(inv_freq);
	return m1b_cuda_status(c, err);
}

/* ---- operations ---- */

void
m1b_cuda_rotations(m1b_cuda *c)
{
	m1k_rope_table(c->step.segments, c->step.segment_of, c->step.batch->n_tokens, c->attention.inv_freq,
				   c->g.rotary_dim / 2, c->attention.rope, c->stream);
	m1b_cuda_launched(c, "preparing a step");
}

void
m1b_cuda_lightning(m1b_backend *b, const m1b_lightning *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const size_t layer = (size_t) c->g.heads * (size_t) c->g.head_dim * (size_t) c->g.head_dim;
	const m1k_lightning k = {
		.segments = c->step.segments,
		.n_segments = p->batch->n_segments,
		.one_each = c->step.one_each,
		.tensor_cores = c->tensor_cores,
		.decay = p->decay + c->rank * c->g.heads,
		.qkv = p->qkv,
		.out = p->out,
		.states = c->pool.state_memory + (size_t) p->slot * layer,
		.state_stride = c->plan.state_bytes / sizeof(float),
		.heads = c->g.heads,
		.head_dim = c->g.head_dim,
	};

	m1k_lightning_attention(&k, c->stream);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "running lightning attention");
}

void
m1b_cuda_attention(m1b_backend *b, const m1b_attention *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_attention k = {
		.segments = c->step.segments,
		.n_segments = p->batch->n_segments,
		.segment_of = c->step.segment_of,
		.n_tokens = p->batch->n_tokens,
		.one_each = c->step.one_each,
		.q = p->q,
		.k = p->k,
		.v = p->v,
		.out = p->out,
		.rope = c->attention.rope,
		.pages = c->pool.page_memory,
		.page_bytes = c->plan.page_bytes,
		.slot_bytes = (size_t) p->slot * c->plan.slot_bytes,
		.kv_bf16 = c->tensor_cores,
		.table = c->pool.device_table,
		.table_stride = c->pool.table_stride,
		.heads = c->g.heads,
		.kv_heads = c->g.kv_heads,
		.head_dim = c->g.head_dim,
		.rotary_dim = c->g.rotary_dim,
		.splits = splits_of(&c->g),
		.partial = c->attention.partial,
	};

	m1k_softmax_attention(&k, c->stream);
	m1b_cuda_wrote(c, p->q);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "running softmax attention");
}
