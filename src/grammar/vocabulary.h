/*
 * vocabulary.h - the tokens of a tokenizer as tries, so that all of them are tried against an automaton by walking
 * their common beginnings once.
 *
 * "Plain" tokens are whole characters of ordinary text, none of them special to JSON: most of any vocabulary. They are
 * also kept apart by length, because inside a string they are all allowed or all too long, and then need not be walked.
 * Immutable once created; shared by all threads.
 */
#ifndef M1_GRAMMAR_VOCABULARY_H
#define M1_GRAMMAR_VOCABULARY_H

#include "text/tokenizer.h"

#define M1_PLAIN_MAX 32		  /* characters of a plain token */
#define M1_TRIE_MAX_DEPTH 512 /* bytes of a token; longer ones, which only tests have, are left out */

/* Nodes are in depth-first order: a node's subtree is what follows it, up to `skip`. */
typedef struct m1_trie_node
{
	int32_t token;	/* the token that ends here, or -1 */
	int32_t skip;	/* the first node behind the subtree */
	uint16_t depth; /* of the node's byte in its token, from 0 */
	uint8_t byte;
} m1_trie_node;

typedef struct m1_trie
{
	m1_trie_node *nodes;
	int32_t n;
} m1_trie;

typedef struct m1_vocabulary
{
	int n_tokens; /* ids are below this */
	int words;	  /* of a mask: 64 tokens each */
	int32_t eos;  /* not in the tries */
	m1_trie all;
	m1_trie rest;					   /* those that are not plain */
	uint64_t *plain[M1_PLAIN_MAX + 1]; /* masks of the plain tokens of at most so many characters; [0] is empty */
	int32_t *same;					   /* [n_tokens]: the next token with the same bytes, or -1 */
} m1_vocabulary;

/* Control tokens and dead ids are left out. The tokenizer may be closed afterwards. */
m1_status m1_vocabulary_create(const m1_tokenizer *t, int n_tokens, m1_vocabulary **out, m1_error *err);
void m1_vocabulary_free(m1_vocabulary *v);

static inline bool
m1_mask_has(const uint64_t *mask, int32_t id)
{
	return mask[id >> 6] >> (id & 63) & 1;
}

static inline void
m1_mask_add(uint64_t *mask, int32_t id)
{
	mask[id >> 6] |= (uint64_t) 1 << (id & 63);
}

#endif
