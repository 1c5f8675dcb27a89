/*
 * regex_text.h - regular expressions made of the bytes of an input, in the dialect that src/grammar/regex.h and PCRE2
 * share.
 */
#ifndef M1_FUZZ_REGEX_TEXT_H
#define M1_FUZZ_REGEX_TEXT_H

#include "fuzz.h"

typedef struct regex_text
{
	m1_buf text;
	bool exact; /* PCRE2 matches the same texts; else it may match more: \S, [^\s] and . leave out less there */
} regex_text;

/* depth: groups inside each other, at most. The caller frees the text. */
regex_text regex_text_make(fuzz_input *in, int depth);
/* A character that such expressions speak of. */
const char *regex_text_character(fuzz_input *in);

#endif
