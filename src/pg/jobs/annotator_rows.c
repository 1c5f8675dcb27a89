/*
 * annotator_rows.c
 *	  The rows of an annotator's table, reached as the table's owner (see
 *	  table_access.c). The statements come from _annotator_sql(), with the values as
 *	  parameters. All of it needs an SPI connection of the caller's.
 */
#include "pg/jobs/annotator_rows.h"
#include "pg/client/template.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/parameters.h"
#include "pg/jobs/table_access.h"
#include "pg/report.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

PG_FUNCTION_INFO_V1(m1pg_unannotated);

#define MAX_TARGETS 3			/* content, reasoning, status */

struct M1Rows
{
	M1TableAccess access;
	bool		partitioned;
	int			n_keys;
	Oid			key_types[INDEX_MAX_KEYS];
	bool		has_reasoning;
	bool		has_status;
	int			n_targets;
	Oid			target_types[MAX_TARGETS];
	int32		target_typmods[MAX_TARGETS];
	M1Template	template;
	char	   *read_sql;
	char	   *lock_sql;
	char	   *write_sql;
	char	   *status_sql;		/* NULL without a status column */
	char	   *keys_sql;
	char	   *keys_after_sql;
};

/* ---- the statements ---- */

static int
read_oids(uint64 row, int column, Oid *oids, int most)
{
	bool		isnull;
	ArrayType  *array = DatumGetArrayTypeP(m1pg_result(row, column, &isnull));
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

	if (n > most)
		elog(ERROR, "minimax_m1: too many columns");
	memcpy(oids, ARR_DATA_PTR(array), n * sizeof(Oid));
	return n;
}

static void
add_column(AttrNumber *columns, int *n, Oid table, const char *name)
{
	AttrNumber	number = get_attnum(table, name);

	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("minimax_m1: column \"%s\" of relation \"%s\" does not exist", name, get_rel_name(table))));
	columns[(*n)++] = number;
}

/* The columns that the statements read and fill. */
static void
note_access(M1Rows *rows, const M1Annotator *a)
{
	M1TableAccess *access = &rows->access;

	access->role = a->owner;
	access->table = a->source;
	access->read = palloc((a->n_keys + rows->template.n + 1) * sizeof(AttrNumber));
	access->filled = palloc(MAX_TARGETS * sizeof(AttrNumber));
	for (int i = 0; i < a->n_keys; i++)
		add_column(access->read, &access->n_read, a->source, a->key_columns[i]);
	for (int i = 0; i < rows->template.n; i++)
		add_column(access->read, &access->n_read, a->source, rows->template.column[i]);
	add_column(access->read, &access->n_read, a->source, a->target_column);
	add_column(access->filled, &access->n_filled, a->source, a->target_column);
	if (a->reasoning_column != NULL)
		add_column(access->filled, &access->n_filled, a->source, a->reasoning_column);
	if (a->status_column != NULL)
		add_column(access->filled, &access->n_filled, a->source, a->status_column);
	rows->partitioned = get_rel_relkind(a->source) == RELKIND_PARTITIONED_TABLE;
}

M1Rows *
m1pg_rows_open(const M1Annotator *a, MemoryContext context)
{
	enum
	{
		READ = 1, LOCK, WRITE, STATUS, KEYS, KEYS_AFTER, KEY_TYPES, TARGET_TYPES, TARGET_TYPMODS
	};
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(a->id)};
	M1Rows	   *rows = MemoryContextAllocZero(context, sizeof *rows);
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	MemoryContext old;

	(void) m1pg_query("SELECT * FROM minimax_m1._annotator_sql($1)", 1, types, values, NULL, false);
	rows->has_reasoning = a->reasoning_column != NULL;
	rows->has_status = a->status_column != NULL;
	rows->read_sql = m1pg_result_text(context, 0, READ);
	rows->lock_sql = m1pg_result_text(context, 0, LOCK);
	rows->write_sql = m1pg_result_text(context, 0, WRITE);
	rows->status_sql = m1pg_result_text(context, 0, STATUS);
	rows->keys_sql = m1pg_result_text(context, 0, KEYS);
	rows->keys_after_sql = m1pg_result_text(context, 0, KEYS_AFTER);
	rows->n_keys = read_oids(0, KEY_TYPES, rows->key_types, INDEX_MAX_KEYS);
	rows->n_targets = read_oids(0, TARGET_TYPES, rows->target_types, MAX_TARGETS);
	(void) read_oids(0, TARGET_TYPMODS, (Oid *) rows->target_typmods, MAX_TARGETS);
	m1pg_unbecome(&guard);
	old = MemoryContextSwitchTo(context);
	m1pg_template_parse(&rows->template, a->template);
	note_access(rows, a);
	MemoryContextSwitchTo(old);
	return rows;
}

/* ---- rows ---- */

static void
add_value(M1Parameters *p, Oid type, int32 typmod, char *value)
{
	m1pg_add_parameter(p, type, m1pg_value_from_text(type, typmod, value), value == NULL);
}

/* The key comes first, and values behind it. */
static void
add_key(M1Parameters *p, const M1Rows *rows, char *const *key)
{
	for (int i = 0; i < rows->n_keys; i++)
		add_value(p, rows->key_types[i], -1, key[i]);
}

/* What rules have left nothing of reads no other table, either. */
static bool
reads_table(SPIPlanPtr plan, Oid table)
{
	bool		any = false;
	ListCell   *source;
	ListCell   *query;

	foreach(source, SPI_plan_get_plan_sources(plan))
		foreach(query, ((CachedPlanSource *) lfirst(source))->query_list)
		{
			List	   *tables = lfirst_node(Query, query)->rtable;

			if (tables != NIL && linitial_node(RangeTblEntry, tables)->relid == table)
				return true;
			any = true;
		}
	return !any;
}

/*
 * The statements name the table, and names may come to mean another one between any two moments: a schema is renamed
 * without a lock on what it holds. So it is looked at before and after whether it was this table; if not, the caller's
 * subtransaction ends with an error that passes.
 */
static uint64
query_table(const M1Rows *rows, const char *sql, M1Parameters *p)
{
	SPIPlanPtr	plan = SPI_prepare(sql, p->n, p->types);
	bool		same;
	int			rc = 0;

	if (plan == NULL)
		elog(ERROR, "minimax_m1: %s in \"%s\"", SPI_result_code_string(SPI_result), sql);
	same = reads_table(plan, rows->access.table);
	if (same)
	{
		rc = SPI_execute_plan(plan, p->values, p->nulls, false, 0);
		same = reads_table(plan, rows->access.table);
	}
	if (rc < 0)
		elog(ERROR, "minimax_m1: %s in \"%s\"", SPI_result_code_string(rc), sql);
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("minimax_m1: the table of an annotator was renamed meanwhile")));
	SPI_freeplan(plan);
	return SPI_processed;
}

static bool
find_row(const M1Rows *rows, const char *sql, char *const *key)
{
	M1Parameters p = {0};

	add_key(&p, rows, key);
	return query_table(rows, sql, &p) > 0;
}

/* What the statements that read a row give: behind the inputs of the template come the columns that are filled. */
#define PARTITION	1
#define FIRST_INPUT	2

/* What a target holds, as text; it is the first of the columns that are filled. */
static char *
held(const M1Rows *rows, int t)
{
	return m1pg_result_text(CurrentMemoryContext, 0, FIRST_INPUT + rows->template.n + t);
}

static void
take_row(const M1Rows *rows, M1Row *row)
{
	char	   *values[M1PG_MAX_PLACEHOLDERS];

	for (int i = 0; i < rows->template.n; i++)
		values[i] = m1pg_result_text(CurrentMemoryContext, 0, FIRST_INPUT + i);
	row->prompt = m1pg_template_render(&rows->template, values);
	row->target = held(rows, 0);
	row->status = rows->has_status ? held(rows, rows->n_targets - 1) : NULL;
}

M1RowState
m1pg_row_read(const M1Rows *rows, char *const *key, bool lock, M1Row *row)
{
	M1Guard		guard = m1pg_become_table_owner(&rows->access, lock);
	M1RowState	state = M1_ROW_FOUND;

	if (find_row(rows, lock ? rows->lock_sql : rows->read_sql, key))
		take_row(rows, row);
	else
		state = lock && find_row(rows, rows->read_sql, key) ? M1_ROW_LOCKED : M1_ROW_GONE;
	m1pg_unbecome(&guard);
	return state;
}

static bool writing = false;

bool
m1pg_row_is_being_written(void)
{
	return writing;
}

static uint64
run_update(const M1Rows *rows, M1Parameters *p)
{
	uint64		n = 0;

	writing = true;
	PG_TRY();
	{
		n = query_table(rows, rows->write_sql, p);
	}
	PG_FINALLY();
	{
		writing = false;
	}
	PG_END_TRY();
	return n;
}

/* What the columns that are filled hold, as text; false when there is no such row. */
static bool
read_targets(const M1Rows *rows, char *const *key, char **values)
{
	if (!find_row(rows, rows->read_sql, key))
		return false;
	for (int t = 0; t < rows->n_targets; t++)
		values[t] = held(rows, t);
	return true;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Whether column t holds what it did, although a parameter says something else. */
static bool
was_left(const M1Rows *rows, int t, const M1Parameters *p, char *const *before, char *const *after)
{
	int			i = rows->n_keys + t;
	Oid			output;
	bool		varlena;

	if (!same_text(before[t], after[t]))
		return false;
	if (p->nulls[i] == 'n')
		return before[t] != NULL;
	getTypeOutputInfo(p->types[i], &output, &varlena);
	return !same_text(before[t], OidOutputFunctionCall(output, p->values[i]));
}

/*
 * Fills columns of a row, which is there: p has the key already, and values for
 * the statement. How many rows that counts does not tell whether they are there
 * now: a trigger may return the old row, a rule may write elsewhere, and what is
 * there already may have been left alone. So the row is looked at. A trigger may
 * change what is written, and leave out the reasoning.
 */
static void
update_row(const M1Rows *rows, char *const *key, M1Parameters *p)
{
	char	   *before[MAX_TARGETS] = {NULL};
	char	   *after[MAX_TARGETS];
	bool		there = read_targets(rows, key, before);
	uint64		n = run_update(rows, p);
	bool		left = n == 0;

	if (there && read_targets(rows, key, after))
	{
		left = false;
		for (int t = 0; t < rows->n_targets; t++)
			if (n == 0 || t != 1 || !rows->has_reasoning)
				left = left || was_left(rows, t, p, before, after);
	}
	if (!left)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("minimax_m1: the row was not written"),
			 errdetail("A trigger or a rule of table \"%s\" kept the UPDATE from it.",
					   get_rel_name(rows->access.table))));
}

/*
 * Whoever changes a row runs the code of its partition. What the table defers
 * to the commit would run without the guard then, which PostgreSQL refuses.
 */
static M1Guard
begin_update(const M1Rows *rows, char *const *key)
{
	M1Guard		guard = m1pg_become_table_owner(&rows->access, true);
	bool		isnull;

	(void) m1pg_query("SET CONSTRAINTS ALL IMMEDIATE", 0, NULL, NULL, NULL, false);
	if (rows->partitioned && find_row(rows, rows->read_sql, key))
		m1pg_check_partition(&rows->access, DatumGetObjectId(m1pg_result(0, PARTITION, &isnull)));
	return guard;
}

void
m1pg_row_write(const M1Rows *rows, char *const *key, char *content, char *reasoning, const char *status)
{
	M1Guard		guard = begin_update(rows, key);
	M1Parameters p = {0};
	int			t = 0;

	add_key(&p, rows, key);
	add_value(&p, rows->target_types[t], rows->target_typmods[t], content);
	t++;
	if (rows->has_reasoning)
	{
		add_value(&p, rows->target_types[t], rows->target_typmods[t], reasoning);
		t++;
	}
	if (rows->has_status)
		add_value(&p, rows->target_types[t], rows->target_typmods[t], unconstify(char *, status));
	update_row(rows, key, &p);
	m1pg_unbecome(&guard);
}

void
m1pg_row_write_status(const M1Rows *rows, char *const *key, const char *status)
{
	int			t = rows->n_targets - 1;
	M1Guard		guard;
	M1Parameters p = {0};

	if (!rows->has_status)
		return;
	guard = begin_update(rows, key);
	add_key(&p, rows, key);
	add_value(&p, rows->target_types[t], rows->target_typmods[t], unconstify(char *, status));
	(void) query_table(rows, rows->status_sql, &p);
	m1pg_unbecome(&guard);
}

/* ---- backfill ---- */

/* The rows of the last query as a two-dimensional array of texts. */
static ArrayType *
keys_found(const M1Rows *rows)
{
	int			n = (int) SPI_processed;
	Datum	   *texts = palloc(Max(n, 1) * rows->n_keys * sizeof *texts);
	int			dims[2] = {n, rows->n_keys};
	int			lower[2] = {1, 1};

	if (n == 0)
		return construct_empty_array(TEXTOID);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < rows->n_keys; k++)
			texts[i * rows->n_keys + k] = CStringGetTextDatum(m1pg_result_text(CurrentMemoryContext, i, k + 1));
	return construct_md_array(texts, NULL, 2, dims, lower, TEXTOID, -1, false, TYPALIGN_INT);
}

/* _unannotated(annotator, after, n) */
Datum
m1pg_unannotated(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	int			id = PG_GETARG_INT32(0);
	int			n = PG_GETARG_INT32(2);
	M1Annotator *a;
	M1Rows	   *rows;
	M1Guard		guard;
	M1Parameters p = {0};
	const char *sql;
	ArrayType  *found;
	Datum		result;

	m1pg_require_owner(fcinfo);
	SPI_connect();
	a = m1pg_annotator_load(NULL, id, CurrentMemoryContext);
	if (a == NULL)
		elog(ERROR, "minimax_m1: there is no annotator %d", id);
	rows = m1pg_rows_open(a, CurrentMemoryContext);
	guard = m1pg_become_table_owner(&rows->access, false);
	if (!PG_ARGISNULL(1))
	{
		int			n_keys;
		char	  **key = m1pg_text_array(PG_GETARG_ARRAYTYPE_P(1), &n_keys);

		if (n_keys != rows->n_keys)
			m1pg_bad_argument(psprintf("the key has %d columns, not %d", n_keys, rows->n_keys), NULL);
		add_key(&p, rows, key);
	}
	sql = psprintf("%s LIMIT %d", PG_ARGISNULL(1) ? rows->keys_sql : rows->keys_after_sql, n);
	(void) query_table(rows, sql, &p);
	found = keys_found(rows);
	m1pg_unbecome(&guard);
	result = PointerGetDatum(MemoryContextAlloc(caller, VARSIZE(found)));
	memcpy(DatumGetPointer(result), found, VARSIZE(found));
	SPI_finish();
	PG_RETURN_DATUM(result);
}
