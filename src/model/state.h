/*
 * state.h - what a sequence holds on the model's device between two steps: states, and snapshots of them that other
 * sequences start from. backend.h says what they are; here they are asked for by model.
 *
 * Called by the thread that runs the model.
 */
#ifndef M1_MODEL_STATE_H
#define M1_MODEL_STATE_H

#include <stddef.h>

#include "backend/backend.h"
#include "model/model.h"

/*
 * For a sequence of at most n_tokens: zeroed, or with what the snapshot holds (from NULL: none). NULL when there is no
 * state or not enough memory: the caller waits.
 */
m1b_state *m1_state_acquire(const m1_model *m, int n_tokens, const m1b_snapshot *from);
/* The sequence will not have more than n_tokens after all. */
void m1_state_trim(const m1_model *m, m1b_state *state, int n_tokens);
/* Wiped, and free for others. state may be NULL. */
void m1_state_release(const m1_model *m, m1b_state *state);

/* Of a state that has been fed n_tokens. NULL when there is no room. */
m1b_snapshot *m1_snapshot_take(const m1_model *m, const m1b_state *state, int n_tokens, m1b_account account);
/* Bytes that an M1B_SHARED one would add now; with state NULL, at most. */
size_t m1_snapshot_cost(const m1_model *m, const m1b_state *state, int n_tokens);
/* snapshot may be NULL. */
void m1_snapshot_release(const m1_model *m, m1b_snapshot *snapshot);

/* How much memory there is for all of them. */
m1b_memory m1_state_memory(const m1_model *m);

#endif
