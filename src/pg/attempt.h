/*
 * attempt.h - running what may fail, or never end, and going on (attempt.c).
 */
#ifndef M1PG_ATTEMPT_H
#define M1PG_ATTEMPT_H

#include "pg/m1pg.h"

typedef struct M1Attempt
{
	void		(*run) (void *arg);
	void	   *arg;
	bool		keep;			/* what it has done stays, if it came to its end; else it is rolled back */
	bool		read_only;		/* as for code that others have written: nothing is changed, no role is set */
	Oid			role;			/* as whom, if read_only */
	int			limit_ms;		/* 0 = no limit but that of the attempt around it */
	bool		out_of_time;	/* out */
} M1Attempt;

/*
 * Runs it in a subtransaction. NULL: it came to its end, and what it has made in the
 * caller's memory context is there. Else why not, in that context. A cancel of the user's and the like are raised.
 */
extern ErrorData *m1pg_attempt(M1Attempt *attempt);

/*
 * Set by a process that others wait for: it is ended when what is run catches the cancel and goes on for as long as its
 * limit was once more. And whether that is why it ends.
 */
extern bool m1pg_attempt_ends_process;
extern bool m1pg_attempt_was_overdue(void);

/* When the library is loaded: from then on, what attempts do that are read only is watched. */
extern void m1pg_watch_attempts(void);

/* That the current user may call a function, which others have written; the error calls it by this name. */
extern void m1pg_check_execute(Oid function, const char *name);

#endif							/* M1PG_ATTEMPT_H */
