/*
 * training_functions.c
 *	  wait_for_training(), and what the SQL functions of trainings need from C.
 */
#include "pg/jobs/waiting.h"
#include "pg/m1pg.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_is_current);
PG_FUNCTION_INFO_V1(m1pg_wait_for_training);

/* _is_current(xid): whether it is this transaction's, or of a part of it. */
Datum
m1pg_is_current(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TransactionIdIsCurrentTransactionId(DatumGetTransactionId(PG_GETARG_DATUM(0))));
}

/* wait_for_training(name, timeout) */
Datum
m1pg_wait_for_training(PG_FUNCTION_ARGS)
{
	M1Wait		wait = {
		.procedure = "wait_for_training", .what = "trainings", .one = "a training",
		.sql = "SELECT unfinished, own FROM minimax_m1._training_unfinished($1, $2)", .type = NAMEOID,
		.hint = "It goes on; the view minimax_m1.training tells its state.", .look_ms = 1000
	};

	if (PG_ARGISNULL(0))
		PG_RETURN_VOID();
	/* the argument's own memory may end with the transaction */
	wait.value = DirectFunctionCall1(namein, CStringGetDatum(NameStr(*PG_GETARG_NAME(0))));
	m1pg_wait(fcinfo, &wait);
	PG_RETURN_VOID();
}
