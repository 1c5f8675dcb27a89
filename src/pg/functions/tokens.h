/*
 * tokens.h - the tokens of a text (tokens.c), for functions that have to measure one.
 */
#ifndef M1PG_TOKENS_H
#define M1PG_TOKENS_H

#include "pg/m1pg.h"

#include "base/buf.h"

/* Ids and end offsets of a UTF-8 text; palloc'd. false: *error, and nothing is left open. */
extern bool m1pg_try_tokenize(m1_slice utf8, const char *function, int32 **ids, int32 **ends, int *n,
							  m1_error *error);

#endif							/* M1PG_TOKENS_H */
