/*
 * training_functions.c
 *	  wait_for_training(), and what the SQL functions of trainings need from C.
 */
#include "pg/jobs/guard.h"
#include "pg/jobs/waiting.h"
#include "pg/m1pg.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_is_current);
PG_FUNCTION_INFO_V1(m1pg_wait_for_training);

/* _is_current(xid): whether it is this transaction's, or of a part of it. */
Datum
m1pg_is_current(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TransactionIdIsCurrentTransactionId(DatumGetTransactionId(PG_GETARG_DATUM(0))));
}

/* Whoever waits for a training goes on with what it has made: that there is nothing is not left to be found out. */
static void
warn_of_failure(Oid caller, Datum training)
{
	Oid			types[2] = {OIDOID, NAMEOID};
	Datum		values[2] = {ObjectIdGetDatum(caller), training};
	M1Guard		guard;

	SPI_connect();
	guard = m1pg_become(m1pg_extension_owner(), false);
	if (m1pg_query("SELECT sqlstate, message, detail, hint FROM minimax_m1._training_failure($1, $2)", 2, types, values,
				   NULL, false) > 0)
	{
		const char *sqlstate = m1pg_result_text(CurrentMemoryContext, 0, 1);
		const char *detail = m1pg_result_text(CurrentMemoryContext, 0, 3);
		const char *hint = m1pg_result_text(CurrentMemoryContext, 0, 4);

		ereport(WARNING,
				(errcode(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4])),
				 errmsg("%s", m1pg_result_text(CurrentMemoryContext, 0, 2)),
				 detail != NULL ? errdetail("%s", detail) : 0,
				 hint != NULL ? errhint("%s", hint) : 0));
	}
	m1pg_unbecome(&guard);
	SPI_finish();
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
	warn_of_failure(GetUserId(), wait.value);
	PG_RETURN_VOID();
}
