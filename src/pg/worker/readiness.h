/*
 * readiness.h - what there is of the engine, and what the world sees of it.
 *
 *   state     process         requests meanwhile   entered when                     left when
 *   --------  --------------  -------------------  -------------------------------  -----------------------------------
 *   STARTING  none; then it   wait                 the worker starts; an engine     it greets: READY
 *             loads                                that served is lost; a drain     its start fails: FAILED
 *                                                  is over; settings change while
 *                                                  none serves
 *   READY     serves          are admitted         the engine greets                settings change: DRAINING
 *                                                                                   it is lost: STARTING, but FAILED if
 *                                                                                   that has happened three times
 *                                                                                   since it was last well
 *   DRAINING  serves          those that run go    settings change while it is      nothing runs any more, or it is
 *                             on, others wait      READY                            lost: STARTING
 *   FAILED    none until      fail at once, with   a start fails; an engine does    it greets: READY
 *             next_try; then  the error            not stay up                      settings change: STARTING
 *             it loads
 *
 * An engine is well when it has been ready for 10 s. One that ends while it loads is
 * as if it had served, if an engine was well with these settings: it will be again,
 * and the pauses between tries grow to 5 s only, where they grow to 60 s otherwise. "Settings change" means that
 * a reload has changed its command line.
 *
 * Only engine_process.c makes these changes. The worker looks at its own copy;
 * m1pg_shared->model.readiness is the others', and changes with it.
 */
#ifndef M1PG_READINESS_H
#define M1PG_READINESS_H

#include "pg/shared.h"

extern const M1Readiness *m1pg_readiness(void);
extern void m1pg_set_readiness(const M1Readiness *now);
/* In FAILED: the error that requests fail with, and when the next try is. */
extern m1_error m1pg_refusal(void);

/* What the model view shows besides. */
extern void m1pg_publish_model(const m1w_ready *ready);
extern void m1pg_publish_snapshots(const m1w_cache *cache);
extern void m1pg_publish_restart(void);

#endif							/* M1PG_READINESS_H */
