/*
 * logprobs.h - the log probabilities of tokens, as the engine tells them (logprobs.c).
 */
#ifndef M1PG_LOGPROBS_H
#define M1PG_LOGPROBS_H

#include "pg/m1pg.h"

#include "base/buf.h"

/* Raises that they are not what m1w_done.logprobs is, before anybody reads them. */
extern void m1pg_check_logprobs(m1_slice json);

/*
 * The same JSON, in a database that is not in UTF-8 with \uXXXX for what its encoding may lack: parts of characters,
 * and characters of tokens that were only likely.
 */
extern m1_slice m1pg_logprobs_for_database(m1_slice json);

#endif							/* M1PG_LOGPROBS_H */
