/*
 * parameters.c
 *	  What a statement is given, value by value.
 */
#include "pg/jobs/parameters.h"
#include "pg/jobs/guard.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"

void
m1pg_add_parameter(M1Parameters *p, Oid type, Datum value, bool isnull)
{
	if (p->n == M1PG_MOST_PARAMETERS)
		elog(ERROR, "minimax_m1: a statement has more than %d parameters", M1PG_MOST_PARAMETERS);
	p->types[p->n] = type;
	p->values[p->n] = value;
	p->nulls[p->n++] = isnull ? 'n' : ' ';
}

void
m1pg_add_int(M1Parameters *p, int value)
{
	m1pg_add_parameter(p, INT4OID, Int32GetDatum(value), false);
}

void
m1pg_add_float(M1Parameters *p, double value)
{
	m1pg_add_parameter(p, FLOAT8OID, Float8GetDatum(value), isnan(value));
}

void
m1pg_add_text(M1Parameters *p, text *value)
{
	m1pg_add_parameter(p, TEXTOID, PointerGetDatum(value), value == NULL);
}

void
m1pg_add_string(M1Parameters *p, const char *value)
{
	m1pg_add_text(p, value != NULL ? cstring_to_text(value) : NULL);
}

uint64
m1pg_query_with(const char *sql, M1Parameters *p)
{
	return m1pg_query(sql, p->n, p->types, p->values, p->nulls, false);
}
