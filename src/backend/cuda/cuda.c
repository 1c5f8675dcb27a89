/*
 * cuda.c - the CUDA backend: its life, the plan of device memory, and operations on
 * rows. See backend.h for what each operation means.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>

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

	m1k_embed(&table, c->step.tokens, p->n, p->out, c->stream);
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
		.squares = c->ranks > 1 ? c->peers.squares : NULL,
		.whole_width = p->width,
	};

	if (c->ranks > 1)
	{
		m1k_row_squares(p->x, p->n, width, c->peers.squares, c->stream);
		m1b_cuda_sum(c, c->peers.squares, p->n, 1);
	}
	m1k_gated_norm(&k, c->stream);
	m1b_cuda_launched(c, "gating");
}

/* ---- the plan ---- */

/* Every work buffer and its size: to be added up for the plan, then to be taken. */
static m1b_cuda_buffers
work_buffers(m1b_cuda *c)
{
	m1b_cuda_buffers all = {.n = 0};

	m1b_cuda_want(&all, &c->gemm_space, m1b_cuda_experts_planned(&c->g) ? 1 + M1B_CUDA_LANES : 1, M1B_CUDA_GEMM_SPACE);
	m1b_cuda_states_want(c, &all);
	m1b_cuda_step_want(c, &all);
	m1b_cuda_attention_want(c, &all);
	m1b_cuda_rounded_want(c, &all);
	m1b_cuda_products_want(c, &all);
	m1b_cuda_experts_want(c, &all);
	m1b_cuda_sample_want(c, &all);
	m1b_cuda_peers_want(c, &all);
	return all;
}

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
	if (g->max_states > M1K_MAX_BATCH)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d requests at once are not supported on CUDA", M1K_MAX_BATCH);
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
make_plan(m1b_cuda *c, m1_error *err)
{
	const m1b_cuda_buffers work = work_buffers(c);
	const size_t reserve = RESERVE_BYTES + (c->ranks > 1 ? NCCL_BYTES : 0);
	size_t free_bytes, total;
	cudaError_t error = cudaMemGetInfo(&free_bytes, &total);

	if (error != cudaSuccess)
		return m1b_cuda_error(error, "asking for free memory", err);
	c->plan.available = free_bytes > reserve ? free_bytes - reserve : 0;
	c->plan.weights = c->g.weight_bytes + (size_t) c->g.weight_matrices * MATRIX_SLACK;
	c->plan.activations = c->g.scratch_bytes;
	c->plan.work = m1b_cuda_buffers_bytes(&work);
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
	if (error == cudaSuccess)
		error = m1k_learn_prepare();
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "preparing kernels", err);
}

m1_status
m1b_cuda_plan_memory(m1b_cuda *c, const m1b_geometry *g, m1_error *err)
{
	const m1_status status = check_geometry(g, err);

	if (status != M1_OK)
		return status;
	c->g = *g;
	c->tensor_cores = !g->f32_weights;
	return make_plan(c, err);
}

m1_status
m1b_cuda_allocate(m1b_cuda *c, m1_pool *loading, m1_error *err)
{
	const m1b_cuda_plan *plan = &c->plan;
	const m1b_cuda_buffers work = work_buffers(c);
	m1_status status;

	log_plan(c);
	if ((status = m1b_cuda_arena_create(&c->arena, plan->weights + plan->activations + plan->work, err)) != M1_OK ||
		(status = m1b_cuda_take_buffers(&c->arena, &work, err)) != M1_OK ||
		(status = m1b_cuda_states_create(c, err)) != M1_OK || (status = m1b_cuda_step_create(c, err)) != M1_OK ||
		(status = m1b_cuda_experts_create(c, err)) != M1_OK || (status = m1b_cuda_sample_create(c, err)) != M1_OK ||
		(status = prepare_kernels(err)) != M1_OK || (status = m1b_cuda_attention_create(c, err)) != M1_OK ||
		(status = m1b_cuda_gemm_create(c->gemm_space, &c->gemm, err)) != M1_OK)
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
	m1b_cuda_step_free(c);
	m1b_cuda_sample_free(c);
	m1b_cuda_learn_free(c);
	cudaFree(c->arena.base);
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
	.learning = &m1b_cuda_learning,
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
		m1_error_hint(err, "Set {device} to \"cpu\".");
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
	if ((error = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking)) != cudaSuccess)
	{
		m1b_cuda_close(&c->base);
		return m1b_cuda_error(error, "opening the device", err);
	}
	*out = c;
	return M1_OK;
}
