/*
 * rewards.h - what the ready rewards share: the columns of an example (rewards.c).
 */
#ifndef M1PG_REWARDS_H
#define M1PG_REWARDS_H

#include "pg/m1pg.h"

#include "utils/jsonb.h"

/* A column of the example, or NULL where it is NULL. Raises 42703 when the example has no such column. */
extern JsonbValue *m1pg_example_column(Jsonb *example, const char *column);
/* The same as text; of a value that is no string, its JSON. */
extern char *m1pg_example_text(Jsonb *example, const char *column);
/* The same, NULL also where there is no such column. */
extern char *m1pg_example_optional_text(Jsonb *example, const char *column);
/* Raises what an attempt has failed with as what is wrong with the example: "query failed". */
pg_noreturn extern void m1pg_raise_of_example(ErrorData *error, const char *what);

#endif							/* M1PG_REWARDS_H */
