/*
 * outcome.h - what a step gives each request whose last known token went through the
 * model: its next token, or the logits where they are wanted themselves.
 *
 * Tokens are chosen on the device if it can do that, so that logits stay there; else all
 * logits are read and tokens chosen here. Belongs to one engine and its step thread.
 */
#ifndef M1_ENGINE_OUTCOME_H
#define M1_ENGINE_OUTCOME_H

#include "engine/masker.h"
#include "engine/request.h"

typedef struct m1_outcome m1_outcome;

/* For steps of at most model->max_sequences requests. The model must outlive it. */
m1_status m1_outcome_create(m1_model *model, m1_outcome **out, m1_error *err);
void m1_outcome_free(m1_outcome *o);

/* A new step. */
void m1_outcome_clear(m1_outcome *o);
/* The request wants to know what follows row `row` of the batch; rows come in ascending order. */
void m1_outcome_want(m1_outcome *o, m1_request *r, int row);

/* Runs the step, and works out the masks of constrained requests meanwhile. masker: NULL without a tokenizer. */
m1_status m1_outcome_run(m1_outcome *o, const m1b_batch *batch, m1_masker *masker, m1_error *err);

/* What came of the step: for i from 0, the i-th request that wanted something. */
int m1_outcome_count(const m1_outcome *o);
m1_request *m1_outcome_request(const m1_outcome *o, int i);
/* The logits [vocab], or NULL for a request that is given a token. */
const float *m1_outcome_logits(const m1_outcome *o, int i);
/* That token. The request's mask_error comes before it. */
m1b_pick m1_outcome_pick(const m1_outcome *o, int i);

#endif
