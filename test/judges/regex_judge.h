/*
 * regex_judge.h - what PCRE2 says of a regular expression and a text: a judge that shares no code with src/grammar.
 */
#ifndef M1_TEST_REGEX_JUDGE_H
#define M1_TEST_REGEX_JUDGE_H

#include "base/buf.h"

typedef enum regex_verdict
{
	REGEX_DIFFERS,
	REGEX_MATCHES,
	REGEX_UNKNOWN, /* PCRE2 does not know the expression, or takes too long */
} regex_verdict;

/* All of the text, or with `part` some of it. */
regex_verdict regex_judge(m1_slice pattern, m1_slice text, bool part);

#endif
