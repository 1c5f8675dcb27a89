/* cuda_attention.c - lightning and softmax attention on the GPU: parameters for the kernels. */
#include "backend/cuda/cuda_internal.h"

#define SPLIT_BLOCKS 264 /* of one decoding token: two for each multiprocessor of an H100 or H200 */

int
m1b_cuda_splits(const m1b_geometry *g)
{
	/* with as many, the longest context has the shortest ranges */
	const int enough = (m1b_pages_for(g->max_context) + M1K_RANGE_PAGES - 1) / M1K_RANGE_PAGES;
	const int most = enough < M1K_MAX_SPLITS ? enough : M1K_MAX_SPLITS;
	const int splits = SPLIT_BLOCKS / g->kv_heads;

	return splits < 1 ? 1 : splits > most ? most : splits;
}

void
m1b_cuda_lightning(m1b_backend *b, const m1b_lightning *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const size_t layer = (size_t) c->g.heads * (size_t) c->g.head_dim * (size_t) c->g.head_dim;
	const m1k_lightning k = {
		.segments = c->segments,
		.n_segments = p->batch->n_segments,
		.one_each = c->one_each,
		.tensor_cores = c->tensor_cores,
		.decay = p->decay + c->rank * c->g.heads,
		.qkv = p->qkv,
		.out = p->out,
		.states = c->state_memory + (size_t) p->slot * layer,
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
		.segments = c->segments,
		.n_segments = p->batch->n_segments,
		.segment_of = c->segment_of,
		.n_tokens = p->batch->n_tokens,
		.one_each = c->one_each,
		.q = p->q,
		.k = p->k,
		.v = p->v,
		.out = p->out,
		.rope = c->rope,
		.pages = c->page_memory,
		.page_bytes = c->plan.page_bytes,
		.slot_bytes = (size_t) p->slot * c->plan.slot_bytes,
		.kv_bf16 = c->tensor_cores,
		.table = c->device_table,
		.table_stride = c->table_stride,
		.heads = c->g.heads,
		.kv_heads = c->g.kv_heads,
		.head_dim = c->g.head_dim,
		.rotary_dim = c->g.rotary_dim,
		.splits = m1b_cuda_splits(&c->g),
		.partial = c->partial,
	};

	m1k_softmax_attention(&k, c->stream);
	m1b_cuda_wrote(c, p->q);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "running softmax attention");
}
