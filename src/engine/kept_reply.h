/*
 * kept_reply.h - what a lesson needs of a reply: the probabilities with which its tokens were sampled, the masks that
 * they were sampled under, and the experts that they took.
 *
 * Belongs to one request. It is made with it, on any thread; the step thread fills it.
 */
#ifndef M1_ENGINE_KEPT_REPLY_H
#define M1_ENGINE_KEPT_REPLY_H

#include "model/model.h"
#include "wire/message.h"

typedef struct m1_kept_reply m1_kept_reply;

/* Of a reply of at most max_tokens. M1_E_CONTEXT_OVERFLOW when that is more than a message holds. */
m1_status m1_kept_reply_create(const m1_model *model, int prompt_tokens, int max_tokens, m1_kept_reply **out,
							   m1_error *err);
void m1_kept_reply_free(m1_kept_reply *k);

/* Where the experts of the token at a position go, [layers, experts of a token]. */
uint16_t *m1_kept_reply_experts(m1_kept_reply *k, int position);

/* The token that comes next was sampled from these logits, under this mask (NULL: none). */
void m1_kept_reply_measure(m1_kept_reply *k, const float *logits, float temperature, const uint64_t *mask, int32_t id);
/* It is the reply's number `at`. M1_E_CONTEXT_OVERFLOW when there are more masks than a message holds, as the next. */
m1_status m1_kept_reply_sampled(m1_kept_reply *k, size_t at, const uint64_t *mask, m1_error *err);
/* Number `at` was written and not sampled: nothing but it could have come. */
m1_status m1_kept_reply_written(m1_kept_reply *k, size_t at, int32_t id, m1_error *err);

/* tokens: prompt and reply, of the request. Valid as long as both are. */
void m1_kept_reply_put(const m1_kept_reply *k, const m1_ids *tokens, m1w_done *done);

#endif
