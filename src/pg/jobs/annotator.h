/*
 * annotator.h - an annotator's definition, and the rows of its table (annotator.c).
 */
#ifndef M1PG_ANNOTATOR_H
#define M1PG_ANNOTATOR_H

#include "pg/m1pg.h"

#include "wire/message.h"

typedef struct M1Annotator
{
	int			id;
	char	   *version;		/* changes with the definition */
	char	   *name;
	Oid			owner;
	Oid			source;
	char	  **key_columns;
	int			n_keys;
	char	   *target_column;
	char	   *reasoning_column;	/* NULL = none, as the next */
	char	   *status_column;
	char	   *template;
	bool		sync;
	bool		enabled;
	int			max_attempts;
	m1w_generate request;		/* with the options, in UTF-8; no prompt yet */
} M1Annotator;

/* By name, or by id when name is NULL. Lives in `context`; NULL when there is none. */
extern M1Annotator *m1pg_annotator_load(const char *name, int id, MemoryContext context);

/* The statements that reach a row of its table. */
typedef struct M1Rows M1Rows;

extern M1Rows *m1pg_rows_open(const M1Annotator *a, MemoryContext context);

typedef enum M1RowState
{
	M1_ROW_GONE,
	M1_ROW_LOCKED,				/* by somebody else */
	M1_ROW_FOUND
} M1RowState;

/*
 * All run as the table's owner, once the annotator's owner has been found to
 * have the rights that it takes. Read gives the prompt, or NULL when a column
 * of it is NULL, and with `lock` keeps others from changing the row.
 */
extern M1RowState m1pg_row_read(const M1Rows *rows, char *const *key, bool lock, char **prompt);
extern void m1pg_row_write(const M1Rows *rows, char *const *key, char *content, char *reasoning, const char *status);
extern void m1pg_row_write_status(const M1Rows *rows, char *const *key, const char *status);

#endif							/* M1PG_ANNOTATOR_H */
