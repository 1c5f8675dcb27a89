/*
 * cuda_state.h - sequences' memory: lightning states, KV pages, and snapshots of both.
 */
#ifndef M1_BACKEND_CUDA_CUDA_STATE_H
#define M1_BACKEND_CUDA_CUDA_STATE_H

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/pages.h"

typedef struct m1b_cuda m1b_cuda;

struct m1b_state
{
	int index;
	m1b_page_list list; /* its numbers are a row of m1b_cuda_pool.page_numbers */
	int uploaded;		/* pages that the device's table knows */
	bool used;
};

struct m1b_snapshot
{
	int index; /* of its copy of a state, after those of the sequences */
	m1b_account account;
	int *pages; /* NULL = this place is free */
	int n_pages;
	bool partial; /* the last page is not full: it belongs to this snapshot alone */
};

typedef struct m1b_cuda_pool
{
	m1b_state *states;		 /* [max_states] */
	m1b_snapshot *snapshots; /* [plan.snapshots + own_places], the M1B_SHARED ones first */
	m1b_pages pages;
	float *state_memory; /* [max_states + snapshots + own_places][state_bytes] */
	char *page_memory;
	int *page_numbers; /* [max_states, table_stride]: the lists of all states */
	int *host_table;   /* the same as it was sent, pinned */
	int *device_table;
	int table_stride;
} m1b_cuda_pool;

void m1b_cuda_states_want(m1b_cuda *c, m1b_cuda_buffers *all);
/* Divides what the rest of the plan leaves: states for all sequences, room for snapshots, pages from what is left. */
m1_status m1b_cuda_states_plan(const m1b_geometry *g, bool tensor_cores, m1b_cuda_plan *plan, m1_error *err);
m1_status m1b_cuda_states_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_states_free(m1b_cuda *c);

m1b_state *m1b_cuda_state_acquire(m1b_backend *b, int n_tokens);
m1b_state *m1b_cuda_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from);
void m1b_cuda_state_trim(m1b_backend *b, m1b_state *state, int n_tokens);
void m1b_cuda_state_release(m1b_backend *b, m1b_state *state);
m1b_snapshot *m1b_cuda_snapshot_take(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account);
size_t m1b_cuda_snapshot_cost(const m1b_backend *b, const m1b_state *state, int n_tokens);
void m1b_cuda_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot);
m1b_memory m1b_cuda_memory(const m1b_backend *b);

/*
 * Makes sure that pages for positions [0, n_tokens) are there, on the device's table too; once the table that was sent
 * before has gone.
 */
void m1b_cuda_state_extend(m1b_cuda *c, m1b_state *state, int n_tokens);

#endif
