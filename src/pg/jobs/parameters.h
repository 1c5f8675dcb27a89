/*
 * parameters.h - the parameters of a statement, in the making (parameters.c).
 */
#ifndef M1PG_PARAMETERS_H
#define M1PG_PARAMETERS_H

#include "pg/m1pg.h"

#define M1PG_MOST_PARAMETERS 64

/* $1 to $n; all zero: none. */
typedef struct M1Parameters
{
	int			n;
	Oid			types[M1PG_MOST_PARAMETERS];
	Datum		values[M1PG_MOST_PARAMETERS];
	char		nulls[M1PG_MOST_PARAMETERS];
} M1Parameters;

extern void m1pg_add_parameter(M1Parameters *p, Oid type, Datum value, bool isnull);
extern void m1pg_add_int(M1Parameters *p, int value);
/* NaN is NULL. */
extern void m1pg_add_float(M1Parameters *p, double value);
/* So is no text, in either form. */
extern void m1pg_add_text(M1Parameters *p, text *value);
extern void m1pg_add_string(M1Parameters *p, const char *value);
/* m1pg_query, which changes something, with them. */
extern uint64 m1pg_query_with(const char *sql, M1Parameters *p);

#endif							/* M1PG_PARAMETERS_H */
