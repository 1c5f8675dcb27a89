/*
 * job_definition.h - the definitions of annotators that a runner works with
 * (job_definition.c).
 */
#ifndef M1PG_JOB_DEFINITION_H
#define M1PG_JOB_DEFINITION_H

#include "pg/jobs/annotator_rows.h"

/* An annotator, as it was when this turn first needed it. */
typedef struct M1Definition
{
	int			id;
	M1Annotator *annotator;		/* NULL: it is gone */
	M1Rows	   *rows;
	bool		blocked;		/* the table is locked: no use in trying more of its rows */
} M1Definition;

extern void m1pg_definitions_init(void);
/* Lives to the end of the turn. */
extern M1Definition *m1pg_definition(int id);
extern void m1pg_definitions_end_turn(void);

#endif							/* M1PG_JOB_DEFINITION_H */
