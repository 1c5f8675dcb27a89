/*
 * losses.h - what is to be learned: the losses over the tokens of completions, each as one coefficient a token.
 *
 * Every loss here has a gradient of the form - sum_t c_t grad log pi(o_t); c_t follows from the token's own
 * log-probability and what the caller says of it. Stateless; any thread.
 *
 * Sources: CISPO, MiniMax-M1 (arXiv 2506.13585), equations 4 and 5; GRPO, arXiv 2402.03300; DAPO, arXiv 2503.14476.
 */
#ifndef M1_TRAIN_LOSSES_H
#define M1_TRAIN_LOSSES_H

#include <stdbool.h>
#include <stdint.h>

#define M1_NO_EXPERT UINT16_MAX

typedef enum m1_loss_kind
{
	M1_LOSS_CE,	   /* cross entropy, each token times its weight */
	M1_LOSS_CISPO, /* the weight of the update is clipped, no token is dropped */
	M1_LOSS_GRPO,  /* tokens beyond the trust region are dropped; the mean over completions of means over tokens */
	M1_LOSS_DAPO,  /* the same over tokens, and with another bound above */
} m1_loss_kind;

typedef struct m1_objective
{
	m1_loss_kind loss;
	float cap;		   /* CISPO: a ratio of probabilities counts for at most this much, 1 + epsilon_high */
	float low, high;   /* GRPO, DAPO: the trust region of the ratio is [1 - low, 1 + high] */
	float kl;		   /* GRPO: times the divergence from the reference */
	float balance;	   /* times the auxiliary loss of the routers; 0: none */
	float temperature; /* that logits are divided by, as when the completions were sampled */
	double tokens;	   /* what sums over tokens are divided by; 0: the completions' tokens in this batch */
} m1_objective;

/* With the published numbers: a cap of 2, trust regions of 0.2 and of 0.2 and 0.28, a KL of 0.04, no auxiliary loss. */
m1_objective m1_objective_of(m1_loss_kind loss);

/*
 * One sequence to learn from. Arrays are [n], of the token itself; their owner keeps them until the step has ended.
 * Tokens from `prompt` on are its completion, and only they are learned; the first of all never is, since nothing
 * predicts it.
 */
typedef struct m1_sequence
{
	const int32_t *tokens;
	int n; /* at least 1 */
	int prompt;
	/*
	 * Sequences of the same number begin alike, and what they have in common is computed once; -1: nobody's. The number
	 * means nothing else.
	 */
	int share;
	float advantage;		  /* all losses but cross entropy */
	const float *weight;	  /* cross entropy; NULL: 1 */
	const float *old_logprob; /* by the policy that sampled; all losses but cross entropy */
	const float *ref_logprob; /* GRPO with a KL */
	/*
	 * The bits of the tokens that a constraint left when one was sampled: probabilities, now as then, are among those.
	 * NULL for a token that could be any, or for all of them.
	 */
	const uint64_t *const *allowed;
	const uint16_t *experts;  /* [n, layers, top_k] to take, as when it was sampled; NULL, or M1_NO_EXPERT in place of a
								 layer's first: the router's choice */
	float *logprob, *entropy; /* filled for all tokens of the completion; NULL: not wanted */
} m1_sequence;

/* Whether a token's coefficient may be other than 0, or its value. */
bool m1_loss_counts(const m1_objective *o, const m1_sequence *s, int token);

typedef struct m1_token_loss
{
	double value;
	float coefficient; /* -dL / dlogprob */
	bool clipped;	   /* its ratio is beyond cap or trust region */
} m1_token_loss;

/* Of a token with this log-probability; scale is 1 / tokens, or what stands for it. */
m1_token_loss m1_loss_of(const m1_objective *o, const m1_sequence *s, int token, double logprob, double scale);

/*
 * (reward - mean of the group) / its standard deviation with n - 1; 0 in a group of equal rewards. Groups are any
 * numbers.
 */
void m1_advantages(const float *reward, const int *group, int n, float *advantage);

#endif
