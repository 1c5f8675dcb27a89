/*
 * rows.h - what SQL functions that return rows share (rows.c).
 */
#ifndef M1PG_ROWS_H
#define M1PG_ROWS_H

#include "pg/m1pg.h"

#include "fmgr.h"

/* Prepares a set-returning function for rows in a tuplestore. Without shared memory there is nothing to show. */
extern void m1pg_start_rows(FunctionCallInfo fcinfo);
/* Whether the current user may see what belongs to a role. */
extern bool m1pg_may_see(Oid role);

#endif							/* M1PG_ROWS_H */
