/*
 * jsonvalue.h - nfa for JSON's own values: strings, numbers and anything at all, within the bounds that a schema gives.
 * Knows nothing of schemas.
 */
#ifndef M1_GRAMMAR_JSONVALUE_H
#define M1_GRAMMAR_JSONVALUE_H

#include "grammar/nfa.h"

#define M1_JSON_NO_MAX (-1)

/* Rules that are written once for an nfa; -1 = not yet. */
typedef struct m1_json_rules
{
	int character; /* one of a string's, plain or escaped */
	int any;	   /* a value of any kind */
} m1_json_rules;

#define M1_JSON_BOUND_DIGITS 15 /* as many as every 64-bit real has */

/*
 * A bound of a number; without one, `given` is false. Those of reals may have a fraction, M1_JSON_BOUND_DIGITS in all,
 * where neither bound is exclusive and the other has no more digits.
 */
typedef struct m1_json_bound
{
	bool given;
	bool exclusive;
	int64_t value;							 /* its whole part, and that of -0.5 is 0 */
	bool negative;							 /* of one with a fraction */
	char fraction[M1_JSON_BOUND_DIGITS + 1]; /* its digits, the last not 0 */
} m1_json_bound;

/* One of the characters as it stands inside a string, escaped where it must be. */
int32_t m1_json_characters(m1_nfa *nfa, const m1_range *set, size_t n, int32_t next);

/* A string of min to max characters, or M1_JSON_NO_MAX. U+0000 is left out: SQL texts cannot hold it. */
int32_t m1_json_string(m1_nfa *nfa, m1_json_rules *rules, int min, int max, int32_t next);
int32_t m1_json_integer(m1_nfa *nfa, m1_json_bound low, m1_json_bound high, int32_t next);
int32_t m1_json_number(m1_nfa *nfa, m1_json_bound low, m1_json_bound high, int32_t next);
int32_t m1_json_any(m1_nfa *nfa, m1_json_rules *rules, int32_t next);
/* An object of any names, each with a value of the rule. */
int32_t m1_json_map(m1_nfa *nfa, m1_json_rules *rules, int value_rule, int32_t next);
/* The separators: , and : with a blank behind them, or none. */
int32_t m1_json_separator(m1_nfa *nfa, char which, int32_t next);

#endif
