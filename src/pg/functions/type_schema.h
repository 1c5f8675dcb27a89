/*
 * type_schema.h - PostgreSQL types in the words of JSON Schema (type_schema.c), for
 * classify() and extract(). Texts are palloc'd, in the server's encoding.
 */
#ifndef M1PG_TYPE_SCHEMA_H
#define M1PG_TYPE_SCHEMA_H

#include "pg/m1pg.h"

#include "access/tupdesc.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/* The schema of an object with the columns of a row, all of them required; a column that may be NULL may be null. */
extern char *m1pg_schema_of_row(TupleDesc tupdesc);
/* The schema of a type's values, or of null beside them. */
extern char *m1pg_schema_of_type(Oid type, bool nullable);
/* The names of its columns as a prompt lists them, those of a nested row in parentheses: "a, b (c, d)". */
extern char *m1pg_names_of_row(TupleDesc tupdesc);
/* The labels of an enum as C strings, in their order. */
extern List *m1pg_enum_labels(Oid type);
/* ["a", "b"] of C strings. */
extern void m1pg_append_json_strings(StringInfo s, const List *strings);

#endif							/* M1PG_TYPE_SCHEMA_H */
