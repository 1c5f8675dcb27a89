/*
 * bpe.h - the merges of a byte-level BPE, and their application to one pre-token.
 */
#ifndef M1_TEXT_BPE_H
#define M1_TEXT_BPE_H

#include "base/buf.h"
#include "base/work.h"

typedef struct m1_bpe m1_bpe; /* immutable once all merges are added */

/* Room for n merges. NULL when memory ran out. */
m1_bpe *m1_bpe_create(size_t n);
void m1_bpe_free(m1_bpe *bpe);

/*
 * Merge number `rank` (from 0 up, each once, below the n of create) joins ids left and right into id. false when there
 * is a merge of this pair already.
 */
bool m1_bpe_add(m1_bpe *bpe, int32_t rank, int32_t left, int32_t right, int32_t id);

/* The merges in order of their rank: count of them, and the pairs (left, right) of the ids that each joins. */
size_t m1_bpe_count(const m1_bpe *bpe);
void m1_bpe_list(const m1_bpe *bpe, int32_t (*pairs)[2]);

/* Work space of one caller; zero-initialised is valid. Its parts are blocks: they hold users' prompts. */
typedef struct m1_bpe_space
{
	void *symbols;
	void *heap;
	size_t cap; /* symbols */
} m1_bpe_space;

void m1_bpe_space_free(m1_bpe_space *space);

/*
 * Applies all merges to the bytes, each of which begins as the symbol that byte_id says, lowest rank first and leftmost
 * among equals, and appends the result to out. O(n log n). false when memory ran out, or the work does not go on.
 */
bool m1_bpe_apply(const m1_bpe *bpe, const int32_t byte_id[256], m1_slice bytes, m1_bpe_space *space, m1_work *work,
				  m1_ids *out);

#endif
