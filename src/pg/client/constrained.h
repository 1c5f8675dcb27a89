/*
 * constrained.h - requests whose answer is constrained (constrained.c), for the
 * operators. Functions that return false have filled *error and left nothing open.
 */
#ifndef M1PG_CONSTRAINED_H
#define M1PG_CONSTRAINED_H

#include "pg/m1pg.h"

#include "fmgr.h"
#include "wire/message.h"

/* "{task}\n\n{document}" as the prompt; false: the document is empty. */
extern bool m1pg_read_task(m1w_generate *g, const char *task, const text *document, m1_error *error);
/* The text of the constraint is in the server's encoding. */
extern void m1pg_constrain(m1w_generate *g, m1w_constraint kind, const char *constraint);
/* Which arguments of a function say what form answers have, by number. */
typedef struct M1FormArguments
{
	int			json_schema;
	int			choices;
	int			regex;
} M1FormArguments;

/* The form that one of them gives, if any; raises that there are two. */
extern void m1pg_read_form(FunctionCallInfo fcinfo, M1FormArguments args, m1w_generate *g);
/* false: a constrained answer was cut off. */
extern bool m1pg_check_complete(const m1w_done *done, m1_error *error);
/* Runs to the end of the answer: one that was cut off is an error. The answer is in the server's encoding. */
extern bool m1pg_run_constrained(const m1w_generate *g, const char *function, char **answer, m1_error *error);

#endif							/* M1PG_CONSTRAINED_H */
