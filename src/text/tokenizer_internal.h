/*
 * tokenizer_internal.h - what the loaders fill in and tokenizer.c uses.
 *
 *   tokenizer.c         encoding and decoding
 *   tokenizer_json.c    tokenizer.json
 *   tokenizer_merges.c  merges.txt, with the released rule
 *   tokenizer_gguf.c    the keys of a GGUF file
 *   token_index.c       tokens by their bytes, while they are loaded
 */
#ifndef M1_TEXT_TOKENIZER_INTERNAL_H
#define M1_TEXT_TOKENIZER_INTERNAL_H

#include "files/gguf_writer.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

#define M1_GGUF_PRETOKENIZER "minimax-m2" /* how GGUF files call the o200k pattern */

typedef struct m1_token
{
	char *bytes; /* owned; NULL: no such token */
	uint32_t len;
	bool added;	  /* recognised as a whole when added tokens are asked for */
	bool special; /* control token */
} m1_token;

struct m1_tokenizer
{
	const char *file; /* the one that is loaded, for errors; lives while it is loaded */
	m1_token *tokens; /* [n_tokens] */
	int n_tokens;
	int32_t byte_id[256];
	m1_bpe *bpe;
	m1_pretokenizer *pretokenizer;
	int32_t *added; /* ids of added tokens, the longest first */
	int n_added;
	int32_t eos; /* -1: none */
};

/*
 * Sets token id to a copy of bytes. The error names file and token. Setting an id again with the same bytes changes
 * its flags; with other bytes it is M1_E_CORRUPT.
 */
m1_status m1_tokenizer_set(m1_tokenizer *t, int32_t id, m1_slice bytes, bool added, bool special, m1_error *err);

m1_status m1_tokenizer_load_json(m1_tokenizer *t, const char *dir, m1_error *err);
m1_status m1_tokenizer_load_merges(m1_tokenizer *t, const char *dir, m1_error *err);
/* Also sets eos, if the file tells it. */
m1_status m1_tokenizer_load_gguf(m1_tokenizer *t, const m1_gguf *gguf, m1_error *err);
/* Writes the same keys, for the converter. M1_E_UNSUPPORTED when the format has no name for the pre-tokenizer. */
m1_status m1_tokenizer_write_gguf(const m1_tokenizer *t, m1_gguf_writer *w, m1_error *err);

/*
 * The bytes of a token as tokenizer files spell it, each byte as one printable character (byte-level alphabet).
 * Appends to out; false when a character is outside the alphabet or memory ran out.
 */
bool m1_tokenizer_unspell(m1_slice spelled, m1_buf *out);
/* The way back. */
bool m1_tokenizer_spell(m1_slice bytes, m1_buf *out);
/* Replaces bytes by those of both tokens of a merge, "left right" as files spell it. false when it is no such pair. */
bool m1_tokenizer_unspell_merge(m1_slice merge, m1_buf *bytes, size_t *left_len);

/* Ids of tokens by their bytes. Zero-initialised is valid to free. */
typedef struct m1_token_index
{
	int32_t *slots; /* -1: empty */
	size_t mask;
} m1_token_index;

/* Room for n tokens; false when memory ran out. */
bool m1_token_index_init(m1_token_index *index, size_t n);
void m1_token_index_free(m1_token_index *index);
/* The slot that holds the id of the token with these bytes, or the empty one where it goes. */
int32_t *m1_token_index_slot(const m1_tokenizer *t, const m1_token_index *index, m1_slice bytes);

#endif
