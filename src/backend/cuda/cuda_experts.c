/*
 * cuda_experts.c - experts with many tokens each, by cuBLASLt.
 *
 * A long prefill brings every expert enough rows to be bound by arithmetic, and there
 * the library's kernels are faster than ours. It must know how many rows there are, so
 * the groups are copied to the host, the one place in a step where it waits; meanwhile
 * the device gathers the rows by expert. One expert's product is too small to fill the
 * device to its last wave: several streams, the lanes, take experts in turns.
 *
 * What an expert's first two products give is used at once and in pieces of at most
 * PIECE_ROWS rows, so that it need not leave the cache.
 */
#include "backend/cuda/cuda_internal.h"

#include "base/clock.h"

#define ENOUGH_PLACES 128 /* of an expert, on average */
#define PIECE_ROWS 1024

bool
m1b_cuda_experts_planned(const m1b_geometry *g)
{
	return g->bf16_experts && g->experts > 1 && g->max_moe_pairs / g->experts >= ENOUGH_PLACES;
}

/* Rows of a lane's buffers. */
static size_t
piece_rows(const m1b_geometry *g)
{
	return (size_t) (g->max_moe_pairs < PIECE_ROWS ? g->max_moe_pairs : PIECE_ROWS);
}

bool
m1b_cuda_experts_suit(const m1b_cuda *c, const m1b_moe *p)
{
	/* they were planned for bf16: a training makes them floats */
	return c->experts.gathered != NULL && p->w1->type == M1B_BF16 && p->n * p->top_k / p->experts >= ENOUGH_PLACES;
}

/* ---- life ---- */

void
m1b_cuda_experts_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	const size_t lane = piece_rows(g) * (size_t) g->expert_width;
	m1b_cuda_expert_lanes *e = &c->experts;

	if (!m1b_cuda_experts_planned(g))
		return;
	m1b_cuda_want(all, &e->gathered, (size_t) g->max_moe_pairs * (size_t) g->hidden, sizeof *e->gathered);
	for (int i = 0; i < M1B_CUDA_LANES; i++)
	{
		m1b_cuda_want(all, &e->lanes[i].gate, lane, sizeof *e->lanes[i].gate);
		m1b_cuda_want(all, &e->lanes[i].up, lane, sizeof *e->lanes[i].up);
	}
}

m1_status
m1b_cuda_experts_create(m1b_cuda *c, m1_error *err)
{
	m1b_cuda_expert_lanes *e = &c->experts;
	cudaError_t error;
	m1_status status;

	if (e->gathered == NULL)
		return M1_OK;
	if ((status = m1b_cuda_pinned(&e->host_group, ((size_t) c->g.experts + 1) * sizeof *e->host_group, err)) != M1_OK)
		return status;
	if ((error = m1b_cuda_event_create(&e->routed)) == cudaSuccess)
		error = m1b_cuda_event_create(&e->is_gathered);
	for (int i = 0; i < M1B_CUDA_LANES && error == cudaSuccess; i++)
		if ((error = cudaStreamCreateWithFlags(&e->lanes[i].stream, cudaStreamNonBlocking)) == cudaSuccess)
			error = m1b_cuda_event_create(&e->lanes[i].done);
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "preparing for experts", err);
}

void
m1b_cuda_experts_free(m1b_cuda *c)
{
	m1b_cuda_expert_lanes *e = &c->experts;

	for (int i = 0; i < M1B_CUDA_LANES; i++)
	{
		m1b_cuda_event_free(e->lanes[i].done);
		if (e->lanes[i].stream != NULL)
			cudaStreamDestroy(e->lanes[i].stream);
	}
	m1b_cuda_event_free(e->routed);
	m1b_cuda_event_free(e->is_gathered);
	cudaFreeHost(e->host_group);
}

/* ---- products ---- */

static void
product(m1b_cuda *c, int lane, const m1b_matrix *weight, const uint16_t *x, int n, float *out)
{
	const m1b_cuda_multiply p = {.weight = m1b_cuda_kernel_matrix(weight),
								 .x = x,
								 .n = n,
								 .out = out,
								 .out_stride = weight->rows,
								 .space = 1 + lane,
								 .stream = c->experts.lanes[lane].stream};

	m1b_cuda_multiply_many(c, &p);
}

/* n places of one expert, from place `first` on. */
static void
multiply_piece(m1b_cuda *c, const m1b_moe *p, int expert, int lane, size_t first, int n)
{
	const m1b_cuda_lane *l = &c->experts.lanes[lane];
	const size_t d = (size_t) p->w1[expert].cols;
	const size_t width = (size_t) p->w1[expert].rows;
	uint16_t *hidden = c->routed.hidden_rounded + first * width;

	product(c, lane, &p->w1[expert], c->experts.gathered + first * d, n, l->gate);
	product(c, lane, &p->w3[expert], c->experts.gathered + first * d, n, l->up);
	m1k_silu_mul(l->gate, l->up, (size_t) n * width, hidden, l->stream);
	product(c, lane, &p->w2[expert], hidden, n, c->routed.out + first * d);
}

static void
multiply_expert(m1b_cuda *c, const m1b_moe *p, int expert, int lane)
{
	const int first = c->experts.host_group[expert];
	const int n = c->experts.host_group[expert + 1] - first;
	const int rows = (int) piece_rows(&c->g);
	const int pieces = (n + rows - 1) / rows;

	/* of one size, as near as can be: a short rest would cost almost as much as a whole piece */
	for (int i = 0; i < pieces; i++)
	{
		const int from = (int) ((int64_t) n * i / pieces);
		const int to = (int) ((int64_t) n * (i + 1) / pieces);

		multiply_piece(c, p, expert, lane, (size_t) (first + from), to - from);
	}
}

/* Every lane goes on where c->stream was at `event`. */
static void
fork(m1b_cuda *c, cudaEvent_t event)
{
	for (int i = 0; i < M1B_CUDA_LANES; i++)
		m1b_cuda_note(c, cudaStreamWaitEvent(c->experts.lanes[i].stream, event, 0), "starting experts");
}

static void
join(m1b_cuda *c)
{
	for (int i = 0; i < M1B_CUDA_LANES; i++)
	{
		m1b_cuda_note(c, cudaEventRecord(c->experts.lanes[i].done, c->experts.lanes[i].stream), "ending experts");
		m1b_cuda_note(c, cudaStreamWaitEvent(c->stream, c->experts.lanes[i].done, 0), "ending experts");
	}
}

/* Until the host knows the groups. */
static void
wait_for_groups(m1b_cuda *c)
{
	const double begin = m1_now_ms();

	if (c->peers.comm == NULL)
		m1b_cuda_note(c, cudaEventSynchronize(c->experts.routed), "reading the router's choices");
	else
		while (m1b_cuda_keep_waiting(c, cudaEventQuery(c->experts.routed), begin))
			;
}

void
m1b_cuda_experts(m1b_cuda *c, const m1b_moe *p)
{
	const int d = p->w1->cols;
	const size_t bytes = ((size_t) p->experts + 1) * sizeof *c->experts.host_group;

	m1b_cuda_download(c, c->experts.host_group, c->routed.group, bytes, "reading the router's choices");
	m1b_cuda_note(c, cudaEventRecord(c->experts.routed, c->stream), "reading the router's choices");
	m1k_gather(m1b_cuda_rounded(c, p->x, p->n, d), c->routed.token, p->n * p->top_k, d, c->experts.gathered, c->stream);
	m1b_cuda_note(c, cudaEventRecord(c->experts.is_gathered, c->stream), "gathering rows");
	wait_for_groups(c);
	if (m1b_cuda_failed(c))
		return; /* the groups are not there */
	fork(c, c->experts.is_gathered);
	for (int e = 0; e < p->experts; e++)
		multiply_expert(c, p, e, e % M1B_CUDA_LANES);
	join(c);
}
