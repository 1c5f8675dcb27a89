/*
 * jsonschema_internal.h - what the files of the schema compiler share. One compiler lives for one call of
 * m1_jsonschema_compile.
 *
 *   jsonschema.c           keywords, references, the choice of what to write
 *   jsonschema_parts.c     objects and arrays
 *   jsonschema_scalars.c   strings, numbers, listed values
 *   jsonschema_disjoint.c  whether the alternatives of a oneOf exclude each other
 */
#ifndef M1_GRAMMAR_JSONSCHEMA_INTERNAL_H
#define M1_GRAMMAR_JSONSCHEMA_INTERNAL_H

#include "grammar/jsonvalue.h"
#include "text/jsonparse.h"

/* A schema that is referred to, and the rule that it becomes. */
typedef struct m1_schema_rule
{
	const m1_json *schema;
	int rule;
	size_t path; /* where its path begins in the compiler's rule_paths */
} m1_schema_rule;

typedef struct m1_schema_compiler
{
	m1_nfa *nfa;
	const m1_json *root;
	m1_json_rules rules;
	m1_schema_rule *referred;
	size_t n_referred, cap_referred;
	uint32_t *places;  /* [values of the document]: of a schema that is referred to, its number from 1 on in referred */
	bool *inner;	   /* [values of the document]: it stands in a schema below the root that has an $id */
	size_t n_written;  /* of the referred ones */
	m1_buf rule_paths; /* NUL-terminated */
	m1_buf path;	   /* of the schema at hand: "#/properties/a" */
	int depth;
	size_t n_compared; /* by jsonschema_disjoint.c */
	m1_status status;  /* the first failure; what is written afterwards does not matter */
	m1_error *err;
} m1_schema_compiler;

/* Writes a schema's values in front of next. `key` (and index, when not negative) is what its path is longer by. */
int32_t m1_schema_write(m1_schema_compiler *c, const m1_json *schema, const char *key, const char *name, int index,
						int32_t next);
/* The same as a rule of its own. */
int m1_schema_rule_of(m1_schema_compiler *c, const m1_json *schema, const char *key, const char *name, int index);

/* jsonschema_parts.c: schema is an object, its keywords have been checked. */
int32_t m1_schema_object(m1_schema_compiler *c, const m1_json *schema, int32_t next);
int32_t m1_schema_array(m1_schema_compiler *c, const m1_json *schema, int32_t next);

/* The strings of an array, each of them once, so that one is found without the others. Freed with free(sorted). */
typedef struct m1_schema_names
{
	const m1_json **sorted; /* [n]: by their text; of equal ones the first; NULL when memory ran out */
	size_t n;
} m1_schema_names;

m1_schema_names m1_schema_names_of(const m1_json *array);
const m1_json *m1_schema_find_name(const m1_schema_names *names, const char *name); /* NULL: it is not there */

/* jsonschema_scalars.c */
int32_t m1_schema_string(m1_schema_compiler *c, const m1_json *schema, int32_t next);
int32_t m1_schema_number(m1_schema_compiler *c, const m1_json *schema, bool integer, int32_t next);
int32_t m1_schema_values(m1_schema_compiler *c, const m1_json *schema, int32_t next); /* enum or const */

/* A whole number of 0 .. M1_SCHEMA_MAX_COUNT; greater ones are refused, or cut when they are maxima. */
int m1_schema_count(m1_schema_compiler *c, const m1_json *schema, const char *key, int otherwise, bool cut);

/* jsonschema_disjoint.c: NULL when no value satisfies two of the alternatives; else why that is not certain. */
const char *m1_schema_overlap(m1_schema_compiler *c, const m1_json *alternatives);

/* The types a value may have; M1_KIND_INTEGER goes with M1_KIND_NUMBER. */
enum
{
	M1_KIND_OBJECT = 1,
	M1_KIND_ARRAY = 2,
	M1_KIND_STRING = 4,
	M1_KIND_NUMBER = 8,
	M1_KIND_INTEGER = 16,
	M1_KIND_BOOLEAN = 32,
	M1_KIND_NULL = 64,
	M1_KIND_ANY = 127
};

/* Of "type"; 0 when it is not a type or a list of them. */
int m1_schema_types(const m1_json *type);
int m1_schema_kind_of_value(const m1_json *value);
/* Follows a "$ref"; NULL when it leads nowhere in the document. */
const m1_json *m1_schema_target(const m1_json *root, const char *reference);

/* Remembers the first failure, with the path of the schema at hand. */
void m1_schema_fail(m1_schema_compiler *c, m1_status status, const char *fmt, ...) M1_PRINTF(3, 4);

#endif
