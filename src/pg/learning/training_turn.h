/*
 * training_turn.h
 *	  The transactions in which the process of a training reads and writes its
 *	  rows: short ones, as the extension's owner, none of which is open while the
 *	  model works.
 */
#ifndef M1PG_TRAINING_TURN_H
#define M1PG_TRAINING_TURN_H

#include "pg/jobs/guard.h"
#include "pg/learning/training.h"

/* In SQL: the training is this process's, and goes on being it. */
#define M1PG_TRAINING_LEASE	"leased_by = pg_backend_pid(), leased_until = clock_timestamp() + '1 hour'"

typedef struct M1TrainingTurn
{
	MemoryContext context;		/* that is current before and after it */
	M1Guard		guard;
} M1TrainingTurn;

/* Ends the process where the extension has been dropped. */
extern M1TrainingTurn m1pg_begin_training_turn(void);
extern void m1pg_end_training_turn(const M1TrainingTurn *turn);
/* A statement about one training, whose id is its $1. Returns its rows. */
extern uint64 m1pg_query_training(const M1Training *t, const char *sql);

#endif							/* M1PG_TRAINING_TURN_H */
