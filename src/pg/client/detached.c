/*
 * detached.c
 *	  Requests that outlive the transaction that opens them.
 *
 *	  Opening looks at the catalogs, for quotas and encodings; what follows does
 *	  not, and may take long.
 */
#include "pg/client/detached.h"

#include "access/xact.h"
#include "miscadmin.h"

M1Exchange *
m1pg_open_detached(Oid role, M1Opener open, void *arg, m1_error *error)
{
	MemoryContext context = CurrentMemoryContext;
	M1Exchange *exchange;
	Oid			userid;
	int			security;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	GetUserIdAndSecContext(&userid, &security);
	SetUserIdAndSecContext(role, security | SECURITY_LOCAL_USERID_CHANGE);
	exchange = open(arg, error);
	if (exchange != NULL)
		m1pg_exchange_pin(exchange);
	SetUserIdAndSecContext(userid, security);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return exchange;
}
