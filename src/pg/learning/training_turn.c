/*
 * training_turn.c
 *	  See training_turn.h.
 */
#include "pg/learning/training_turn.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/parameters.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/ipc.h"
#include "utils/snapmgr.h"

/* With the extension went all that this process is for. In the engine, it is given up when others want room. */
static Oid
owner_of_tables(void)
{
	if (!OidIsValid(m1pg_extension_owner()))
		proc_exit(0);
	return m1pg_extension_owner();
}

M1TrainingTurn
m1pg_begin_training_turn(void)
{
	M1TrainingTurn turn = {.context = CurrentMemoryContext};

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	turn.guard = m1pg_become(owner_of_tables(), false);
	return turn;
}

void
m1pg_end_training_turn(const M1TrainingTurn *turn)
{
	m1pg_unbecome(&turn->guard);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(turn->context);
}

uint64
m1pg_query_training(const M1Training *t, const char *sql)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(t->id)};

	return m1pg_query(sql, 1, types, values, NULL, false);
}
