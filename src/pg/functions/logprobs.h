/*
 * logprobs.h - the log probabilities of tokens, as the engine tells them (logprobs.c).
 */
#ifndef M1PG_LOGPROBS_H
#define M1PG_LOGPROBS_H

#include "pg/m1pg.h"

#include "base/buf.h"

/*
 * The same JSON, in a database that is not in UTF-8 with \uXXXX for what its encoding may lack: parts of characters,
 * and characters of tokens that were only likely. Raises that it is not what m1w_done.logprobs is.
 */
extern m1_slice m1pg_read_logprobs(m1_slice json);

#endif							/* M1PG_LOGPROBS_H */
