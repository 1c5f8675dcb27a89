/*
 * scorer.h - how probable given answers are: each is fed to the model, token by token,
 * from the place where its answer begins.
 *
 * Knows the arithmetic and the order; the scheduler feeds the tokens and takes the
 * sequence back to that place. Belongs to one request.
 */
#ifndef M1_ENGINE_SCORER_H
#define M1_ENGINE_SCORER_H

#include "model/sampler.h"
#include "text/tokenizer.h"

typedef struct m1_scorer m1_scorer;

/* choices: a JSON array of strings, as for m1_constraint_compile. vocab: of the logits. */
m1_status m1_scorer_create(const m1_tokenizer *t, m1_slice choices, int vocab, m1_scorer **out, m1_error *err);
void m1_scorer_free(m1_scorer *s);

/* Tokens of the longest choice, the end of turn included. */
int m1_scorer_longest(const m1_scorer *s);

typedef enum m1_score_step
{
	M1_SCORE_NEXT, /* feed *token behind what has been fed */
	M1_SCORE_BACK, /* feed *token at the place where the answer begins */
	M1_SCORE_DONE, /* there is nothing more to know */
} m1_score_step;

/* logits [vocab]: at the place where the answer begins, then after each token that was asked for. */
m1_score_step m1_scorer_read(m1_scorer *s, const float *logits, int32_t *token);

/* Once done: fp64 values as m1w_done.choice_logprobs has them; valid as long as the scorer. */
m1_slice m1_scorer_logprobs(const m1_scorer *s);
/* Once done: the likeliest choice at temperature 0, else one that is drawn as tokens are. Its tokens, without the end. */
const m1_ids *m1_scorer_choose(m1_scorer *s, const m1_sampling *sampling, uint64_t step);

#endif
