/*
 * step.h - one step of continuous batching: the tokens that go through the model together, and what it gives to each
 * request whose last known token is among them: its next token, or the logits where they are wanted themselves.
 *
 * engine.c decides who takes part, and uses the results. Tokens are chosen on the device if it can do that, so that
 * logits stay there; else all logits are read and tokens are chosen here. Masks of constrained requests are worked out
 * during the forward pass (see masker.h); where one takes longer, the request's logits are kept, and it is part of the
 * next steps without being fed. Belongs to one engine and its step thread; a step allocates nothing.
 */
#ifndef M1_ENGINE_STEP_H
#define M1_ENGINE_STEP_H

#include "backend/backend.h"
#include "base/status.h"
#include "engine/request.h"
#include "model/model.h"

typedef struct m1_step m1_step;

/* For batches of at most model->max_sequences requests and max_batch_tokens tokens. The model must outlive it. */
m1_status m1_step_create(m1_model *model, m1_step **out, m1_error *err);
void m1_step_free(m1_step *s);

/* An empty batch. */
void m1_step_clear(m1_step *s);
/* Adds the next n pending tokens of a request, which has a state. If they are all of them, it is given a result. */
void m1_step_add(m1_step *s, m1_request *r, int n);
/* Adds one that waits for its mask; after all others. */
void m1_step_add_waiting(m1_step *s, m1_request *r);

/* Starts the forward pass on the batch. Returns when the masks are there; its failures are m1_step_sample's to tell. */
void m1_step_forward(m1_step *s);
/* Waits for it, and chooses the tokens. Without success there are no results. */
m1_status m1_step_sample(m1_step *s, m1_error *err);

/* Who is in the batch, in the order in which they were added, and with how many tokens. */
int m1_step_size(const m1_step *s);
m1_request *m1_step_request(const m1_step *s, int i);
int m1_step_tokens(const m1_step *s, int i);
/* Keeps the experts that their tokens took, for those that want it, after m1_step_sample. */
void m1_step_keep_experts(const m1_step *s);

typedef struct m1_result
{
	m1_request *request;
	const float *logits; /* [vocab], until the next step; NULL for a request that is given a token */
	m1b_pick token;		 /* unless it waits for its mask, whose error comes before it */
	bool broken;		 /* its logits are not all finite numbers */
} m1_result;

int m1_step_results(const m1_step *s);
const m1_result *m1_step_result(const m1_step *s, int i);

#endif
