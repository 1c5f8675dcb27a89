/*
 * scored_answer.h - the way of a request whose choices are scored, once its reasoning is over: a snapshot where the
 * answer begins, and each choice fed from there.
 *
 * Called by the step thread only. One choice is fed at a time, so a request takes the room of one sequence and one
 * snapshot.
 */
#ifndef M1_ENGINE_SCORED_ANSWER_H
#define M1_ENGINE_SCORED_ANSWER_H

#include "engine/request.h"

/* Whether what comes next is not sampled, but scored. */
bool m1_scored_answer_goes_on(const m1_request *r);

/* Uses the logits after the last token that was fed. The request has a token to be fed next, or has ended. */
m1_status m1_scored_answer_read(const m1_model *model, m1_request *r, const float *logits, m1_error *err);

/* The request leaves: gives back what scoring holds beside its state. */
void m1_scored_answer_leave(const m1_model *model, m1_request *r);

#endif
