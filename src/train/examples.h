/*
 * examples.h - what a model learns from: files of JSON lines as sequences of token ids, each with the weight that its
 * prediction has in the loss.
 *
 * A line is an object in one of four forms:
 *
 *   {"messages": [...]}                      a conversation as in chat; the assistant's turns are learnt
 *   {"prompt": "...", "answer": "..."}       one question; maybe with "reasoning"
 *   {"text": "..."}                          a text, all of it learnt
 *   {"ids": [...]}                           tokens as they are; maybe with "weights"
 *
 * The first two may have "system", "tools" and "prompt_weight", and the first three "answer_weight". Any other key is
 * refused by its name: what is not understood might be meant to matter.
 *
 * One thread. Examples live until they are freed.
 */
#ifndef M1_TRAIN_EXAMPLES_H
#define M1_TRAIN_EXAMPLES_H

#include "base/buf.h"
#include "base/status.h"
#include "text/tokenizer.h"

/* What becomes of a sequence that is longer than the context. */
typedef enum m1_too_long
{
	M1_LONG_REFUSE,
	M1_LONG_SKIP,
	M1_LONG_SPLIT, /* texts are learnt in pieces; conversations, which pieces would take apart, are refused */
} m1_too_long;

/* Asked now and then in what may take long; false: it ends with M1_E_CANCELLED. */
typedef bool (*m1_goes_on)(void *context);

typedef struct m1_example_rules
{
	const m1_tokenizer *tokenizer; /* NULL: lines can have nothing but ids */
	int vocab_rows;				   /* ids are below; 0: there are to be none, but texts */
	size_t max_tokens;			   /* of a sequence */
	m1_too_long too_long;
	const char *system; /* of conversations that have none */
	float prompt_weight;
	float answer_weight; /* also of texts and ids */
	m1_goes_on goes_on;	 /* asked for every line; NULL: nobody is */
	void *goes_on_context;
} m1_example_rules;

/* Takes one sequence; both arrays are n long, and weights[0] is 0: nothing predicts the first token. */
typedef m1_status (*m1_example_sink)(void *context, const int32_t *ids, const float *weights, size_t n, m1_error *err);

/* What was read, of all files. */
typedef struct m1_example_counts
{
	size_t lines;
	size_t skipped; /* lines that were too long */
	size_t split;	/* lines that became several sequences */
} m1_example_counts;

/*
 * Calls sink for every sequence of a file, and adds to counts. The error names file and line:
 * M1_E_INVALID_ARGUMENT for a line that is wrong, M1_E_CONTEXT_OVERFLOW for one that is too long. M1_E_CANCELLED when
 * it was not to go on.
 */
m1_status m1_examples_each(const char *path, const m1_example_rules *rules, m1_example_sink sink, void *context,
						   m1_example_counts *counts, m1_error *err);

/* All sequences of some files, one after the other. */
typedef struct m1_examples
{
	int32_t *ids;	/* [begins[n]] */
	float *weights; /* [begins[n]] */
	size_t *begins; /* [n + 1] */
	size_t n;
	size_t cap_tokens;
	size_t cap_examples;
	m1_example_counts counts;
} m1_examples;

/* Adds a file's; zero-initialised is empty. After a failure, some of the file's sequences may be there. */
m1_status m1_examples_read(m1_examples *e, const char *path, const m1_example_rules *rules, m1_error *err);
void m1_examples_free(m1_examples *e);

/* A number that other ids or weights, or another order, would almost certainly not have. */
uint64_t m1_examples_digest(const m1_examples *e);

#endif
