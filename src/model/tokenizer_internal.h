/*
 * tokenizer_internal.h - what the two loaders fill in and tokenizer.c uses.
 *
 *   tokenizer.c         encoding and decoding
 *   tokenizer_json.c    tokenizer.json
 *   tokenizer_merges.c  merges.txt, with the released rule
 */
#ifndef M1_MODEL_TOKENIZER_INTERNAL_H
#define M1_MODEL_TOKENIZER_INTERNAL_H

#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"

typedef struct m1_token
{
	char *bytes; /* owned; NULL: no such token */
	uint32_t len;
	bool added;	  /* recognised as a whole when added tokens are asked for */
	bool special; /* control token */
} m1_token;

struct m1_tokenizer
{
	const char *file; /* the one that is loaded, for errors; a literal */
	m1_token *tokens; /* [n_tokens] */
	int n_tokens;
	int32_t byte_id[256];
	m1_bpe *bpe;
	m1_pretokenizer *pretokenizer;
	int32_t *added; /* ids of added tokens, the longest first */
	int n_added;
	int32_t eos;
};

/*
 * Sets token id to a copy of bytes. The error names file and token. Setting an id again with the same bytes changes
 * its flags; with other bytes it is M1_E_CORRUPT.
 */
m1_status m1_tokenizer_set(m1_tokenizer *t, int32_t id, m1_slice bytes, bool added, bool special, m1_error *err);

m1_status m1_tokenizer_load_json(m1_tokenizer *t, const char *dir, m1_error *err);
m1_status m1_tokenizer_load_merges(m1_tokenizer *t, const char *dir, m1_error *err);

/*
 * The bytes of a token as tokenizer files spell it, each byte as one printable character (byte-level alphabet).
 * Appends to out; false when a character is outside the alphabet or memory ran out.
 */
bool m1_tokenizer_unspell(m1_slice spelled, m1_buf *out);

#endif
