/*
 * json_judge.h - validates JSON against a JSON Schema: a judge that shares no code with src/grammar.
 *
 * It knows the keywords that docs/constrained.md lists, and takes the others to say nothing.
 */
#ifndef M1_TEST_JSON_JUDGE_H
#define M1_TEST_JSON_JUDGE_H

#include <jansson.h>
#include <stdbool.h>

/* The schema's references lead into root. What PCRE2 does not find out about a pattern passes. */
bool json_judge(const json_t *root, const json_t *schema, const json_t *value);

#endif
