/*
 * statement.h - what a statement of this backend has used, and its caps (statement.c).
 */
#ifndef M1PG_STATEMENT_H
#define M1PG_STATEMENT_H

#include "pg/shared.h"

/*
 * A request is about to be made: raises an error when a cap of the statement is
 * reached. Returns the tokens that all requests under way may take; 0 = no limit.
 */
extern int64 m1pg_statement_check(const char *function, m1w_type type);
/* It has been admitted. */
extern void m1pg_statement_call(const char *function, m1w_type type);
/* It is over, and this is what its slot says. The lock is to be held. */
extern void m1pg_statement_end(const M1Slot *slot);

#endif							/* M1PG_STATEMENT_H */
