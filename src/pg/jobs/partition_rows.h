/*
 * partition_rows.h - where rows of partitioned tables belong (partition_rows.c).
 */
#ifndef M1PG_PARTITION_ROWS_H
#define M1PG_PARTITION_ROWS_H

#include "pg/jobs/annotator.h"

#include "access/htup.h"
#include "utils/relcache.h"

/* Which rows may be in a partition. */
typedef struct M1PartitionCheck M1PartitionCheck;

/* For rows in the form of `rel`, of the same family; lives as long as the context. NULL: the table is no partition. */
extern M1PartitionCheck *m1pg_partition_check(Oid table, Relation rel, MemoryContext context);
/* Every row may be in what is no partition. */
extern bool m1pg_row_fits(const M1PartitionCheck *check, HeapTuple row);
/* Whether the row goes where another annotator fills the same column. It needs an SPI connection of the caller's. */
extern bool m1pg_row_meets_another(const M1Annotator *a, Relation rel, HeapTuple row);

#endif							/* M1PG_PARTITION_ROWS_H */
