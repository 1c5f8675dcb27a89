/*
 * detached.h - requests of a background process, of which no transaction is open while the model works (detached.c).
 */
#ifndef M1PG_DETACHED_H
#define M1PG_DETACHED_H

#include "pg/client/exchange.h"

/* Opens a request, as m1pg_exchange_try_open does. */
typedef M1Exchange *(*M1Opener) (void *arg, m1_error *error);

/*
 * Runs the opener as the role, in a transaction that ends before this returns. The exchange is in the memory context of
 * the caller, until it is closed. An error that is raised leaves open what was opened before: the process is to end.
 */
extern M1Exchange *m1pg_open_detached(Oid role, M1Opener open, void *arg, m1_error *error);

#endif							/* M1PG_DETACHED_H */
