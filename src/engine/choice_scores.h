/*
 * choice_scores.h - how probable given answers are: each is fed to the model, token by token, from the place where its
 * answer begins.
 *
 * Knows the arithmetic and the order; the scheduler feeds the tokens and takes the sequence back to that place. Belongs
 * to one request.
 */
#ifndef M1_ENGINE_CHOICE_SCORES_H
#define M1_ENGINE_CHOICE_SCORES_H

#include "model/sampler.h"
#include "text/tokenizer.h"

typedef struct m1_choice_scores m1_choice_scores;

/* choices: a JSON array of strings, as for m1_constraint_compile. vocab: of the logits. work: m1_tokenizer_encode's. */
m1_status m1_choice_scores_create(const m1_tokenizer *t, m1_slice choices, int vocab, m1_work *work,
								  m1_choice_scores **out, m1_error *err);
void m1_choice_scores_free(m1_choice_scores *s);

/* Tokens of the longest choice, the end of turn included. */
int m1_choice_scores_longest(const m1_choice_scores *s);

typedef enum m1_score_feed
{
	M1_SCORE_NEXT, /* feed *token behind what has been fed */
	M1_SCORE_BACK, /* feed *token at the place where the answer begins */
	M1_SCORE_DONE, /* there is nothing more to know */
} m1_score_feed;

/* logits [vocab]: at the place where the answer begins, then after each token that was asked for. */
m1_score_feed m1_choice_scores_read(m1_choice_scores *s, const float *logits, int32_t *token);

/*
 * For a model that is elsewhere and tells probabilities itself: how many choices there are, the tokens of one without
 * the end of turn, and the logarithm of the probability of them with it. All must be told; then they are done.
 */
int m1_choice_scores_count(const m1_choice_scores *s);
const m1_ids *m1_choice_scores_tokens(const m1_choice_scores *s, int i);
void m1_choice_scores_tell(m1_choice_scores *s, int i, double logprob);
void m1_choice_scores_told(m1_choice_scores *s);

/* Once done: fp64 values as m1w_done.choice_logprobs has them; valid as long as the scores. */
m1_slice m1_choice_scores_logprobs(const m1_choice_scores *s);
/* Once done: the likeliest choice at temperature 0, else one drawn as tokens are. Its tokens, without the end. */
const m1_ids *m1_choice_scores_choose(m1_choice_scores *s, const m1_sampling *sampling, uint64_t number);

#endif
