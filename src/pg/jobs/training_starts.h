/*
 * training_starts.h - starts the process that trains (training_starts.c).
 */
#ifndef M1PG_TRAINING_STARTS_H
#define M1PG_TRAINING_STARTS_H

#include "pg/m1pg.h"

#include "datatype/timestamp.h"

#define M1PG_TRAINING_PROCESS "minimax_m1 training"	/* what pg_stat_activity calls it */

/*
 * For the job runner, in a turn: starts the process if a training waits and there is none. Returns when to look again;
 * 0 = nothing waits.
 */
extern TimestampTz m1pg_trainings_look(void);

#endif							/* M1PG_TRAINING_STARTS_H */
