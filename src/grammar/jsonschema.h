/*
 * jsonschema.h - a JSON Schema compiled into an nfa of compact JSON texts that validate.
 *
 * docs/constrained.md has the table of keywords; any other is refused by its name and place. What a schema leaves open
 * is narrowed where that keeps answers short and certain to end: properties come in the schema's order and no others
 * are added to those it lists, numbers have at most 18 digits before the point and 17 behind it, objects and arrays are
 * at most M1_NFA_MAX_NESTING deep, and white space is a blank after , and : or none.
 */
#ifndef M1_GRAMMAR_JSONSCHEMA_H
#define M1_GRAMMAR_JSONSCHEMA_H

#include "grammar/nfa.h"
#include "text/jsonparse.h"

#define M1_SCHEMA_MAX_COUNT 10000 /* of characters or items; greater maxima mean this one */

/*
 * Compiles the schema in front of node `next` and sets *start. A failure of the nfa itself, and a schema that no value
 * satisfies, show in m1_nfa_finish.
 */
m1_status m1_jsonschema_compile(m1_nfa *nfa, m1_slice schema, int32_t next, int32_t *start, m1_error *err);
/* The same for a parsed one, which may be a part of a document: its references begin there. */
m1_status m1_jsonschema_compile_value(m1_nfa *nfa, const m1_json *schema, int32_t next, int32_t *start, m1_error *err);
/* Whether it describes any value: it has only keywords, or none, that say nothing about it. */
bool m1_jsonschema_says_nothing(const m1_json *schema);

#endif
