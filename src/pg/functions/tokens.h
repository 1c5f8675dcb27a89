/*
 * tokens.h - the tokens of a text (tokens.c), for functions that have to measure one.
 */
#ifndef M1PG_TOKENS_H
#define M1PG_TOKENS_H

#include "pg/m1pg.h"

#include "base/buf.h"

/* Both of a UTF-8 text. false: *error, and nothing is left open. */
extern bool m1pg_try_count_tokens(m1_slice utf8, const char *function, int *n, m1_error *error);
/* The byte offsets where its tokens end; palloc'd. */
extern bool m1pg_try_token_ends(m1_slice utf8, const char *function, int32 **ends, int *n, m1_error *error);

#endif							/* M1PG_TOKENS_H */
