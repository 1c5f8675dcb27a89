/*
 * token_logprobs.h - the probabilities of the tokens that a reply was written with, for requests that ask for them.
 *
 * The step measures the logits that a token is chosen from; the request notes what the token is part of. Belongs to one
 * request, and is used by the step thread.
 */
#ifndef M1_ENGINE_TOKEN_LOGPROBS_H
#define M1_ENGINE_TOKEN_LOGPROBS_H

#include "text/reply.h"

/* Numbers of one request, alternatives included: what is made of them fits a frame. */
#define M1_MAX_LOGPROBS 131072

typedef struct m1_token_logprobs m1_token_logprobs;

/* With `top` alternatives for each token. NULL when memory ran out. */
m1_token_logprobs *m1_token_logprobs_create(const m1_tokenizer *t, int top);
void m1_token_logprobs_free(m1_token_logprobs *p);

/* Token id was chosen from logits [vocab]: what the model itself gives it, at temperature 1 and without a mask. */
void m1_token_logprobs_measure(m1_token_logprobs *p, const float *logits, int vocab, int32_t id);
/* The token that was measured is read: where the reply was before it, and where it is. false when memory ran out. */
bool m1_token_logprobs_note(m1_token_logprobs *p, m1_reply_state before, const m1_reply *reply);

/* Appends them as m1w_done.logprobs has them, which was written as they were noted. false when memory ran out. */
bool m1_token_logprobs_write(const m1_token_logprobs *p, m1_buf *json);

#endif
