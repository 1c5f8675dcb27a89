/*
 * learn_tokenizer.h - a tokenizer out of the texts that a model is to learn: what the examples of examples.h are as
 * text, chats with their markup, and files of plain text.
 *
 * One thread. The files appear in the folder when they are whole.
 */
#ifndef M1_TRAIN_LEARN_TOKENIZER_H
#define M1_TRAIN_LEARN_TOKENIZER_H

#include "text/bpe_train.h"
#include "text/tokenizer.h"

typedef struct m1_learn_tokenizer_options
{
	const char *const *files; /* JSON lines where the name ends in .jsonl; else plain text */
	int n_files;
	const char *out; /* the folder, which is made if need be */
	bool replace;
	int vocab_size;				 /* of all tokens: 256 bytes, what is learnt, and the added ones */
	const m1_added_token *added; /* beside those that M1's chats need */
	size_t n_added;
	bool single_digits; /* numbers stay digit by digit: no token has two of them */
	const char *system; /* of conversations that have none */
	m1_bpe_progress progress;
	void *context;
} m1_learn_tokenizer_options;

/* Writes tokenizer.json and tokenizer_config.json. *tokens: how many there are, added ones too; maybe fewer. */
m1_status m1_learn_tokenizer(const m1_learn_tokenizer_options *options, int *tokens, m1_error *err);

#endif
