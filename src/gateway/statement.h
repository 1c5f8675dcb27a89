/*
 * statement.h - one parameterised statement, as it is put together.
 *
 * What comes from a request is a parameter, or an identifier that is quoted; never SQL. A statement owns its texts, and
 * wipes them.
 */
#ifndef M1_GATEWAY_STATEMENT_H
#define M1_GATEWAY_STATEMENT_H

#include "base/buf.h"

#define GW_MAX_PARAMETERS 64

typedef struct gw_statement
{
	m1_buf sql;
	m1_buf values[GW_MAX_PARAMETERS]; /* NUL-terminated */
	int n_values;
	bool in_call; /* behind an argument */
	bool writes;  /* in a READ WRITE transaction */
	bool by_row;  /* rows are handed on as they come */
	bool failed;  /* memory ran out, or there are too many parameters */
} gw_statement;

void gw_sql(gw_statement *s, const char *sql);
/* An identifier, in quotes. */
void gw_sql_name(gw_statement *s, m1_slice name);
/* A parameter of that type; NULL: of the one that its place asks for. */
void gw_sql_value(gw_statement *s, m1_slice value, const char *type);
void gw_sql_number(gw_statement *s, long value, const char *type);
/* The next argument of a function call: name => parameter. gw_sql opens and closes the parentheses. */
void gw_sql_argument(gw_statement *s, const char *name, m1_slice value, const char *type);

/* Checks that it is whole, and ends its texts with NUL. */
bool gw_statement_finish(gw_statement *s);
void gw_statement_free(gw_statement *s);

#endif
