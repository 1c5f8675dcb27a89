/*
 * annotator_rows.h - the rows of an annotator's table (annotator_rows.c).
 */
#ifndef M1PG_ANNOTATOR_ROWS_H
#define M1PG_ANNOTATOR_ROWS_H

#include "pg/jobs/annotator.h"

/* The statements that reach a row of its table. */
typedef struct M1Rows M1Rows;

extern M1Rows *m1pg_rows_open(const M1Annotator *a, MemoryContext context);

typedef enum M1RowState
{
	M1_ROW_GONE,
	M1_ROW_LOCKED,				/* by somebody else */
	M1_ROW_FOUND
} M1RowState;

/* Of a row that was read. */
typedef struct M1Row
{
	char	   *prompt;			/* NULL when a column of it is */
	char	   *target;			/* as text, as the next; NULL is NULL */
	char	   *status;			/* or there is no such column */
} M1Row;

/*
 * All run as the table's owner, once the annotator's owner has been found to
 * have the rights that it takes. Read with `lock` keeps others from changing
 * the row.
 */
extern M1RowState m1pg_row_read(const M1Rows *rows, char *const *key, bool lock, M1Row *row);
extern void m1pg_row_write(const M1Rows *rows, char *const *key, char *content, char *reasoning, const char *status);
extern void m1pg_row_write_status(const M1Rows *rows, char *const *key, const char *status);
/* Whether a trigger that asks runs because of m1pg_row_write: an annotation is written, not changed by hand. */
extern bool m1pg_row_is_being_written(void);

#endif							/* M1PG_ANNOTATOR_ROWS_H */
