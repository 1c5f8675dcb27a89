/*
 * cuda_group_steps.c - operations and steps on several GPUs: each is passed on to every
 * rank.
 *
 * Operations are noted as a program first. It is run, by a thread for each rank, when it
 * is full and whenever an answer is needed: so no rank's launches wait for another's, as
 * NCCL asks, and 80 layers on eight GPUs are not issued one GPU after the other.
 *
 * A GPU whose peer has failed waits for it for ever. So nobody waits for a GPU blindly:
 * wait_for asks all of them, and the first failure ends the group.
 */
#include "backend/cuda/cuda_group.h"

#include <stdio.h>

#include "base/clock.h"

/* ---- programs ---- */

/* Runs one command list on one rank; the pool has a thread for each. */
static void
run_rank(void *arg, int piece, int worker)
{
	m1b_cuda_group *g = arg;
	m1b_cuda *c = g->ranks[piece];

	(void) worker;
	m1b_cuda_note(c, cudaSetDevice(c->device), "choosing a GPU");
	for (int i = 0; i < g->n_commands; i++)
		g->program[i].run(g, c, &g->program[i]);
}

static void
flush(m1b_cuda_group *g)
{
	if (g->n_commands > 0 && !g->failed)
		m1_pool_run(g->issuing, g->n, run_rank, g);
	g->n_commands = 0;
}

static m1b_cuda_command *
add(m1b_cuda_group *g, m1b_cuda_command_fn run)
{
	m1b_cuda_command *next;

	if (g->n_commands == M1B_CUDA_PROGRAM)
		flush(g);
	next = &g->program[g->n_commands++];
	next->run = run;
	return next;
}

/* Runs one command now, after those before it. */
static void
run_now(m1b_cuda_group *g, m1b_cuda_command_fn run)
{
	add(g, run);
	flush(g);
}

m1b_cuda *
m1b_cuda_group_use(m1b_cuda_group *g, int rank)
{
	m1b_cuda *c = g->ranks[rank];

	flush(g);
	m1b_cuda_note(c, cudaSetDevice(c->device), "choosing a GPU");
	return c;
}

/* ---- failures ---- */

/* Graphs go first: a communicator waits for the end of those that use it. */
static void
run_abort(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) g;
	(void) command;
	m1b_cuda_recordings_free(c);
	m1b_cuda_comm_free(c, true);
}

static bool
any_failed(const m1b_cuda_group *g)
{
	for (int r = 0; r < g->n; r++)
		if (m1b_cuda_failed(g->ranks[r]))
			return true;
	return false;
}

/* After it nothing waits for a peer, and nothing is issued any more. */
static void
fail(m1b_cuda_group *g)
{
	if (g->failed)
		return;
	g->n_commands = 0;
	run_now(g, run_abort);
	g->failed = true;
}

void
m1b_cuda_group_name_rank(const m1b_cuda *c, m1_error *err)
{
	char detail[400];

	if (err == NULL)
		return;
	snprintf(detail, sizeof detail, "%.399s", err->detail);
	m1_error_detail(err, "GPU %d: %s", c->device, detail);
}

static m1_status
group_status(const m1b_cuda_group *g, m1_error *err)
{
	for (int r = 0; r < g->n; r++)
	{
		const m1_status status = m1b_cuda_status(g->ranks[r], err);

		if (status != M1_OK)
			return m1b_cuda_group_name_rank(g->ranks[r], err), status;
	}
	return M1_OK;
}

static cudaError_t
everything_done(const m1b_cuda *c)
{
	return cudaStreamQuery(c->stream);
}

static cudaError_t
batch_uploaded(const m1b_cuda *c)
{
	return cudaEventQuery(c->step.uploaded);
}

/* Until `ask` says so of every rank. false when one has failed, or NCCL has: then the group has, too. */
static bool
wait_for(m1b_cuda_group *g, cudaError_t (*ask)(const m1b_cuda *c))
{
	const double begin = m1_now_ms();
	bool waiting = true;

	while (waiting && !any_failed(g))
	{
		waiting = false;
		for (int r = 0; r < g->n; r++)
			if (m1b_cuda_keep_waiting(g->ranks[r], ask(g->ranks[r]), begin))
				waiting = true;
	}
	if (any_failed(g))
		fail(g);
	return !g->failed;
}

/* ---- pointers ---- */

/* Where rank c has what rank 0 has at p. */
static void *
at(const m1b_cuda_group *g, const m1b_cuda *c, const void *p)
{
	return p == NULL ? NULL : c->arena.base + ((const char *) p - g->ranks[0]->arena.base);
}

static m1b_matrix
matrix_at(const m1b_cuda_group *g, const m1b_cuda *c, const m1b_matrix *m)
{
	m1b_matrix here = *m;

	here.data = at(g, c, m->data);
	return here;
}

/* ---- operations, as a rank runs them ---- */

static void
run_embed(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	const m1b_matrix table = matrix_at(g, c, command->embed.table);
	m1b_embed p = command->embed;

	p.table = &table;
	p.out = at(g, c, p.out);
	c->base.ops->embed(&c->base, &p);
}

static void
run_norm(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_norm p = command->norm;

	p.residual = at(g, c, p.residual);
	p.branch = at(g, c, p.branch);
	p.keep_sum = at(g, c, p.keep_sum);
	p.weight = at(g, c, p.weight);
	p.out = at(g, c, p.out);
	c->base.ops->norm(&c->base, &p);
}

static void
run_linear(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_matrix weights[M1B_MAX_PRODUCTS];
	m1b_linear p = command->linear;

	p.x = at(g, c, p.x);
	for (int i = 0; i < p.n_products; i++)
	{
		weights[i] = matrix_at(g, c, p.products[i].weight);
		p.products[i].weight = &weights[i];
		p.products[i].out = at(g, c, p.products[i].out);
	}
	c->base.ops->linear(&c->base, &p);
}

static void
run_lightning(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_lightning p = command->lightning;

	p.batch = &g->batches[c->rank];
	p.decay = at(g, c, p.decay);
	p.qkv = at(g, c, p.qkv);
	p.out = at(g, c, p.out);
	c->base.ops->lightning(&c->base, &p);
}

static void
run_gate(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_gate p = command->gate;

	p.x = at(g, c, p.x);
	p.gate = at(g, c, p.gate);
	p.weight = at(g, c, p.weight);
	p.out = at(g, c, p.out);
	c->base.ops->gate(&c->base, &p);
}

static void
run_attention(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_attention p = command->attention;

	p.batch = &g->batches[c->rank];
	p.q = at(g, c, p.q);
	p.k = at(g, c, p.k);
	p.v = at(g, c, p.v);
	p.out = at(g, c, p.out);
	c->base.ops->attention(&c->base, &p);
}

static void
run_moe(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	m1b_matrix w1[M1K_MAX_EXPERTS], w2[M1K_MAX_EXPERTS], w3[M1K_MAX_EXPERTS];
	const m1b_matrix router = matrix_at(g, c, command->moe.router);
	m1b_moe p = command->moe;

	for (int e = 0; e < p.experts; e++)
	{
		w1[e] = matrix_at(g, c, &p.w1[e]);
		w2[e] = matrix_at(g, c, &p.w2[e]);
		w3[e] = matrix_at(g, c, &p.w3[e]);
	}
	p.router = &router;
	p.w1 = w1;
	p.w2 = w2;
	p.w3 = w3;
	p.x = at(g, c, p.x);
	p.out = at(g, c, p.out);
	c->base.ops->moe(&c->base, &p);
}

/* ---- operations, as they are noted ---- */

void
m1b_cuda_group_embed(m1b_backend *b, const m1b_embed *p)
{
	add(m1b_cuda_group_of(b), run_embed)->embed = *p;
}

void
m1b_cuda_group_norm(m1b_backend *b, const m1b_norm *p)
{
	add(m1b_cuda_group_of(b), run_norm)->norm = *p;
}

void
m1b_cuda_group_linear(m1b_backend *b, const m1b_linear *p)
{
	add(m1b_cuda_group_of(b), run_linear)->linear = *p;
}

void
m1b_cuda_group_lightning(m1b_backend *b, const m1b_lightning *p)
{
	add(m1b_cuda_group_of(b), run_lightning)->lightning = *p;
}

void
m1b_cuda_group_gate(m1b_backend *b, const m1b_gate *p)
{
	add(m1b_cuda_group_of(b), run_gate)->gate = *p;
}

void
m1b_cuda_group_attention(m1b_backend *b, const m1b_attention *p)
{
	add(m1b_cuda_group_of(b), run_attention)->attention = *p;
}

void
m1b_cuda_group_moe(m1b_backend *b, const m1b_moe *p)
{
	add(m1b_cuda_group_of(b), run_moe)->moe = *p;
}

/* ---- steps ---- */

static void
run_begin(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	const bool recorded = c->base.ops->begin(&c->base, &g->batches[c->rank]);

	(void) command;
	/* all ranks have seen the same batches */
	if (c->rank == 0)
		g->recorded = recorded;
}

static void
divide_batch(m1b_cuda_group *g, const m1b_batch *batch)
{
	for (int r = 0; r < g->n; r++)
	{
		g->batches[r] = *batch;
		g->batches[r].segments = g->segments[r];
		for (int s = 0; s < batch->n_segments; s++)
		{
			g->segments[r][s] = batch->segments[s];
			g->segments[r][s].state = m1b_cuda_group_state(g, g->ranks[r], batch->segments[s].state);
		}
	}
}

bool
m1b_cuda_group_begin(m1b_backend *b, const m1b_batch *batch)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);

	flush(g);
	if (!wait_for(g, batch_uploaded))
		return true;
	divide_batch(g, batch);
	run_now(g, run_begin);
	m1_pool_free(g->loading);
	g->loading = NULL;
	/* one that could not begin would keep the others waiting */
	if (any_failed(g))
		fail(g);
	return g->failed || g->recorded;
}

static void
run_end_recording(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) command;
	g->refused[c->rank] = !m1b_cuda_end_recording(c);
}

/* What one rank cannot record, no rank does: they would not meet. */
static void
run_start_again(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) g;
	(void) command;
	m1b_cuda_drop_recording(c);
	m1b_cuda_start_layers(c);
}

static void
run_launch_recorded(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) g;
	(void) command;
	m1b_cuda_launch_recorded(c);
}

/* All graphs are made before the first one runs: making one may wait for a device, which may wait for the others. */
bool
m1b_cuda_group_end(m1b_backend *b)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	bool refused = false;

	run_now(g, run_end_recording);
	for (int r = 0; r < g->n; r++)
		refused = refused || (g->refused[r] && !g->failed);
	if (refused)
		run_now(g, run_start_again);
	else if (g->ranks[0]->graphs.open != NULL)
		run_now(g, run_launch_recorded);
	return !refused;
}

static void
run_finish_loading(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) g;
	(void) command;
	m1b_cuda_loader_finish(c);
}

/*
 * The first rank, once all are done: it has what the others have, and who asks it does not wait for them any more. NULL
 * when one has failed.
 */
static m1b_backend *
first_when_done(m1b_cuda_group *g)
{
	run_now(g, run_finish_loading);
	return wait_for(g, everything_done) ? &m1b_cuda_group_use(g, 0)->base : NULL;
}

/* What one rank alone has done is over: if it failed, so has the group. */
static m1_status
settle(m1b_cuda_group *g, m1_error *err)
{
	if (any_failed(g))
		fail(g);
	return group_status(g, err);
}

m1_status
m1b_cuda_group_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	m1b_backend *first = first_when_done(g);

	if (first != NULL)
		m1b_cuda_read(first, device, n, host, err);
	return settle(g, err);
}

m1_status
m1b_cuda_group_sample(m1b_backend *b, const m1b_sample *p, m1_error *err)
{
	m1b_cuda_group *g = m1b_cuda_group_of(b);
	m1b_backend *first = first_when_done(g);

	if (first != NULL && m1b_cuda_sample(first, p, err) == M1_E_UNSUPPORTED)
		return M1_E_UNSUPPORTED;
	return settle(g, err);
}

static void
run_disconnect(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command)
{
	(void) g;
	(void) command;
	m1b_cuda_recordings_free(c);
	m1b_cuda_comm_free(c, false);
}

void
m1b_cuda_group_disconnect(m1b_cuda_group *g)
{
	flush(g);
	if (wait_for(g, everything_done))
		run_now(g, run_disconnect);
}
