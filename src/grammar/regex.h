/*
 * regex.h - regular expressions over characters, compiled into an nfa.
 *
 * What they can say: literals, . [sets] with ranges, negation and [:names:] as in POSIX, the escapes of ECMAScript
 * and Perl for characters, \d \w \s and their negations (ASCII), groups, alternatives, and the repetitions ? * + {n}
 * {n,} {n,m}, whose lazy forms are the same set of texts. Refused by name: back references, look-around, \b, flags, \p
 * and unknown names of sets. U+0000 matches nothing, since SQL texts cannot hold it.
 */
#ifndef M1_GRAMMAR_REGEX_H
#define M1_GRAMMAR_REGEX_H

#include "grammar/nfa.h"

/* How the characters that a regular expression speaks of are written in the answer. */
typedef int32_t (*m1_write_characters)(m1_nfa *nfa, const m1_range *set, size_t n, int32_t next);

typedef enum m1_regex_match
{
	M1_REGEX_WHOLE,	 /* the expression describes all of the text; ^ and $ at its ends say no more */
	M1_REGEX_SEARCH, /* it describes a part; ^ and $ tie it to the ends, as in JSON Schema */
} m1_regex_match;

/*
 * Compiles the expression in front of node `next` and sets *start. Errors name the place by the number of the
 * character. A failure of the nfa itself shows in m1_nfa_finish.
 */
m1_status m1_regex_compile(m1_nfa *nfa, m1_slice pattern, m1_regex_match match, m1_write_characters write, int32_t next,
						   int32_t *start, m1_error *err);

#endif
