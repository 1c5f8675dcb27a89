/*
 * job_databases.c
 *	  What is done to databases as a whole. One that is created, and may come with a
 *	  queue, or that can be connected to again is looked at when that has committed.
 *	  And PostgreSQL copies, renames, moves and drops a database only while nobody
 *	  is connected, for which it waits 5 s: the runner of its jobs makes way.
 *
 *	  Hooks of all sessions.
 */
#include "pg/jobs/job_shared.h"
#include "pg/jobs/jobs.h"
#include "pg/shared.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

static object_access_hook_type next_object_access_hook = NULL;
static ProcessUtility_hook_type next_process_utility_hook = NULL;

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (next_object_access_hook != NULL)
		next_object_access_hook(access, class, object, sub, arg);
	if (class == DatabaseRelationId && (access == OAT_POST_CREATE || access == OAT_POST_ALTER))
		m1pg_database_note(object);
}

/* ---- making way ---- */

static const DefElem *
option(const List *options, const char *name)
{
	const ListCell *cell;

	foreach(cell, options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return lfirst_node(DefElem, cell);
	return NULL;
}

/* The database that nobody may be connected to while the statement is executed; NULL = there is none. */
static const char *
wanted_alone(const Node *statement)
{
	const DefElem *template;

	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
			template = option(castNode(CreatedbStmt, statement)->options, "template");
			return template != NULL && template->arg != NULL ? defGetString(unconstify(DefElem *, template)) :
				"template1";
		case T_RenameStmt:
			return castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE ?
				castNode(RenameStmt, statement)->subname : NULL;
		case T_AlterDatabaseStmt:
			return option(castNode(AlterDatabaseStmt, statement)->options, "tablespace") != NULL ?
				castNode(AlterDatabaseStmt, statement)->dbname : NULL;
		case T_DropdbStmt:
			return castNode(DropdbStmt, statement)->dbname;
		default:
			return NULL;
	}
}

static bool
owns(Oid database)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
#else
	return pg_database_ownercheck(database, GetUserId());
#endif
}

/* A template may be copied by whoever creates databases. */
static bool
may_copy(Oid database)
{
	HeapTuple	role = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	HeapTuple	template = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		may = HeapTupleIsValid(role) && ((Form_pg_authid) GETSTRUCT(role))->rolcreatedb &&
		HeapTupleIsValid(template) && ((Form_pg_database) GETSTRUCT(template))->datistemplate;

	if (HeapTupleIsValid(role))
		ReleaseSysCache(role);
	if (HeapTupleIsValid(template))
		ReleaseSysCache(template);
	return may;
}

static void
on_utility(PlannedStmt *plan, const char *query, bool read_only_tree, ProcessUtilityContext context,
		   ParamListInfo params, QueryEnvironment *environment, DestReceiver *destination, QueryCompletion *completion)
{
	const char *name = wanted_alone(plan->utilityStmt);
	const Oid	database = name != NULL ? get_database_oid(name, true) : InvalidOid;

	if (OidIsValid(database) && m1pg_shared != NULL &&
		(owns(database) || (IsA(plan->utilityStmt, CreatedbStmt) && may_copy(database))))
		m1pg_runner_make_way(database);
	(next_process_utility_hook != NULL ? next_process_utility_hook : standard_ProcessUtility)
		(plan, query, read_only_tree, context, params, environment, destination, completion);
}

void
m1pg_watch_databases(void)
{
	next_object_access_hook = object_access_hook;
	object_access_hook = on_object_access;
	next_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
