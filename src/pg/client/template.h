/*
 * template.h - prompt templates: text with {column} placeholders, and {{ and }}
 * for braces. A name with a brace is quoted as in SQL: {"name}"}.
 *
 * A template knows names only; who uses it finds the values. Values are not
 * looked at for placeholders. All memory is palloc'd.
 */
#ifndef M1PG_TEMPLATE_H
#define M1PG_TEMPLATE_H

#include "pg/m1pg.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/relcache.h"

#define M1PG_MAX_PLACEHOLDERS 64

typedef struct M1Template
{
	int			n;				/* placeholders */
	char	   *column[M1PG_MAX_PLACEHOLDERS];
	char	   *literal[M1PG_MAX_PLACEHOLDERS + 1]; /* before each, and after the last */
} M1Template;

/* A template bound to a relation: the attribute number of each placeholder. */
typedef struct M1BoundTemplate
{
	M1Template	text;
	int			number[M1PG_MAX_PLACEHOLDERS];
} M1BoundTemplate;

/* Raises 22023 for a malformed template. */
extern void m1pg_template_parse(M1Template *t, const char *s);
/* The prompt, or NULL when a value is NULL or the prompt would be empty. values[i] belongs to column[i]. */
extern char *m1pg_template_render(const M1Template *t, char *const *values);

/* Bytes, in UTF-8, that every prompt begins with: what precedes the first placeholder. */
extern uint32 m1pg_template_shared_len(const M1Template *t);

extern void m1pg_template_bind(M1BoundTemplate *t, const char *s, Relation rel);
extern char *m1pg_template_render_row(const M1BoundTemplate *t, HeapTuple row, TupleDesc tupdesc);
/* Whether both rows give the same prompt. */
extern bool m1pg_template_same_inputs(const M1BoundTemplate *t, HeapTuple a, HeapTuple b, TupleDesc tupdesc);

/* The number of a column; raises 42703 when there is none. */
extern int	m1pg_column_number(Relation rel, const char *name);
extern bool m1pg_same_value(HeapTuple a, HeapTuple b, TupleDesc tupdesc, int number);
/* A text as a value of a type; NULL is NULL, unless a domain refuses it. */
extern Datum m1pg_value_from_text(Oid type, int32 typmod, char *value);
/* The row with the column set to a text, converted by the column type's input function; NULL clears it. */
extern HeapTuple m1pg_set_column(HeapTuple row, TupleDesc tupdesc, int number, char *value);

#endif							/* M1PG_TEMPLATE_H */
