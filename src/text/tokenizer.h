/*
 * tokenizer.h - byte-level BPE: text to token ids and back.
 *
 * A checkpoint's tokenizer.json is authoritative (vocab, merges, added_tokens, pre-tokenizer pattern); with merges.txt
 * alone, the released rule applies (id(byte) = byte, id(merge i) = 256 + i, the o200k pattern and the released added
 * tokens). A GGUF file holds its own. An open tokenizer is immutable and may be shared by threads.
 */
#ifndef M1_TEXT_TOKENIZER_H
#define M1_TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "base/work.h"
#include "files/gguf.h"

typedef struct m1_tokenizer m1_tokenizer;

/* Which added tokens ("<think>", "<end_of_sentence>") are recognised inside a text. */
typedef enum m1_added_tokens
{
	M1_ADDED_NONE,	/* none: text from users */
	M1_ADDED_PLAIN, /* those not marked special, such as <think> in some checkpoints */
	M1_ADDED_ALL,	/* all: our own chat markup */
} m1_added_tokens;

/*
 * Opens DIR/tokenizer.json, else DIR/merges.txt; M1_E_NOT_FOUND when neither is there.
 * vocab_rows is the number of rows of the embedding table: an id outside it is M1_E_CORRUPT.
 * The end-of-turn token is eos_token of DIR/tokenizer_config.json, or <end_of_sentence>.
 */
m1_status m1_tokenizer_open(const char *dir, int vocab_rows, m1_tokenizer **out, m1_error *err);
/* Reads the keys tokenizer.ggml.*; M1_E_NOT_FOUND when the file has none. The file may be closed afterwards. */
m1_status m1_tokenizer_open_gguf(const m1_gguf *gguf, int vocab_rows, m1_tokenizer **out, m1_error *err);

/* A token that no merge makes. */
typedef struct m1_added_token
{
	const char *content;
	bool special; /* a control token; else text that is one token */
} m1_added_token;

/*
 * A tokenizer that has learnt nothing: every byte of a text is a token of its own, with its value as id, and the added
 * tokens follow from 256 on. The end-of-turn token must be among them.
 */
m1_status m1_tokenizer_of_bytes(const m1_added_token *added, size_t n_added, m1_tokenizer **out, m1_error *err);

void m1_tokenizer_close(m1_tokenizer *t);

/*
 * Appends the ids of text to ids. With ends != NULL, also appends for each id the byte offset in text
 * where it ends. M1_E_INVALID_ARGUMENT when text is not UTF-8. Time is O(n log n) for any input;
 * a unit of the work is a byte.
 */
m1_status m1_tokenizer_encode(const m1_tokenizer *t, m1_slice text, m1_added_tokens added, m1_ids *ids, m1_ids *ends,
							  m1_work *work, m1_error *err);

/* The bytes of one token (maybe part of a character), or an empty slice with NULL data for a dead id. */
m1_slice m1_tokenizer_piece(const m1_tokenizer *t, int32_t id);

/* True for control tokens, which have no place in a decoded text. */
bool m1_tokenizer_is_special(const m1_tokenizer *t, int32_t id);

/*
 * Appends the text of ids, special tokens left out, as valid UTF-8 (bytes that do not form a character,
 * and NUL, become U+FFFD). M1_E_INVALID_ARGUMENT names an id that is outside the vocabulary or dead. A unit of the work
 * is a token.
 */
m1_status m1_tokenizer_decode(const m1_tokenizer *t, const int32_t *ids, size_t n, m1_buf *out, m1_work *work,
							  m1_error *err);

/* The id of an added token by its text, or -1. */
int32_t m1_tokenizer_added_id(const m1_tokenizer *t, const char *content);

/* The id that ends a turn. */
int32_t m1_tokenizer_eos(const m1_tokenizer *t);

#endif
