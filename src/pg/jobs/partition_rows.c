/*
 * partition_rows.c
 *	  Where a row of a partitioned table belongs, for the triggers of annotators: an
 *	  update may take it to another partition, which no trigger is told.
 */
#include "pg/jobs/partition_rows.h"
#include "pg/jobs/guard.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

struct M1PartitionCheck
{
	EState	   *estate;
	ExprState  *condition;
	TupleTableSlot *slot;		/* for the row */
};

/* The table's condition, with the columns numbered as in `rel`. */
static List *
condition_for(Oid table, Relation rel)
{
	Relation	partition = table_open(table, AccessShareLock);
	List	   *condition = map_partition_varattnos(RelationGetPartitionQual(partition), 1, rel, partition);

	table_close(partition, NoLock);
	return condition;
}

M1PartitionCheck *
m1pg_partition_check(Oid table, Relation rel, MemoryContext context)
{
	MemoryContext old;
	M1PartitionCheck *check;

	if (!get_rel_relispartition(table))
		return NULL;
	old = MemoryContextSwitchTo(context);
	check = palloc(sizeof *check);
	check->estate = CreateExecutorState();
	check->condition = ExecPrepareCheck(condition_for(table, rel), check->estate);
	/* a copy: whoever drops the context gives back no reference to the relation's own */
	check->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(rel)), &TTSOpsHeapTuple);
	MemoryContextSwitchTo(old);
	return check;
}

bool
m1pg_row_fits(const M1PartitionCheck *check, HeapTuple row)
{
	bool		fits;

	if (check == NULL)
		return true;
	ResetPerTupleExprContext(check->estate);
	ExecStoreHeapTuple(row, check->slot, false);
	GetPerTupleExprContext(check->estate)->ecxt_scantuple = check->slot;
	fits = ExecCheck(check->condition, GetPerTupleExprContext(check->estate));
	ExecClearTuple(check->slot);
	return fits;
}

bool
m1pg_row_meets_another(const M1Annotator *a, Relation rel, HeapTuple row)
{
	Oid			types[3] = {NAMEOID, INT4OID, OIDOID};
	Datum		values[3];
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	uint64		n;
	Oid		   *tables;
	bool		isnull;

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(a->target_column));
	values[1] = Int32GetDatum(a->id);
	values[2] = ObjectIdGetDatum(a->source);
	n = m1pg_query("SELECT source::oid FROM minimax_m1.annotator WHERE target_column = $1 AND id <> $2 "
				   "AND source IN (SELECT relid FROM pg_partition_tree(pg_partition_root($3)))",
				   3, types, values, NULL, false);
	tables = palloc(Max(n, 1) * sizeof *tables);
	for (uint64 i = 0; i < n; i++)
		tables[i] = DatumGetObjectId(m1pg_result(i, 1, &isnull));
	m1pg_unbecome(&guard);
	for (uint64 i = 0; i < n; i++)
		if (m1pg_row_fits(m1pg_partition_check(tables[i], rel, CurrentMemoryContext), row))
			return true;
	return false;
}
