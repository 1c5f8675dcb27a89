/*
 * table_access.c
 *	  As whom an annotator reaches its table, and when it may not.
 *
 *	  An UPDATE runs code that the table's owner has chosen: triggers, rules, row
 *	  security, checks, domains, generated columns, index expressions. It is run as
 *	  the table's owner, never as the annotator's, who may have rights that the
 *	  table's owner has not. The annotator's owner needs the rights that reading
 *	  and filling the columns takes; they are looked at each time.
 *
 *	  The other way round, an annotator must not lend the rights of the table's
 *	  owner: row security is not passed by, and a trigger counts as the owner's
 *	  only if its code belongs to the owner or a superuser, unless the annotator's
 *	  owner has the rights of the table's owner anyway.
 */
#include "pg/jobs/table_access.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(m1pg_check_annotated_table);

/* ---- rights on columns ---- */

static void
check_columns(const M1TableAccess *access, const AttrNumber *columns, int n, AclMode mode)
{
	if (pg_class_aclcheck(access->table, access->role, mode) == ACLCHECK_OK)
		return;
	for (int i = 0; i < n; i++)
		if (pg_attribute_aclcheck(access->table, columns[i], access->role, mode) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(access->table));
}

/* ---- row security ---- */

/* Policies would be run as the role that they hold for, or passed by. */
static void
check_row_security(Oid table, Oid role)
{
	if (check_enable_rls(table, role, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("minimax_m1: row security of table \"%s\" holds for role \"%s\"",
						get_rel_name(table), GetUserNameFromId(role, false)),
				 errdetail("An annotator reads and fills rows as the table's owner, and passes no policy by."),
				 errhint("Let a role own the annotator, and one the table, for which row security does not hold.")));
}

/* ---- code of third roles ---- */

/* Whether a function does nothing with the rights of the owner that others than the owner could have made it do. */
static bool
is_trusted(Oid function, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		trusted;

	if (!HeapTupleIsValid(tuple))
		return false;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	trusted = proc->proowner == owner || proc->prosecdef || superuser_arg(proc->proowner);
	ReleaseSysCache(tuple);
	return trusted;
}

static bool
is_distrusted(Oid function, void *owner)
{
	return !is_trusted(function, *(Oid *) owner);
}

static bool
calls_distrusted(Node *node, void *owner)
{
	return node != NULL &&
		(check_functions_in_node(node, is_distrusted, owner) ||
		 expression_tree_walker(node, calls_distrusted, owner));
}

static void
check_trigger(const Trigger *trigger, Relation rel)
{
	Oid			owner = rel->rd_rel->relowner;

	if (trigger->tgenabled == TRIGGER_DISABLED || !TRIGGER_FOR_UPDATE(trigger->tgtype))
		return;
	if (is_trusted(trigger->tgfoid, owner) &&
		(trigger->tgqual == NULL || !calls_distrusted(stringToNode(trigger->tgqual), &owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("minimax_m1: trigger \"%s\" of table \"%s\" belongs to neither its owner nor a superuser",
					trigger->tgname, RelationGetRelationName(rel)),
			 errdetail("Annotations are written as the table's owner, whose rights the trigger's code would have."),
			 errhint("Let the table's owner create the annotator, or own the trigger's functions.")));
}

static void
check_triggers(Oid table)
{
	Relation	rel = table_open(table, NoLock);

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		check_trigger(&rel->trigdesc->triggers[i], rel);
	table_close(rel, NoLock);
}

/* ---- all of it ---- */

Oid
m1pg_table_owner(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* The lock keeps owner and row security as they are, and for an update the triggers. */
static Oid
lock_and_find_owner(Oid table, bool update)
{
	Oid			owner;

	LockRelationOid(table, update ? RowExclusiveLock : AccessShareLock);
	owner = m1pg_table_owner(table);
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("minimax_m1: the table of an annotator is gone")));
	return owner;
}

static Oid
check_and_find_owner(const M1TableAccess *access, bool update)
{
	Oid			owner = lock_and_find_owner(access->table, update);

	check_columns(access, access->read, access->n_read, ACL_SELECT);
	check_columns(access, access->filled, access->n_filled, ACL_UPDATE);
	check_row_security(access->table, access->role);
	check_row_security(access->table, owner);
	if (update && !has_privs_of_role(access->role, owner))
		check_triggers(access->table);
	return owner;
}

M1Guard
m1pg_become_table_owner(const M1TableAccess *access, bool update)
{
	return m1pg_become(check_and_find_owner(access, update), true);
}

void
m1pg_check_partition(const M1TableAccess *access, Oid partition)
{
	Oid			owner;

	if (partition == access->table)
		return;
	owner = lock_and_find_owner(partition, true);
	if (owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("minimax_m1: partition \"%s\" does not belong to the owner of table \"%s\"",
						get_rel_name(partition), get_rel_name(access->table)),
				 errdetail("Its code would be run with the rights of the table's owner."),
				 errhint("Give both to one role.")));
	if (!has_privs_of_role(access->role, owner))
		check_triggers(partition);
}

/* _check_annotated_table(role, table): what does not depend on columns, for definitions. */
Datum
m1pg_check_annotated_table(PG_FUNCTION_ARGS)
{
	M1TableAccess access = {.role = PG_GETARG_OID(0), .table = PG_GETARG_OID(1)};

	m1pg_require_owner(fcinfo);
	(void) check_and_find_owner(&access, true);
	PG_RETURN_VOID();
}
