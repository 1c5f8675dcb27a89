/*
 * examples.h - the rows that a query gives: what is asked, and what rewards look at (examples.c).
 */
#ifndef M1PG_EXAMPLES_H
#define M1PG_EXAMPLES_H

#include "pg/m1pg.h"

#include "utils/jsonb.h"
#include "wire/message.h"

typedef struct M1Example
{
	Jsonb	   *row;			/* all of its columns */
	char	   *prompt;			/* in the server's encoding, as the next; NULL where the row is NULL */
	char	   *system_prompt;
	char	   *messages;
	char	   *tools;
	bool		held_out;		/* its column says so */
} M1Example;

typedef struct M1Examples
{
	M1Example  *rows;
	int			n;
	bool		divided;		/* there is a column held_out */
} M1Examples;

/*
 * Runs the query once, read only, as the role. `most`: so many of its rows, evenly chosen; 0 = all. Raises what is
 * wrong with it, and that all rows are more than most_bytes, if that is not 0. All is in the caller's memory context.
 */
extern void m1pg_examples_read(const char *query, Oid role, int most, Size most_bytes, M1Examples *examples);
/* Puts what is asked into a request. */
extern void m1pg_example_request(const M1Example *example, m1w_generate *g);

#endif							/* M1PG_EXAMPLES_H */
