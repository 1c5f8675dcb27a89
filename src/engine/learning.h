/*
 * learning.h - what the engine learns beside serving: trainings of adapters over the weights that are served, and the
 * requests about them, one after the other, in pieces between steps.
 *
 * Belongs to one engine and, but for m1_learning_prepare, its step thread. All trainings share one order: a lesson is
 * learnt to its end before the next one begins.
 */
#ifndef M1_ENGINE_LEARNING_H
#define M1_ENGINE_LEARNING_H

#include "engine/engine.h"
#include "engine/learn_request.h"

typedef struct m1_learning m1_learning;

/* adapter_bytes: that adapters may take which are served; 0 = a quarter of the memory. NULL when memory ran out. */
m1_learning *m1_learning_create(m1_model *model, const m1_engine_events *events, size_t adapter_bytes);
void m1_learning_free(m1_learning *l);

/*
 * Any thread, on its own time, before the request is added: makes the adapter that it is about of bytes that were put,
 * which takes as long as it is large.
 */
void m1_learning_prepare(m1_learning *l, m1_learn_request *r);

/* Takes the request over; it ends with `learned`, `bytes` or `failed`. */
void m1_learning_add(m1_learning *l, m1_learn_request *r);
/* It fails as cancelled, and what it has begun is as before. false: there is no such request. */
bool m1_learning_cancel(m1_learning *l, uint64_t id);
/* The device has failed. */
void m1_learning_fail(m1_learning *l, const m1_error *error);

bool m1_learning_pending(const m1_learning *l);
/*
 * A piece of the oldest request, of which there is one: one layer of a few hundred tokens, or of a longer sequence or
 * of sequences that share a beginning, which are not cut; or the optimizer's step.
 */
void m1_learning_piece(m1_learning *l);

#endif
