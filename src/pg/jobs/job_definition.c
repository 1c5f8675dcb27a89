/*
 * job_definition.c
 *	  The definitions of annotators that a runner works with: looked up once a
 *	  turn. The statements for their rows, which are costly to make, are kept until
 *	  the definition changes, or PostgreSQL tells that the table has, or a schema.
 */
#include "pg/jobs/job_definition.h"
#include "pg/jobs/annotator_rows.h"

#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct Kept
{
	int			id;
	char	   *version;
	Oid			source;
	bool		stale;
	M1Rows	   *rows;
	MemoryContext context;		/* of all of it */
} Kept;

static MemoryContext turn_context;
static List *turn = NIL;		/* of M1Definition, in turn_context */
static MemoryContext kept_context;
static List *kept = NIL;		/* of Kept, in kept_context */

static void
on_relcache_change(Datum arg, Oid relid)
{
	ListCell   *cell;

	foreach(cell, kept)
	{
		Kept	   *k = lfirst(cell);

		if (relid == InvalidOid || relid == k->source)
			k->stale = true;
	}
}

/* A schema was renamed, perhaps: statements name it. */
static void
on_namespace_change(Datum arg, int cache, uint32 hash)
{
	on_relcache_change(arg, InvalidOid);
}

void
m1pg_definitions_init(void)
{
	turn_context = AllocSetContextCreate(TopMemoryContext, "minimax_m1 definitions of a turn", ALLOCSET_DEFAULT_SIZES);
	kept_context = AllocSetContextCreate(TopMemoryContext, "minimax_m1 definitions", ALLOCSET_DEFAULT_SIZES);
	CacheRegisterRelcacheCallback(on_relcache_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, on_namespace_change, (Datum) 0);
}

void
m1pg_definitions_end_turn(void)
{
	turn = NIL;
	MemoryContextReset(turn_context);
}

static Kept *
find_kept(int id)
{
	ListCell   *cell;

	foreach(cell, kept)
		if (((Kept *) lfirst(cell))->id == id)
			return lfirst(cell);
	return NULL;
}

static void
drop_kept(Kept *k)
{
	kept = list_delete_ptr(kept, k);
	MemoryContextDelete(k->context);
}

static M1Rows *
rows_of(const M1Annotator *a)
{
	Kept	   *k = find_kept(a->id);
	MemoryContext context;
	MemoryContext old;
	M1Rows	   *rows;

	if (k != NULL && !k->stale && strcmp(k->version, a->version) == 0)
		return k->rows;
	if (k != NULL)
		drop_kept(k);
	context = AllocSetContextCreate(turn_context, "minimax_m1 definition", ALLOCSET_SMALL_SIZES);
	/* an error leaves it to the end of the turn */
	rows = m1pg_rows_open(a, context);
	MemoryContextSetParent(context, kept_context);
	old = MemoryContextSwitchTo(context);
	k = palloc0(sizeof *k);
	k->id = a->id;
	k->version = pstrdup(a->version);
	k->source = a->source;
	k->rows = rows;
	k->context = context;
	MemoryContextSwitchTo(kept_context);
	kept = lappend(kept, k);
	MemoryContextSwitchTo(old);
	return rows;
}

M1Definition *
m1pg_definition(int id)
{
	M1Definition *d;
	ListCell   *cell;
	MemoryContext old;

	foreach(cell, turn)
	{
		d = lfirst(cell);
		if (d->id == id)
			return d;
	}
	d = MemoryContextAllocZero(turn_context, sizeof *d);
	d->id = id;
	d->annotator = m1pg_annotator_load(NULL, id, turn_context);
	if (d->annotator != NULL)
		d->rows = rows_of(d->annotator);
	old = MemoryContextSwitchTo(turn_context);
	turn = lappend(turn, d);
	MemoryContextSwitchTo(old);
	return d;
}
