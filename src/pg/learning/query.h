/*
 * query.h - one query of somebody else's, through SPI (query.c).
 */
#ifndef M1PG_QUERY_H
#define M1PG_QUERY_H

#include "pg/m1pg.h"

#include "executor/spi.h"

/* Opens a cursor, read only. Raises 42601 unless it is one SELECT or VALUES, and nothing behind it. */
extern Portal m1pg_open_query(const char *sql);

#endif							/* M1PG_QUERY_H */
