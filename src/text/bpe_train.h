/*
 * bpe_train.h - learns the merges of a byte-level BPE: again and again the pair of neighbouring tokens that occurs most
 * often becomes a token. Of equally frequent pairs, the one of lower ids comes first, so that the same words give the
 * same merges whatever their order.
 *
 * A trainer is fed pre-tokens, counts the different ones, and learns once. One thread.
 */
#ifndef M1_TEXT_BPE_TRAIN_H
#define M1_TEXT_BPE_TRAIN_H

#include "base/buf.h"
#include "base/status.h"

/* The tokens that are made: the 256 bytes, whose ids they are, and then what merges make, in the order of their ids. */
typedef struct m1_bpe_learned
{
	int n_tokens;
	m1_buf bytes;	/* of all tokens */
	size_t *begins; /* [n_tokens + 1] in bytes */

	/*
	 * Merge i joins ids pairs[i][0] and pairs[i][1]. Two merges may make one token: "ab" with "c" and "a" with "bc".
	 * Which token it is, its bytes tell.
	 */
	int n_merges;
	int32_t (*pairs)[2]; /* [n_merges] */
} m1_bpe_learned;

/* Zero-initialised is valid. */
void m1_bpe_learned_free(m1_bpe_learned *learned);
m1_slice m1_bpe_learned_token(const m1_bpe_learned *learned, int32_t id);

typedef struct m1_bpe_trainer m1_bpe_trainer;

/* NULL when memory ran out. */
m1_bpe_trainer *m1_bpe_trainer_create(void);
void m1_bpe_trainer_free(m1_bpe_trainer *t);

/* One more occurrence of a word. false when memory ran out. */
bool m1_bpe_trainer_add(m1_bpe_trainer *t, m1_slice word);

/* Told now and then; false: stop. */
typedef bool (*m1_bpe_progress)(void *context, int tokens, int wanted);

/*
 * Learns until there are that many tokens, of at least 256, or no pair occurs twice any more. O(n log n) for words of n
 * bytes altogether. M1_E_CANCELLED when progress (which may be NULL) says so.
 */
m1_status m1_bpe_trainer_learn(m1_bpe_trainer *t, int tokens, m1_bpe_progress progress, void *context,
							   m1_bpe_learned *out, m1_error *err);

#endif
