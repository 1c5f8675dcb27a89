/*
 * partition_rows.h - where rows of partitioned tables belong (partition_rows.c).
 */
#ifndef M1PG_PARTITION_ROWS_H
#define M1PG_PARTITION_ROWS_H

#include "pg/jobs/annotator.h"

#include "access/htup.h"
#include "utils/relcache.h"

/* Whether a row, in the form of `rel`, may be in a table of the same family; every row may in what is no partition. */
extern bool m1pg_row_fits(Oid table, Relation rel, HeapTuple row);
/* Whether the row goes where another annotator fills the same column. It needs an SPI connection of the caller's. */
extern bool m1pg_row_meets_another(const M1Annotator *a, Relation rel, HeapTuple row);

#endif							/* M1PG_PARTITION_ROWS_H */
