/*
 * annotator.h - an annotator's definition (annotator.c).
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
	char	   *adapter;		/* NULL = the model without one */
	m1w_generate request;		/* with the options, in UTF-8; no prompt yet */
} M1Annotator;

/* By name, or by id when name is NULL. Lives in `context`; NULL when there is none. */
extern M1Annotator *m1pg_annotator_load(const char *name, int id, MemoryContext context);

#endif							/* M1PG_ANNOTATOR_H */
