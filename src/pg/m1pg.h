/*
 * m1pg.h - what every file of the PostgreSQL side begins with: the server's own
 * header, where its versions differ for all, and how pure C reports failure.
 * README.md lists the rooms.
 */
#ifndef M1PG_H
#define M1PG_H

#include "postgres.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "base/status.h"

#if PG_VERSION_NUM < 140000
#error "minimax_m1 needs PostgreSQL 14 or later"
#endif

/* PostgreSQL 18 writes it before the declaration. */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

#endif							/* M1PG_H */
