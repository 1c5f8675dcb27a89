/*
 * tokenizer_write.h - the files of a tokenizer that was learnt, as this engine and others read them: tokenizer.json and
 * tokenizer_config.json.
 *
 * Stateless; any thread.
 */
#ifndef M1_TEXT_TOKENIZER_WRITE_H
#define M1_TEXT_TOKENIZER_WRITE_H

#include "text/bpe_train.h"
#include "text/tokenizer.h"

/* What a chat in M1's form needs, and the tags of reasoning. */
extern const m1_added_token m1_usual_added_tokens[];
extern const size_t m1_n_usual_added_tokens;

/* Appends the text of tokenizer.json, with the o200k pre-tokenizer. */
m1_status m1_tokenizer_json_text(const m1_bpe_learned *learned, const m1_added_token *added, size_t n_added,
								 m1_buf *out, m1_error *err);
/* Appends the text of tokenizer_config.json, with M1's chat template. */
m1_status m1_tokenizer_config_text(m1_buf *out, m1_error *err);

#endif
