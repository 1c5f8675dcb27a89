/*
 * cuda_group.h - several GPUs as one backend: what its files share.
 *
 *   cuda_group.c       its life, matrices, and sequences' memory
 *   cuda_group_steps.c operations and steps
 *
 * A pointer that the group hands out is rank 0's. Another rank has the same thing at the
 * same offset of its arena, or at the same index among its states and snapshots.
 */
#ifndef M1_BACKEND_CUDA_CUDA_GROUP_H
#define M1_BACKEND_CUDA_CUDA_GROUP_H

#include "backend/cuda/cuda_internal.h"

#define M1B_CUDA_PROGRAM 64

typedef struct m1b_cuda_group m1b_cuda_group;
typedef struct m1b_cuda_command m1b_cuda_command;

/* Does one operation on one rank, whose device is the thread's current one. */
typedef void (*m1b_cuda_command_fn)(m1b_cuda_group *g, m1b_cuda *c, const m1b_cuda_command *command);

struct m1b_cuda_command
{
	m1b_cuda_command_fn run;
	union
	{
		m1b_embed embed;
		m1b_norm norm;
		m1b_linear linear;
		m1b_lightning lightning;
		m1b_gate gate;
		m1b_attention attention;
		m1b_moe moe;
	};
};

struct m1b_cuda_group
{
	m1b_backend base; /* first, so that the two pointers convert */
	m1b_cuda *ranks[M1B_CUDA_MAX_GPUS];
	int n;
	char description[128];
	m1_pool *issuing; /* a thread for each rank */
	m1_pool *loading; /* until the first step */
	m1b_cuda_command program[M1B_CUDA_PROGRAM];
	int n_commands;
	bool failed; /* and the communicators aborted */

	/* the batch as each rank knows it */
	m1b_batch batches[M1B_CUDA_MAX_GPUS];
	m1b_segment *segments[M1B_CUDA_MAX_GPUS]; /* [max_states] */
	bool recorded;
	bool refused[M1B_CUDA_MAX_GPUS]; /* whether a rank could not record it */
};

static inline m1b_cuda_group *
m1b_cuda_group_of(m1b_backend *b)
{
	return (m1b_cuda_group *) b;
}

/* Where rank c has the state that rank 0 has as s. */
static inline m1b_state *
m1b_cuda_group_state(const m1b_cuda_group *g, const m1b_cuda *c, const m1b_state *s)
{
	return &c->pool.states[s - g->ranks[0]->pool.states];
}

/* cuda_group.c */
m1_status m1b_cuda_group_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err);

/* cuda_group_steps.c */
void m1b_cuda_group_embed(m1b_backend *b, const m1b_embed *p);
void m1b_cuda_group_norm(m1b_backend *b, const m1b_norm *p);
void m1b_cuda_group_linear(m1b_backend *b, const m1b_linear *p);
void m1b_cuda_group_lightning(m1b_backend *b, const m1b_lightning *p);
void m1b_cuda_group_gate(m1b_backend *b, const m1b_gate *p);
void m1b_cuda_group_attention(m1b_backend *b, const m1b_attention *p);
void m1b_cuda_group_moe(m1b_backend *b, const m1b_moe *p);
bool m1b_cuda_group_begin(m1b_backend *b, const m1b_batch *batch);
bool m1b_cuda_group_end(m1b_backend *b);
m1_status m1b_cuda_group_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err);
m1_status m1b_cuda_group_sample(m1b_backend *b, const m1b_sample *p, m1_error *err);
/* The rank, with everything before issued, and its device as this thread's current one. */
m1b_cuda *m1b_cuda_group_use(m1b_cuda_group *g, int rank);
/* Adds to an error's detail whose it is. */
void m1b_cuda_group_name_rank(const m1b_cuda *c, m1_error *err);
/* Waits for all ranks and ends their communicators. */
void m1b_cuda_group_disconnect(m1b_cuda_group *g);

#endif
