/*
 * job_claim.c
 *	  The runner takes jobs from the queue, and learns when the next are due. Their
 *	  owners take turns; priorities order the jobs of one owner.
 *	  Called within a transaction, with SPI connected, as the superuser that
 *	  background workers are; rows are read as the table's owner.
 */
#include "pg/jobs/job_claim.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/jobs/annotator_rows.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_definition.h"
#include "pg/jobs/job_finish.h"
#include "pg/jobs/job_lease.h"
#include "pg/jobs/job_step.h"
#include "pg/jobs/table_access.h"
#include "pg/settings.h"
#include "pg/usage/quota.h"
#include "pg/usage/turns.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* ---- claiming ---- */

#define CLAIM_COLUMNS \
	"j.id, j.owner::oid, j.annotator_id, j.key, j.prompt, j.system_prompt, j.max_tokens, j.thinking_budget, " \
	"j.temperature, j.top_p, j.seed, j.stop, j.attempts, j.max_attempts, j.losses, j.leased_at, " \
	"j.json_schema::text, j.content, j.reasoning, j.answered, j.adapter::text, j.target_hash"

enum
{
	ID = 1, OWNER, ANNOTATOR, KEY, PROMPT, SYSTEM, MAX_TOKENS, THINKING_BUDGET,
	TEMPERATURE, TOP_P, SEED, STOP, ATTEMPTS, MAX_ATTEMPTS, LOSSES, LEASED_AT,
	JSON_SCHEMA, CONTENT, REASONING, ANSWERED, ADAPTER, TARGET_HASH
};

/* What may be taken: annotators may be aside, and a row is worked on once at a time. */
#define DUE \
	"j.state = 'pending' AND j.run_at <= $6 AND (j.annotator_id <> ALL ($5)) IS NOT FALSE" \
	" AND (j.annotator_id IS NULL OR NOT EXISTS (SELECT FROM minimax_m1.job r" \
	" WHERE r.annotator_id = j.annotator_id AND r.key = j.key AND r.state = 'running'))"

/* In the order in which they are due. */
#define TAKE_DUE \
	"taken AS (UPDATE minimax_m1.job j SET state = 'running', leased_by = $2, leased_at = clock_timestamp()," \
	" lease_until = clock_timestamp() + make_interval(secs => $3)," \
	" started_at = coalesce(j.started_at, clock_timestamp()) " \
	"WHERE " M1PG_THOSE("id", "due") " RETURNING " CLAIM_COLUMNS ", j.priority, j.run_at) " \
	"SELECT * FROM taken ORDER BY priority DESC, run_at, id"

/* The jobs of one owner by priority: a look at the index for each that there is, however many wait for their time. */
#define WAITING "state = 'pending' AND losses < " M1PG_SUSPECT_LOSSES
#define OWN WAITING " AND owner = $4"
#define CLAIM_OWN_SQL \
	"WITH RECURSIVE level AS (" \
	"(SELECT priority FROM minimax_m1.job WHERE " OWN " ORDER BY priority DESC LIMIT 1) UNION ALL " \
	"SELECT (SELECT priority FROM minimax_m1.job WHERE " OWN " AND priority < l.priority " \
	"ORDER BY priority DESC LIMIT 1) FROM level l WHERE l.priority IS NOT NULL), " \
	"due AS MATERIALIZED (SELECT d.id FROM level l CROSS JOIN LATERAL (" \
	"SELECT j.id FROM minimax_m1.job j WHERE " OWN " AND j.priority = l.priority AND " DUE \
	" ORDER BY j.run_at, j.id LIMIT $1 FOR UPDATE SKIP LOCKED) d LIMIT $1), " TAKE_DUE

/* Suspects go by the time that they are due. */
#define CLAIM_SUSPECT_SQL \
	"WITH due AS MATERIALIZED (SELECT j.id FROM minimax_m1.job j WHERE j.losses >= " M1PG_SUSPECT_LOSSES \
	" AND " DUE " ORDER BY j.run_at LIMIT $1 FOR UPDATE SKIP LOCKED), " TAKE_DUE

static m1_slice
slice_of_column(uint64 row, int column)
{
	char	   *s = m1pg_result_text(CurrentMemoryContext, row, column);

	return s == NULL ? m1_slice_of(NULL) : m1pg_to_utf8(s, strlen(s));
}

static bytea *
bytea_of_column(uint64 row, int column)
{
	bool		isnull;
	Datum		value = m1pg_result(row, column, &isnull);

	return isnull ? NULL : DatumGetByteaPCopy(value);
}

/* The request of a submitted job. */
static void
read_request(M1Job *job, uint64 row)
{
	m1w_generate *g = &job->request;
	bool		isnull;
	Datum		stop;

	job->adapter = m1pg_result_text(CurrentMemoryContext, row, ADAPTER);
	g->prompt = slice_of_column(row, PROMPT);
	g->system = slice_of_column(row, SYSTEM);
	g->constraint_text = slice_of_column(row, JSON_SCHEMA);
	g->constraint = g->constraint_text.len > 0 ? M1W_CONSTRAINT_JSON_SCHEMA : M1W_CONSTRAINT_NONE;
	g->max_tokens = DatumGetInt32(m1pg_result(row, MAX_TOKENS, &isnull));
	g->thinking_budget = DatumGetInt32(m1pg_result(row, THINKING_BUDGET, &isnull));
	g->temperature = DatumGetFloat4(m1pg_result(row, TEMPERATURE, &isnull));
	g->top_p = DatumGetFloat4(m1pg_result(row, TOP_P, &isnull));
	g->seed = (uint64) DatumGetInt64(m1pg_result(row, SEED, &isnull));
	stop = m1pg_result(row, STOP, &isnull);
	if (!isnull)
	{
		int			n;
		char	  **stops = m1pg_text_array(DatumGetArrayTypePCopy(stop), &n);

		g->n_stops = Min(n, M1W_MAX_STOPS);
		for (uint32 i = 0; i < g->n_stops; i++)
			g->stops[i] = m1pg_to_utf8(stops[i], strlen(stops[i]));
	}
}

/* The job of a row of a table, perhaps with an answer that could not be written. */
static void
read_row_job(M1Job *job, uint64 row)
{
	bool		isnull;
	bytea	   *answered = bytea_of_column(row, ANSWERED);

	job->key = m1pg_text_array(DatumGetArrayTypePCopy(m1pg_result(row, KEY, &isnull)), &job->n_keys);
	job->target_hash = bytea_of_column(row, TARGET_HASH);
	if (answered == NULL)
		return;
	job->answered = (uint8 *) VARDATA_ANY(answered);
	job->done.content = slice_of_column(row, CONTENT);
	job->done.reasoning = slice_of_column(row, REASONING);
}

static M1Job *
make_job(uint64 row)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "minimax_m1 job", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	M1Job	   *job = palloc0(sizeof *job);
	bool		isnull;
	Datum		value;

	job->context = context;
	job->id = DatumGetInt64(m1pg_result(row, ID, &isnull));
	job->owner = DatumGetObjectId(m1pg_result(row, OWNER, &isnull));
	job->attempts = DatumGetInt32(m1pg_result(row, ATTEMPTS, &isnull));
	job->max_attempts = DatumGetInt32(m1pg_result(row, MAX_ATTEMPTS, &isnull));
	job->losses = DatumGetInt32(m1pg_result(row, LOSSES, &isnull));
	job->leased_at = DatumGetTimestampTz(m1pg_result(row, LEASED_AT, &isnull));
	value = m1pg_result(row, ANNOTATOR, &isnull);
	if (isnull)
		read_request(job, row);
	else
	{
		job->annotator_id = DatumGetInt32(value);
		read_row_job(job, row);
	}
	MemoryContextSwitchTo(old);
	return job;
}

static void
drop_job_row(int64 id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(id)};

	(void) m1pg_query("DELETE FROM minimax_m1.job WHERE id = $1", 1, types, values, NULL, false);
}

/* As another entry of the same row has it, which was queued later. */
static void
take_target_hash(M1Job *job, uint64 row)
{
	Oid			types[2] = {INT8OID, BYTEAOID};
	Datum		values[2];
	char		nulls[2] = "  ";
	MemoryContext old = MemoryContextSwitchTo(job->context);

	job->target_hash = bytea_of_column(row, 2);
	MemoryContextSwitchTo(old);
	values[0] = Int64GetDatum(job->id);
	values[1] = PointerGetDatum(job->target_hash);
	nulls[1] = job->target_hash == NULL ? 'n' : ' ';
	(void) m1pg_query("UPDATE minimax_m1.job SET target_hash = $2 WHERE id = $1", 2, types, values, nulls, false);
}

/*
 * Other entries of the rows just claimed: the row is read after this, so it is
 * seen as it was when they were made. What its target held then, the last of
 * them knows.
 */
static void
drop_superfluous(M1Job *job)
{
	Oid			types[3] = {INT8OID, INT4OID, TEXTARRAYOID};
	Datum		values[3];
	int64		last = job->id;
	uint64		last_row = 0;
	uint64		n;
	bool		isnull;

	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(job->annotator_id);
	values[2] = PointerGetDatum(m1pg_array_of_texts(job->key, job->n_keys));
	n = m1pg_query("DELETE FROM minimax_m1.job WHERE " M1PG_THOSE("id",
				   "minimax_m1.job WHERE annotator_id = $2 AND key = $3 AND id <> $1 "
				   "AND state IN ('pending', 'running') FOR UPDATE SKIP LOCKED")
				   " RETURNING id, target_hash", 3, types, values, NULL, false);
	for (uint64 i = 0; i < n; i++)
	{
		int64		id = DatumGetInt64(m1pg_result(i, 1, &isnull));

		last_row = id > last ? i : last_row;
		last = Max(last, id);
	}
	if (last != job->id)
		take_target_hash(job, last_row);
}

/* ---- from a row to a prompt ---- */

typedef struct Prepared
{
	M1Definition *definition;	/* NULL when it could not be read */
	bool		wanted;			/* there is something to ask the model */
} Prepared;

static void
hold(const M1Job *job)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(job->id)};

	(void) m1pg_query("UPDATE minimax_m1.job SET state = 'held', " M1PG_NO_LEASE " WHERE id = $1",
					  1, types, values, NULL, false);
}

/* A step: makes the request of a row's job, or ends the job. */
static void
prepare_row(M1Job *job, void *arg)
{
	Prepared   *p = arg;
	M1Definition *d = p->definition = m1pg_definition(job->annotator_id);
	MemoryContext old;
	m1w_generate request;
	M1Row		row;

	if (d->annotator != NULL)
		job->table_owner = m1pg_table_owner(d->annotator->source);
	if (d->blocked || m1pg_aside_until(job->annotator_id, job->table_owner) != 0)
	{
		m1pg_release(job, false, m1pg_job_retry_delay);
		return;
	}
	drop_superfluous(job);
	if (d->annotator == NULL)
	{
		drop_job_row(job->id);
		return;
	}
	if (!d->annotator->enabled)
	{
		hold(job);
		return;
	}
	if (m1pg_row_read(d->rows, job->key, false, &row) == M1_ROW_GONE)
	{
		drop_job_row(job->id);
		return;
	}
	if (!m1pg_row_asks(job, &row))
	{
		m1pg_finish_unasked(job, d->rows);
		return;
	}
	old = MemoryContextSwitchTo(job->context);
	request = d->annotator->request;
	request.seed = m1pg_new_seed();
	request.prompt = m1pg_to_utf8(pstrdup(row.prompt), strlen(row.prompt));
	/* a definition lasts for a turn */
	request.system = m1pg_keep(request.system);
	request.constraint_text = m1pg_keep(request.constraint_text);
	if (d->annotator->adapter != NULL)
		job->adapter = pstrdup(d->annotator->adapter);
	job->hash = m1pg_hash_prompt(row.prompt);
	job->ended = job->answered != NULL && memcmp(job->hash, job->answered, M1PG_HASH_SIZE) == 0;
	job->request = request;		/* once nothing can fail: whoever frees the job wipes its texts */
	MemoryContextSwitchTo(old);
	p->wanted = true;
}

/* A step: nobody can be charged for the job. */
static void
raise_no_owner(M1Job *job, void *arg)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("minimax_m1: the role that the job belongs to was dropped")));
}

static ErrorData *
try_prepare(M1Job *job, Prepared *p, M1Failure *failure)
{
	*failure = M1_FAILED_FOR_GOOD;
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(job->owner)))
		return m1pg_try(job, raise_no_owner, NULL);
	*failure = M1_FAILED_ONCE;
	return job->annotator_id != 0 ? m1pg_try(job, prepare_row, p) : NULL;
}

/* Makes each job's request. What is over already is freed, the rest is added to the list. */
static void
prepare(M1Job **claimed, int n, dlist_head *jobs)
{
	for (int i = 0; i < n; i++)
	{
		M1Job	   *job = claimed[i];
		Prepared	p = {.wanted = job->annotator_id == 0};
		ErrorData  *error = NULL;
		M1Failure	failure;
		/* not when the drop_superfluous of an earlier one, which may be over, has removed it */
		bool		there = m1pg_lock_lease(job);

		if (there)
			error = try_prepare(job, &p, &failure);
		if (error != NULL && m1pg_is_passing(job, error))
		{
			if (p.definition != NULL)
				p.definition->blocked = true;
			m1pg_release(job, false, m1pg_job_retry_delay);
		}
		else if (error != NULL)
			m1pg_fail_job(job, error, failure);
		if (!there || error != NULL || !p.wanted)
			m1pg_free_job(job);
		else
			dlist_push_tail(jobs, &job->node);
	}
}

/* In the order of the index, and no further than needed, however little is known of the table. */
static int
query_by_index(const char *sql, int n, Oid *types, Datum *values)
{
	int			nest = NewGUCNestLevel();
	int			rows;

	m1pg_set_for_now("enable_sort", "off");
	m1pg_set_for_now("enable_bitmapscan", "off");
	m1pg_set_for_now("enable_seqscan", "off");
	m1pg_set_for_now("enable_hashjoin", "off");
	m1pg_set_for_now("enable_mergejoin", "off");
	/* what is off and yet done is thought to cost so much that it is compiled first */
	m1pg_set_for_now("jit", "off");
	rows = (int) m1pg_query(sql, n, types, values, NULL, false);
	AtEOXact_GUC(false, nest);
	return rows;
}

/* The annotators that wait, by themselves or with all of their tables' owner, or that are slow, too: int4[]. */
static Datum
annotators_aside(bool slow_ones)
{
	Oid			types[3] = {INT4ARRAYOID, OIDARRAYOID, INT4ARRAYOID};
	Datum		values[3] = {m1pg_annotators_aside(), m1pg_table_owners_aside()};
	bool		isnull;

	values[2] = slow_ones ? m1pg_slow_annotators() : PointerGetDatum(construct_empty_array(INT4OID));
	(void) m1pg_query("SELECT ARRAY(SELECT unnest($1) UNION SELECT unnest($3) "
					  "UNION SELECT a.id FROM minimax_m1.annotator a, pg_class c "
					  "WHERE c.oid = a.source AND c.relowner = ANY ($2))", 3, types, values, NULL, false);
	return PointerGetDatum(DatumGetArrayTypePCopy(m1pg_result(0, 1, &isnull)));
}

/* The first n that are due, of an owner if the query asks for one. */
static int
claim(const char *sql, int n, Oid owner, Datum aside, dlist_head *jobs)
{
	Oid			types[6] = {INT8OID, INT4OID, FLOAT8OID, OIDOID, INT4ARRAYOID, TIMESTAMPTZOID};
	Datum		values[6];
	M1Job	  **claimed;
	TimestampTz started = GetCurrentTimestamp();
	int			taken;

	values[0] = Int64GetDatum(n);
	values[1] = Int32GetDatum(MyProcPid);
	values[2] = Float8GetDatum(m1pg_job_lease);
	values[3] = ObjectIdGetDatum(owner);
	values[4] = aside;
	values[5] = TimestampTzGetDatum(started);
	taken = query_by_index(sql, 6, types, values);
	if (OidIsValid(owner))
		m1pg_charge_claim(owner, TimestampDifferenceMilliseconds(started, GetCurrentTimestamp()));
	claimed = palloc(Max(taken, 1) * sizeof *claimed);
	for (int i = 0; i < taken; i++)
		claimed[i] = make_job(i);
	prepare(claimed, taken, jobs);
	return taken;
}

/* The annotators whose rows are not taken as long as others are due, and those whose rows are not taken at all. */
typedef struct LastInLine
{
	bool		slow;			/* there is a difference */
	Datum		slow_or_aside;
	Datum		aside;
} LastInLine;

static LastInLine
last_in_line(void)
{
	LastInLine	last = {.slow = m1pg_has_slow_annotators(), .aside = annotators_aside(false)};

	last.slow_or_aside = last.slow ? annotators_aside(true) : last.aside;
	return last;
}

static int
claim_of(Oid owner, int n, const LastInLine *last, dlist_head *jobs)
{
	int			taken = claim(CLAIM_OWN_SQL, n, owner, last->slow_or_aside, jobs);

	if (last->slow && taken < n)
		taken += claim(CLAIM_OWN_SQL, n - taken, owner, last->aside, jobs);
	return taken;
}

/* ---- whose jobs are next ---- */

/* Owners whose queues are slow come behind the others, until these have had nothing for so long. */
#define QUICK_MS	1000

static M1Turn *
turn_of(M1Turns *turns, Oid owner)
{
	M1Quota		quota;

	m1pg_quota_of(owner, &quota);
	return m1pg_turn_of(turns, owner, quota.share);
}

/* The next owner of jobs, by number, of whom the index has any; InvalidOid behind the last. */
static Oid
owner_after(Relation job, Relation index, Oid last)
{
	const AttrNumber number = get_attnum(RelationGetRelid(job), "owner");
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	entry;
	Oid			owner = InvalidOid;
	bool		isnull;

	ScanKeyInit(&key, number, BTGreaterStrategyNumber, F_OIDGT, ObjectIdGetDatum(last));
	scan = systable_beginscan_ordered(job, index, SnapshotAny, 1, &key);
	entry = systable_getnext_ordered(scan, ForwardScanDirection);
	if (HeapTupleIsValid(entry))
		owner = DatumGetObjectId(heap_getattr(entry, number, RelationGetDescr(job), &isnull));
	systable_endscan_ordered(scan);
	return owner;
}

/*
 * Whose jobs wait, perhaps: one look at the index for each. Nobody's entries are
 * gone through to find one that this transaction sees, however many there are
 * that others have yet to commit.
 */
static List *
list_owners(void)
{
	const Oid	nsp = get_namespace_oid("minimax_m1", false);
	Relation	job = table_open(get_relname_relid("job", nsp), AccessShareLock);
	Relation	index = index_open(get_relname_relid("job_due", nsp), AccessShareLock);
	List	   *owners = NIL;

	for (Oid owner = owner_after(job, index, InvalidOid); OidIsValid(owner); owner = owner_after(job, index, owner))
		owners = lappend_oid(owners, owner);
	index_close(index, AccessShareLock);
	table_close(job, AccessShareLock);
	return owners;
}

/* Counts whose jobs are in flight, and whose may be due: up to n of each. Returns how many owners the latter have. */
static int
count_owners(M1Turns *turns, int n, bool slow_ones, dlist_head *jobs)
{
	int			n_owners = 0;
	ListCell   *cell;
	dlist_iter	iter;

	m1pg_turns_recount(turns);
	foreach(cell, list_owners())
	{
		const Oid	owner = lfirst_oid(cell);

		if (m1pg_owner_is_refused(owner) || (!slow_ones && m1pg_queue_is_slow(owner)))
			continue;
		turn_of(turns, owner)->waiting = n;
		n_owners++;
	}
	dlist_foreach(iter, jobs)
	{
		const M1Job *job = dlist_container(M1Job, node, iter.cur);

		if (!job->ended)
			turn_of(turns, job->owner)->held++;
	}
	return n_owners;
}

static int
claim_in_turns(int n, bool slow_ones, dlist_head *jobs)
{
	static M1Turns turns = {NULL};
	const LastInLine last = last_in_line();
	int			owners;
	int			taken = 0;
	M1Turn	   *turn;

	if (turns.roles == NULL)
		m1pg_turns_init(&turns, "minimax_m1 turns of jobs");
	owners = count_owners(&turns, n, slow_ones, jobs);
	while (taken < n && (turn = m1pg_turns_next(&turns)) != NULL)
	{
		/* several at once, and yet some for each */
		int			wanted = Max(1, (n - taken) / owners);
		int			got = claim_of(turn->role, wanted, &last, jobs);

		for (int i = 0; i < got; i++)
			m1pg_turn_take(&turns, turn);
		taken += got;
		if (got == wanted)
			continue;
		turn->waiting = 0;
		owners--;
	}
	return taken;
}

/* Whether there is anybody, or was just now, to whom it matters how long the others take. */
static bool
quick_ones_are_served(dlist_head *jobs)
{
	static TimestampTz last = 0;
	const TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	dlist_foreach(iter, jobs)
		if (!m1pg_queue_is_slow(dlist_container(M1Job, node, iter.cur)->owner))
			last = now;
	return !TimestampDifferenceExceeds(last, now, QUICK_MS);
}

int
m1pg_claim(int n, dlist_head *jobs)
{
	int			taken = claim_in_turns(n, false, jobs);

	if (!quick_ones_are_served(jobs) && taken == 0 && m1pg_any_queue_is_slow())
		taken = claim_in_turns(n, true, jobs);
	return taken;
}

/* One by one, and the longest due first: these run alone. */
int
m1pg_claim_suspect(dlist_head *jobs)
{
	return claim(CLAIM_SUSPECT_SQL, 1, InvalidOid, annotators_aside(false), jobs);
}

bool
m1pg_suspect_is_due(void)
{
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1] = {TimestampTzGetDatum(GetCurrentTimestamp())};

	return query_by_index("SELECT 1 FROM minimax_m1.job WHERE state = 'pending' AND losses >= "
						  M1PG_SUSPECT_LOSSES " AND run_at <= $1 LIMIT 1", 1, types, values) > 0;
}

/* ---- what comes next ---- */

static TimestampTz
timestamp_of_query(const char *sql, int n, Oid *types, Datum *values)
{
	bool		isnull;
	Datum		value;

	(void) query_by_index(sql, n, types, values);
	value = m1pg_result(0, 1, &isnull);
	return isnull ? 0 : DatumGetTimestampTz(value);
}

/* The failed rows of an annotator stay until they are tried again. */
#define FORGETTABLE "(state IN ('done', 'failed', 'cancelled') AND (annotator_id IS NULL OR state = 'cancelled'))"

/* For min() the planner may take all of an index. */
#define FIRST(time, condition) \
	"(SELECT " time " FROM minimax_m1.job WHERE " condition " ORDER BY " time " LIMIT 1)"

TimestampTz
m1pg_next_due(void)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(m1pg_job_retention)};

	/* nobody tells when a prepared transaction is committed */
	return timestamp_of_query("SELECT least("
							  FIRST("run_at", "state = 'pending'") ", "
							  FIRST("lease_until", "state = 'running'") ", "
							  "(SELECT clock_timestamp() + '1 s' FROM pg_prepared_xacts "
							  "WHERE database = current_database() LIMIT 1), "
							  "(SELECT greatest(finished_at + make_interval(mins => $1), clock_timestamp() + '1 min') "
							  "FROM minimax_m1.job WHERE $1 >= 0 AND " FORGETTABLE " ORDER BY finished_at LIMIT 1))",
							  1, types, values);
}

void
m1pg_forget_old(void)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(m1pg_job_retention)};

	if (m1pg_job_retention < 0)
		return;
	(void) query_by_index("DELETE FROM minimax_m1.job WHERE " M1PG_THOSE("id", "minimax_m1.job WHERE " FORGETTABLE
						  " AND finished_at < now() - make_interval(mins => $1) FOR UPDATE SKIP LOCKED"),
						  1, types, values);
}
