/*
 * waiting.h - procedures that wait until something of the queue has ended (waiting.c).
 */
#ifndef M1PG_WAITING_H
#define M1PG_WAITING_H

#include "pg/m1pg.h"

#include "fmgr.h"

typedef struct M1Wait
{
	const char *procedure;		/* the words of its errors: who waits, for what, and for one of it */
	const char *what;
	const char *one;
	const char *hint;			/* of a wait that took too long */
	long		look_ms;		/* it looks again after this, also if nobody has told of an end */
	/*
	 * The caller's OID is $1, what is waited for $2. The row: how many of it have not
	 * ended, and whether one of those is this transaction's own.
	 */
	const char *sql;
	Oid			type;			/* of $2 */
	Datum		value;			/* lives as long as the call */
} M1Wait;

/*
 * Returns when all has ended; argument 1 of the call, an interval, is the most that this may take. Holds no snapshot
 * meanwhile, and no transaction where the caller allows. Raises what keeps it from waiting.
 */
extern void m1pg_wait(FunctionCallInfo fcinfo, const M1Wait *wait);

#endif							/* M1PG_WAITING_H */
