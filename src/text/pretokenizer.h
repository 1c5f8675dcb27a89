/*
 * pretokenizer.h - splits text into pre-tokens by a regular expression (PCRE2).
 */
#ifndef M1_TEXT_PRETOKENIZER_H
#define M1_TEXT_PRETOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "base/work.h"

/* The o200k pattern, which the released checkpoints use. */
extern const char m1_pretokenizer_o200k[];
/* GPT-2's. */
extern const char m1_pretokenizer_gpt2[];

typedef struct m1_pretokenizer m1_pretokenizer; /* immutable; may be shared by threads */

m1_status m1_pretokenizer_create(const char *pattern, m1_pretokenizer **out, m1_error *err);
void m1_pretokenizer_free(m1_pretokenizer *p);

/* The pattern that it was made of. */
const char *m1_pretokenizer_pattern(const m1_pretokenizer *p);

/*
 * Calls each(context, piece) for every match of the pattern in text, and for every stretch between two matches,
 * in order, until it returns false. text must be valid UTF-8. M1_E_NO_MEMORY also when each returned false;
 * M1_E_UNSUPPORTED when the pattern takes more than a number of steps that grows like the text. Whether the work goes
 * on is asked before each try of a match: of a very long piece, the last one takes a while.
 */
m1_status m1_pretokenize(const m1_pretokenizer *p, m1_slice text, bool (*each)(void *context, m1_slice piece),
						 void *context, m1_work *work, m1_error *err);

#endif
