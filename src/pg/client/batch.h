/*
 * batch.h - many requests at once (batch.c).
 */
#ifndef M1PG_BATCH_H
#define M1PG_BATCH_H

#include "pg/client/request.h"

typedef struct M1Batch
{
	int			n;
	const char *function;
	void	   *arg;
	/*
	 * As whom, where no transaction is open: each request is opened in one of its own, and none is open while the model
	 * works. InvalidOid: as whoever calls, in the transaction that is open.
	 */
	Oid			role;
	/* Fills request i of n. false: there is none to run, *error says why. */
	bool		(*request) (void *arg, int i, m1w_generate *g, m1_error *error);
	/* Its end, in any order: result, or else error. Both live during the call. */
	void		(*finish) (void *arg, int i, const M1Result *result, const m1_error *error);
} M1Batch;

/* Returns when all are finished. An interrupt is raised, and cancels all. */
extern void m1pg_run_batch(const M1Batch *batch);

#endif							/* M1PG_BATCH_H */
