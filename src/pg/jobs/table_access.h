/*
 * table_access.h - as whom an annotator reaches its table (table_access.c).
 */
#ifndef M1PG_TABLE_ACCESS_H
#define M1PG_TABLE_ACCESS_H

#include "pg/jobs/guard.h"

#include "access/attnum.h"

/* The columns that an annotator reads and fills, and for whom. */
typedef struct M1TableAccess
{
	Oid			role;			/* the annotator's owner */
	Oid			table;
	int			n_read;
	AttrNumber *read;
	int			n_filled;
	AttrNumber *filled;
} M1TableAccess;

/*
 * Becomes the table's owner, to m1pg_unbecome. Raises an error unless the role
 * may read and fill the columns, and it is safe to do that as the table's owner.
 * Until the end of the transaction nobody changes what that depends on.
 * `update`: rows will be changed, not only read.
 */
extern M1Guard m1pg_become_table_owner(const M1TableAccess *access, bool update);
/* As the table's owner: the partition that a row is in must be as safe as its table is. */
extern void m1pg_check_partition(const M1TableAccess *access, Oid partition);
/* InvalidOid: there is no such table. */
extern Oid	m1pg_table_owner(Oid table);

#endif							/* M1PG_TABLE_ACCESS_H */
