/*
 * cuda_group.c - several GPUs as one backend: its life, its matrices, and sequences'
 * memory. What is not a part of a step is done by the caller's thread, one rank after the
 * other.
 *
 * The ranks count pages, states and snapshots by the same rules and in the same order, so
 * what one has room for, all have.
 */
#include "backend/cuda/cuda_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- dividing a model ---- */

/* 0, or the first of the sizes that n GPUs cannot divide; *name is what config.json calls it. */
static int
indivisible(const m1b_geometry *g, int n, const char **name)
{
	const struct
	{
		const char *name;
		int size;
	} divided[] = {{"num_attention_heads", g->heads},
				   {"num_key_value_heads", g->kv_heads},
				   {"intermediate_size", g->expert_width},
				   {"vocab_size", g->vocab}};

	for (size_t i = 0; i < sizeof divided / sizeof *divided; i++)
		if (divided[i].size % n != 0)
		{
			*name = divided[i].name;
			return divided[i].size;
		}
	return 0;
}

static m1_status
check_division(const m1b_geometry *g, int n, m1_error *err)
{
	const char *name;
	const int size = indivisible(g, n, &name);
	int fewer = n - 1;

	if (size == 0)
		return M1_OK;
	while (indivisible(g, fewer, &name) != 0)
		fewer--;
	indivisible(g, n, &name);
	m1_fail(err, M1_E_UNSUPPORTED, "the model cannot be divided among %d GPUs", n);
	m1_error_detail(err, "Its %s is %d, no multiple of %d.", name, size, n);
	m1_error_hint(err, "Set {gpus} to %d, the most below that divides it.", fewer);
	return M1_E_UNSUPPORTED;
}

/* What one of n GPUs has of the model, and of the budgets. */
static m1b_geometry
part_of(const m1b_geometry *g, int n)
{
	const size_t parts = (size_t) n;
	m1b_geometry part = *g;

	part.heads /= n;
	part.kv_heads /= n;
	part.expert_width /= n;
	part.weight_bytes = g->whole_bytes + (g->weight_bytes - g->whole_bytes + parts - 1) / parts;
	part.kv_bytes = (g->kv_bytes + parts - 1) / parts;
	part.snapshot_bytes /= parts;
	return part;
}

/* ---- life ---- */

/* Plans for every rank before anything is allocated on one; they all get what the tightest has room for. */
static m1_status
plan_memory(m1b_cuda_group *g, const m1b_geometry *part, m1_error *err)
{
	int pages = INT32_MAX;
	int sequence_pages = INT32_MAX;
	int own_places = INT32_MAX;

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);
		const m1_status status = m1b_cuda_plan_memory(c, part, err);

		if (status != M1_OK)
			return m1b_cuda_group_name_rank(c, err), status;
		pages = c->plan.n_pages < pages ? c->plan.n_pages : pages;
		sequence_pages = c->plan.sequence_pages < sequence_pages ? c->plan.sequence_pages : sequence_pages;
		own_places = c->plan.own_places < own_places ? c->plan.own_places : own_places;
	}
	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda_plan *plan = &g->ranks[r]->plan;

		plan->n_pages = pages;
		plan->sequence_pages = sequence_pages;
		plan->pages = (size_t) pages * plan->page_bytes;
		plan->states -= (size_t) (plan->own_places - own_places) * plan->state_bytes;
		plan->own_places = own_places;
	}
	return M1_OK;
}

static m1_status
group_configure(m1b_backend *b, const m1b_geometry *geometry, m1_error *err)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	const m1b_geometry part = part_of(geometry, g->n);
	m1_status status;

	/* NCCL's own memory is gone before the rest is planned */
	if ((status = check_division(geometry, g->n, err)) != M1_OK ||
		(status = m1b_cuda_comms_create(g->ranks, g->n, err)) != M1_OK ||
		(status = plan_memory(g, &part, err)) != M1_OK || (status = m1_pool_create(0, &g->loading, err)) != M1_OK)
		return status;
	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		if ((status = m1b_cuda_allocate(c, g->loading, err)) != M1_OK)
			return m1b_cuda_group_name_rank(c, err), status;
		if ((g->segments[r] = calloc((size_t) geometry->max_states, sizeof *g->segments[r])) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	}
	return M1_OK;
}

static const char *
group_describe(const m1b_backend *b)
{
	return ((const m1b_cuda_group *) b)->description;
}

static void
group_close(m1b_backend *b)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	if (g->issuing != NULL)
		m1b_cuda_group_disconnect(g);
	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda_close(&m1b_cuda_group_use(g, r)->base);
		free(g->segments[r]);
	}
	m1_pool_free(g->loading);
	m1_pool_free(g->issuing);
	free(g);
}

/* ---- matrices and arrays ---- */

static m1_status
group_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	for (int r = 0; r < g->n; r++)
	{
		m1b_matrix part;
		const m1_status status =
			m1b_cuda_matrix(&m1b_cuda_group_use(g, r)->base, p, r == 0 ? out : &part, borrowed, err);

		if (status != M1_OK)
			return m1b_cuda_group_name_rank(g->ranks[r], err), status;
	}
	return M1_OK;
}

static float *
group_scratch(m1b_backend *b, size_t n, const float *host)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	float *first = NULL;

	for (int r = 0; r < g->n; r++)
	{
		float *array = m1b_cuda_scratch(&m1b_cuda_group_use(g, r)->base, n, host);

		if (array == NULL)
			return NULL;
		first = r == 0 ? array : first;
	}
	return first;
}

/* ---- sequences' memory ---- */

static m1b_snapshot *
snapshot_at(const m1b_cuda_group *g, const m1b_cuda *c, const m1b_snapshot *s)
{
	return &c->pool.snapshots[s - g->ranks[0]->pool.snapshots];
}

static m1b_state *
group_state_acquire(m1b_backend *b, int n_tokens)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	m1b_state *first = m1b_cuda_state_acquire(&m1b_cuda_group_use(g, 0)->base, n_tokens);

	for (int r = 1; r < g->n && first != NULL; r++)
		m1b_cuda_state_acquire(&m1b_cuda_group_use(g, r)->base, n_tokens);
	return first;
}

static m1b_state *
group_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	m1b_state *first = m1b_cuda_state_acquire_from(&m1b_cuda_group_use(g, 0)->base, n_tokens, from);

	for (int r = 1; r < g->n && first != NULL; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		m1b_cuda_state_acquire_from(&c->base, n_tokens, snapshot_at(g, c, from));
	}
	return first;
}

static void
group_state_trim(m1b_backend *b, m1b_state *state, int n_tokens)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		m1b_cuda_state_trim(&c->base, m1b_cuda_group_state(g, c, state), n_tokens);
	}
}

static void
group_state_release(m1b_backend *b, m1b_state *state)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		m1b_cuda_state_release(&c->base, m1b_cuda_group_state(g, c, state));
	}
}

static void
group_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		m1b_cuda_snapshot_release(&c->base, snapshot_at(g, c, snapshot));
	}
}

static m1b_snapshot *
group_snapshot_take(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	m1b_snapshot *first = NULL;

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);
		m1b_snapshot *taken = m1b_cuda_snapshot_take(&c->base, m1b_cuda_group_state(g, c, state), n_tokens, account);

		if (r == 0)
			first = taken;
		if (taken != NULL)
			continue;
		/* there is room on all or on none, but the host may be out of memory */
		while (--r >= 0)
			m1b_cuda_snapshot_release(&m1b_cuda_group_use(g, r)->base, snapshot_at(g, g->ranks[r], first));
		return NULL;
	}
	return first;
}

static size_t
group_snapshot_cost(const m1b_backend *b, const m1b_state *state, int n_tokens)
{
	const m1b_cuda_group *g = (const m1b_cuda_group *) b;

	return (size_t) g->n * m1b_cuda_snapshot_cost(&g->ranks[0]->base, state, n_tokens);
}

static m1b_memory
group_memory(const m1b_backend *b)
{
	const m1b_cuda_group *g = (const m1b_cuda_group *) b;
	m1b_memory memory = m1b_cuda_memory(&g->ranks[0]->base);

	memory.page_bytes *= (size_t) g->n;
	memory.snapshot_bytes *= (size_t) g->n;
	return memory;
}

static const m1b_ops group_ops = {
	.close = group_close,
	.describe = group_describe,
	.configure = group_configure,
	.matrix = group_matrix,
	.scratch = group_scratch,
	.state_acquire = group_state_acquire,
	.state_acquire_from = group_state_acquire_from,
	.state_trim = group_state_trim,
	.state_release = group_state_release,
	.snapshot_take = group_snapshot_take,
	.snapshot_cost = group_snapshot_cost,
	.snapshot_release = group_snapshot_release,
	.memory = group_memory,
	.begin = m1b_cuda_group_begin,
	.embed = m1b_cuda_group_embed,
	.norm = m1b_cuda_group_norm,
	.linear = m1b_cuda_group_linear,
	.lightning = m1b_cuda_group_lightning,
	.gate = m1b_cuda_group_gate,
	.attention = m1b_cuda_group_attention,
	.moe = m1b_cuda_group_moe,
	.end = m1b_cuda_group_end,
	.read = m1b_cuda_group_read,
	.sample = m1b_cuda_group_sample,
};

/* ---- opening ---- */

/* What every rank computes by itself must be the same bits: only GPUs of one kind are sure to do so. */
static m1_status
check_alike(const m1b_cuda_group *g, m1_error *err)
{
	for (int r = 1; r < g->n; r++)
		if (strcmp(g->ranks[r]->description, g->ranks[0]->description) != 0)
		{
			m1_fail(err, M1_E_DEVICE, "the GPUs are not of one kind");
			m1_error_detail(err, "The first is %s, number %d is %s.", g->ranks[0]->description, r + 1,
							g->ranks[r]->description);
			m1_error_hint(err, "Choose GPUs of one kind by CUDA_VISIBLE_DEVICES, or lower {gpus}.");
			return M1_E_DEVICE;
		}
	return M1_OK;
}

m1_status
m1b_cuda_group_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err)
{
	m1b_cuda_group *g;
	m1_status status = M1_OK;

	if (options->gpus > M1B_CUDA_MAX_GPUS)
		return m1_fail(err, M1_E_UNSUPPORTED, "more than %d GPUs are not supported", M1B_CUDA_MAX_GPUS);
	if ((g = calloc(1, sizeof *g)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the CUDA backend");
	g->base.ops = &group_ops;
	while (g->n < options->gpus && status == M1_OK)
		if ((status = m1b_cuda_open_rank(options, g->n, &g->ranks[g->n], err)) == M1_OK)
			g->n++;
	if (status != M1_OK || (status = check_alike(g, err)) != M1_OK ||
		(status = m1_pool_create(g->n, &g->issuing, err)) != M1_OK)
	{
		group_close(&g->base);
		return status;
	}
	snprintf(g->description, sizeof g->description, "cuda (%d x %s, %.0f GB)", g->n, g->ranks[0]->gpu_name,
			 g->n * g->ranks[0]->gpu_gb);
	*out = &g->base;
	return M1_OK;
}
