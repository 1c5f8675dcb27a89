/* state.c - see state.h. */
#include "model/state.h"

m1b_state *
m1_state_acquire(const m1_model *m, int n_tokens, const m1b_snapshot *from)
{
	const m1b_ops *ops = m->backend->ops;

	return from == NULL ? ops->state_acquire(m->backend, n_tokens)
						: ops->state_acquire_from(m->backend, n_tokens, from);
}

void
m1_state_trim(const m1_model *m, m1b_state *state, int n_tokens)
{
	m->backend->ops->state_trim(m->backend, state, n_tokens);
}

void
m1_state_release(const m1_model *m, m1b_state *state)
{
	if (state != NULL)
		m->backend->ops->state_release(m->backend, state);
}

m1b_snapshot *
m1_snapshot_take(const m1_model *m, const m1b_state *state, int n_tokens, m1b_account account)
{
	return m->backend->ops->snapshot_take(m->backend, state, n_tokens, account);
}

size_t
m1_snapshot_cost(const m1_model *m, const m1b_state *state, int n_tokens)
{
	return m->backend->ops->snapshot_cost(m->backend, state, n_tokens);
}

void
m1_snapshot_release(const m1_model *m, m1b_snapshot *snapshot)
{
	if (snapshot != NULL)
		m->backend->ops->snapshot_release(m->backend, snapshot);
}

m1b_memory
m1_state_memory(const m1_model *m)
{
	return m->backend->ops->memory(m->backend);
}
