/*
 * guard.h - acting as another role, and queries for jobs and annotators (guard.c).
 */
#ifndef M1PG_GUARD_H
#define M1PG_GUARD_H

#include "pg/m1pg.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"

typedef struct M1Guard
{
	Oid			userid;
	int			context;
	int			nest;
} M1Guard;

/*
 * From here to m1pg_unbecome, or to the end of the (sub)transaction, the
 * current user is the role, search_path is pg_catalog, pg_temp, and values are
 * written as text that any session reads alike. `restricted`: for code that the
 * role has written; nothing of it outlives the operation.
 */
extern M1Guard m1pg_become(Oid role, bool restricted);
extern void m1pg_unbecome(const M1Guard *guard);
/* Sets a setting up to the end of the GUC nest level. */
extern void m1pg_set_for_now(const char *name, const char *value);
/* Who owns the extension's tables; InvalidOid when they are not there. */
extern Oid	m1pg_extension_owner(void);
/* For functions that act as others: an error unless the current user is the extension's owner, or a superuser. */
extern void m1pg_require_owner(FunctionCallInfo fcinfo);
/* SPI_execute_with_args, or an error. Returns the number of rows. */
extern uint64 m1pg_query(const char *sql, int n, Oid *types, Datum *values, const char *nulls, bool read_only);
/* A column of row i of the last query as a string in `context`, or NULL. */
extern char *m1pg_result_text(MemoryContext context, uint64 i, int column);
extern Datum m1pg_result(uint64 i, int column, bool *isnull);
/* A text[] without NULLs as strings. */
extern char **m1pg_text_array(ArrayType *array, int *n);
/* And back. */
extern ArrayType *m1pg_array_of_texts(char *const *strings, int n);

#endif							/* M1PG_GUARD_H */
