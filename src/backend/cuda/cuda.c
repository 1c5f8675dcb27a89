/*
 * cuda.c - the CUDA backend: its life, the plan of device memory, and operations on
 * rows. See backend.h for what each operation means, cuda_internal.h for the files.
 */
#include "backend/cuda/cuda_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Left to CUDA itself: kernels, graphs, the library's own memory. */
#define RESERVE_BYTES ((size_t) 512 << 20)
/* Left to NCCL, whose connections are made when they are first used. */
#define NCCL_BYTES ((size_t) 1 << 30)
/* Alignment and padding of a matrix of weights, generously. */
#define MATRIX_SLACK ((size_t) 64 << 10)

/* ---- operations on rows ---- */

static void
embed(m1b_backend *b, const m1b_embed *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_matrix table = m1b_cuda_kernel_matrix(p->table);

	m1k_embed(&table, c->tokens, p->n, p->out, c->stream);
	m1b_cuda_wrote(c, p->out);
	m1b_cuda_launched(c, "looking up embeddings");
}

static void
norm(m1b_backend *b, const m1b_norm *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1k_norm k = {
		.residual = p->residual,
		.branch = p->branch,
		.alpha = p->alpha,
		.beta = p->beta,
		/* with no branch, the sum is the residual, and needs no copy onto itself */
		.keep_sum = p->branch == NULL && p->keep_sum == p->residual ? NULL : p->keep_sum,
		.weight = p->weight,
		.eps = p->eps,
		.n = p->n,
		.width = p->width,
		.out = p->out,
		.out_bf16 = m1b_cuda_wrote_rounded(c, p->out, p->n),
	};

	m1k_rms_norm(&k, c->stream);
	m1b_cuda_launched(c, "normalising");
}

/* The rows are those of all heads: a rank has its part of them, and needs the others' for the norm. */
static void
gate(m1b_backend *b, const m1b_gate *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const int width = p->width / c->ranks;
	const m1k_gate k = {
		.x = p->x,
		.gate = p->gate,
		.weight = p->weight + c->rank * width,
		.eps = p->eps,
		.n = p->n,
		.width = width,
		.out = p->out,
		.out_bf16 = m1b_cuda_wrote_rounded(c, p->out, p->n),
		.squares = c->ranks > 1 ? c->squares : NULL,
		.whole_width = p->width,
	};

	if (c->ranks > 1)
	{
		m1k_row_squares(p->x, p->n, width, c->squares, c->stream);
		m1b_cuda_sum(c, c->squares, p->n, 1);
	}
	m1k_gated_norm(&k, c->stream);
	m1b_cuda_launched(c, "gating");
}

/* ---- work buffers ---- */

typedef struct buffer
{
	void *to; /* the pointer to set, of whatever type */
	size_t bytes;
} buffer;

#define MAX_BUFFERS 48

typedef struct buffers
{
	buffer list[MAX_BUFFERS];
	int n;
} buffers;

static void
want(buffers *all, void *to, size_t n, size_t size)
{
	all->list[all->n++] = (buffer){to, n * size};
}

static size_t
larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Every work buffer and its size: to be added up for the plan, then to be taken. gemm_space is not kept. */
static buffers
work_buffers(m1b_cuda *c, void **gemm_space)
{
	const m1b_geometry *g = &c->g;
	const size_t tokens = (size_t) g->max_tokens;
	const size_t states = (size_t) g->max_states;
	const size_t pairs = (size_t) g->max_moe_pairs;
	const size_t top_k = larger(1, pairs / tokens);
	const size_t width = (size_t) g->heads * (size_t) g->head_dim;
	const size_t d = (size_t) g->hidden;
	buffers all = {.n = 0};

	c->hidden_rows = c->tensor_cores ? M1K_FEW_ROWS * top_k : pairs;
	want(&all, gemm_space, m1b_cuda_experts_planned(g) ? 1 + M1B_CUDA_LANES : 1, M1B_CUDA_GEMM_SPACE);
	want(&all, &c->tokens, tokens, sizeof *c->tokens);
	want(&all, &c->segment_of, tokens, sizeof *c->segment_of);
	want(&all, &c->segments, states, sizeof *c->segments);
	want(&all, &c->device_table, states * (((size_t) g->max_context + M1K_PAGE_TOKENS - 1) / M1K_PAGE_TOKENS),
		 sizeof *c->device_table);
	want(&all, &c->inv_freq, (size_t) g->rotary_dim / 2 + 1, sizeof *c->inv_freq);
	want(&all, &c->rope, tokens * (size_t) g->rotary_dim + 1, sizeof *c->rope);
	want(&all, &c->partial, states * (size_t) (g->heads * m1b_cuda_splits(g)) * ((size_t) g->head_dim + 2),
		 sizeof *c->partial);
	if (c->tensor_cores)
		want(&all, &c->rounded, tokens * larger(d, width), sizeof *c->rounded);
	if (c->tensor_cores && !g->bf16_experts)
		want(&all, &c->expanded, M1B_CUDA_EXPANDED_ROWS * larger(d, width), sizeof *c->expanded);
	want(&all, &c->head_parts, 3 * states * d, sizeof *c->head_parts);
	want(&all, &c->scores, tokens * (size_t) g->experts, sizeof *c->scores);
	want(&all, &c->choice, pairs, sizeof *c->choice);
	want(&all, &c->weight, pairs, sizeof *c->weight);
	want(&all, &c->group, (size_t) g->experts + 1, sizeof *c->group);
	want(&all, &c->tiles, (size_t) g->experts + 1, sizeof *c->tiles);
	want(&all, &c->place, pairs, sizeof *c->place);
	want(&all, &c->token, pairs, sizeof *c->token);
	want(&all, &c->hidden, c->hidden_rows * (size_t) g->expert_width, sizeof *c->hidden);
	if (c->tensor_cores)
		want(&all, &c->hidden_rounded, pairs * (size_t) g->expert_width, sizeof *c->hidden_rounded);
	want(&all, &c->expert_out, pairs * d, sizeof *c->expert_out);
	if (m1b_cuda_experts_planned(g))
	{
		const size_t lane = m1b_cuda_expert_rows(g) * (size_t) g->expert_width;

		want(&all, &c->gathered, pairs * d, sizeof *c->gathered);
		for (int i = 0; i < M1B_CUDA_LANES; i++)
		{
			want(&all, &c->lanes[i].gate, lane, sizeof *c->lanes[i].gate);
			want(&all, &c->lanes[i].up, lane, sizeof *c->lanes[i].up);
		}
	}
	if (m1b_cuda_samples(c))
	{
		c->mask_words = (g->vocab + 63) / 64;
		want(&all, &c->draws, states, sizeof *c->draws);
		want(&all, &c->masks, states * (size_t) c->mask_words, sizeof *c->masks);
		want(&all, &c->found, states, sizeof *c->found);
		want(&all, &c->bins, states * M1K_SAMPLE_BINS, sizeof *c->bins);
	}
	if (c->ranks > 1)
	{
		want(&all, &c->squares, tokens, sizeof *c->squares);
		want(&all, &c->parts, (size_t) c->ranks * M1K_FEW_ROWS * d, sizeof *c->parts);
		want(&all, &c->slices, states * (size_t) g->vocab, sizeof *c->slices);
	}
	return all;
}

static m1_status
take_buffers(m1b_cuda *c, const buffers *all, m1_error *err)
{
	for (int i = 0; i < all->n; i++)
	{
		void *block = m1b_cuda_take(&c->arena, all->list[i].bytes);

		if (block == NULL)
			return m1_fail(err, M1_E_INTERNAL, "the plan of device memory does not add up");
		memcpy(all->list[i].to, &block, sizeof block);
	}
	return M1_OK;
}

/* ---- the plan ---- */

static m1_status
check_geometry(const m1b_geometry *g, m1_error *err)
{
	if (g->heads / g->kv_heads > M1K_MAX_GROUP)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d attention heads share a key/value head", M1K_MAX_GROUP);
	if (g->head_dim > M1K_MAX_HEAD_DIM || g->head_dim % 8 != 0)
		return m1_fail(err, M1_E_UNSUPPORTED, "a head size of %d is not supported on CUDA", g->head_dim);
	if (g->experts > M1K_MAX_EXPERTS)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d experts are not supported on CUDA", M1K_MAX_EXPERTS);
	if (g->hidden > M1K_MAX_WIDTH || g->heads * g->head_dim > M1K_MAX_WIDTH)
		return m1_fail(err, M1_E_UNSUPPORTED, "rows of more than %d values are not supported on CUDA", M1K_MAX_WIDTH);
	return M1_OK;
}

static void
log_plan(const m1b_cuda *c)
{
	const m1b_cuda_plan *p = &c->plan;
	char line[512];
	char gpu[32] = "";

	if (c->log == NULL)
		return;
	if (c->ranks > 1)
		snprintf(gpu, sizeof gpu, "GPU %d: ", c->device);
	snprintf(line, sizeof line,
			 "%sdevice memory: %.2f GB available; weights %.2f, activations %.2f, work space %.2f, states of "
			 "%d sequences, %d snapshots and %d choices being scored %.2f, %d KV pages of %d tokens %.2f; %.2f left",
			 gpu, (double) p->available * 1e-9, (double) p->weights * 1e-9, (double) p->activations * 1e-9,
			 (double) p->work * 1e-9, c->g.max_states, p->snapshots, p->own_places, (double) p->states * 1e-9,
			 p->n_pages, M1K_PAGE_TOKENS, (double) p->pages * 1e-9,
			 ((double) p->available - (double) (p->weights + p->activations + p->work + p->states + p->pages)) * 1e-9);
	c->log(c->log_context, line);
}

static m1_status
make_plan(m1b_cuda *c, const buffers *work, m1_error *err)
{
	const size_t reserve = RESERVE_BYTES + (c->ranks > 1 ? NCCL_BYTES : 0);
	size_t free_bytes, total;
	cudaError_t error = cudaMemGetInfo(&free_bytes, &total);

	if (error != cudaSuccess)
		return m1b_cuda_error(error, "asking for free memory", err);
	c->plan.available = free_bytes > reserve ? free_bytes - reserve : 0;
	c->plan.weights = c->g.weight_bytes + (size_t) c->g.weight_matrices * MATRIX_SLACK;
	c->plan.activations = c->g.scratch_bytes;
	for (int i = 0; i < work->n; i++)
		c->plan.work += m1b_cuda_round(work->list[i].bytes);
	return m1b_cuda_states_plan(&c->g, c->tensor_cores, &c->plan, err);
}

/* ---- life ---- */

static m1_status
prepare_kernels(m1_error *err)
{
	cudaError_t error = m1k_product_prepare();

	if (error == cudaSuccess)
		error = m1k_lightning_prepare();
	if (error == cudaSuccess)
		error = m1k_attention_prepare();
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "preparing kernels", err);
}

/* As the CPU backend computes them: the angles must be the same. */
static m1_status
upload_frequencies(m1b_cuda *c, m1_error *err)
{
	const int half = c->g.rotary_dim / 2;
	float *inv_freq = calloc((size_t) half + 1, sizeof *inv_freq);

	if (inv_freq == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	for (int j = 0; j < half; j++)
		inv_freq[j] = 1.0f / powf(c->g.rope_theta, 2.0f * (float) j / (float) c->g.rotary_dim);
	m1b_cuda_upload(c, c->inv_freq, inv_freq, ((size_t) half + 1) * sizeof *inv_freq, "uploading constants");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "uploading constants");
	free(inv_freq);
	return m1b_cuda_status(c, err);
}

m1_status
m1b_cuda_plan_memory(m1b_cuda *c, const m1b_geometry *g, m1_error *err)
{
	void *gemm_space;
	buffers work;
	m1_status status;

	if ((status = check_geometry(g, err)) != M1_OK)
		return status;
	c->g = *g;
	c->tensor_cores = !g->f32_weights;
	work = work_buffers(c, &gemm_space);
	return make_plan(c, &work, err);
}

m1_status
m1b_cuda_allocate(m1b_cuda *c, m1_pool *loading, m1_error *err)
{
	const m1b_geometry *g = &c->g;
	const m1b_cuda_plan *plan = &c->plan;
	void *gemm_space;
	const buffers work = work_buffers(c, &gemm_space);
	m1_status status;

	log_plan(c);
	if ((status = m1b_cuda_arena_create(&c->arena, plan->weights + plan->activations + plan->work, err)) != M1_OK ||
		(status = take_buffers(c, &work, err)) != M1_OK || (status = m1b_cuda_states_create(c, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&c->host_tokens, (size_t) g->max_tokens * sizeof *c->host_tokens, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&c->host_segment_of, (size_t) g->max_tokens * sizeof *c->host_segment_of, err)) !=
			M1_OK ||
		(status = m1b_cuda_pinned(&c->host_segments, (size_t) g->max_states * sizeof *c->host_segments, err)) !=
			M1_OK ||
		(status = m1b_cuda_experts_create(c, err)) != M1_OK || (status = m1b_cuda_sample_create(c, err)) != M1_OK ||
		(status = prepare_kernels(err)) != M1_OK || (status = upload_frequencies(c, err)) != M1_OK ||
		(status = m1b_cuda_gemm_create(gemm_space, &c->gemm, err)) != M1_OK)
		return status;
	return m1b_cuda_loader_create(c, loading, err);
}

static m1_status
configure(m1b_backend *b, const m1b_geometry *g, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1_status status = m1b_cuda_plan_memory(c, g, err);

	return status == M1_OK ? m1b_cuda_allocate(c, NULL, err) : status;
}

static const char *
describe(const m1b_backend *b)
{
	return ((const m1b_cuda *) b)->description;
}

void
m1b_cuda_close(m1b_backend *b)
{
	m1b_cuda *c = m1b_cuda_of(b);

	if (c->stream != NULL)
		cudaStreamSynchronize(c->stream);
	m1b_cuda_loader_finish(c);
	m1b_cuda_recordings_free(c);
	m1b_cuda_experts_free(c);
	m1b_cuda_gemm_free(c->gemm);
	m1b_cuda_states_free(c);
	cudaFreeHost(c->host_tokens);
	cudaFreeHost(c->host_segment_of);
	cudaFreeHost(c->host_segments);
	m1b_cuda_sample_free(c);
	cudaFree(c->arena.base);
	if (c->uploaded != NULL)
		cudaEventDestroy(c->uploaded);
	if (c->stream != NULL)
		cudaStreamDestroy(c->stream);
	free(c);
}

static const m1b_ops cuda_ops = {
	.close = m1b_cuda_close,
	.describe = describe,
	.configure = configure,
	.matrix = m1b_cuda_matrix,
	.scratch = m1b_cuda_scratch,
	.state_acquire = m1b_cuda_state_acquire,
	.state_acquire_from = m1b_cuda_state_acquire_from,
	.state_trim = m1b_cuda_state_trim,
	.state_release = m1b_cuda_state_release,
	.snapshot_take = m1b_cuda_snapshot_take,
	.snapshot_cost = m1b_cuda_snapshot_cost,
	.snapshot_release = m1b_cuda_snapshot_release,
	.memory = m1b_cuda_memory,
	.begin = m1b_cuda_begin,
	.embed = embed,
	.norm = norm,
	.linear = m1b_cuda_linear,
	.lightning = m1b_cuda_lightning,
	.gate = gate,
	.attention = m1b_cuda_attention,
	.moe = m1b_cuda_moe,
	.end = m1b_cuda_end,
	.read = m1b_cuda_read,
	.sample = m1b_cuda_sample,
};

m1_status
m1b_cuda_open_rank(const m1b_cuda_options *options, int rank, m1b_cuda **out, m1_error *err)
{
	struct cudaDeviceProp properties;
	cudaError_t error;
	m1b_cuda *c;

	*out = NULL;
	if ((error = cudaSetDevice(rank)) != cudaSuccess ||
		(error = cudaGetDeviceProperties(&properties, rank)) != cudaSuccess)
		return m1b_cuda_error(error, "opening the device", err);
	if (properties.major < 8)
	{
		m1_fail(err, M1_E_DEVICE, "the GPU is too old");
		m1_error_detail(err, "%.100s has compute capability %d.%d; 8.0 is needed.", properties.name, properties.major,
						properties.minor);
		m1_error_hint(err, "Set minimax_m1.device to \"cpu\".");
		return M1_E_DEVICE;
	}
	if ((c = calloc(1, sizeof *c)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	c->base.ops = &cuda_ops;
	c->device = rank;
	c->rank = rank;
	c->ranks = options->gpus > 1 ? options->gpus : 1;
	c->log = options->log;
	c->log_context = options->log_context;
	snprintf(c->gpu_name, sizeof c->gpu_name, "%.80s", properties.name);
	c->gpu_gb = (double) properties.totalGlobalMem * 1e-9;
	snprintf(c->description, sizeof c->description, "cuda (%s, %.0f GB)", c->gpu_name, c->gpu_gb);
	if ((error = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking)) != cudaSuccess ||
		(error = cudaEventCreateWithFlags(&c->uploaded, cudaEventDisableTiming)) != cudaSuccess ||
		(error = cudaEventRecord(c->uploaded, c->stream)) != cudaSuccess)
	{
		m1b_cuda_close(&c->base);
		return m1b_cuda_error(error, "opening the device", err);
	}
	*out = c;
	return M1_OK;
}
