/*
 * reward_sql.c
 *	  reward_sql(): whether a query that a model has written gives the rows that
 *	  the example's own query gives.
 *
 *	  Rows are fetched one by one, and are looked at before texts are made of them:
 *	  a query is a line long, and what it gives may be any size.
 *
 *	  Both run as a role that the example names, read only, with a time limit, and
 *	  are rolled back. A role that may do much is not for queries that nobody has
 *	  read: a superuser is refused.
 */
#include "pg/attempt.h"
#include "pg/learning/query.h"
#include "pg/learning/rewards.h"
#include "pg/report.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(m1pg_reward_sql);

#define MOST_ROWS		10000
#define MOST_BYTES		(64 * 1024 * 1024)
#define LIMIT_MS		1000

/* A query, and its rows as texts that are equal where the rows are. */
typedef struct Rows
{
	const char *sql;
	MemoryContext context;		/* of the texts */
	char	  **rows;
	int			n;
	Size		bytes;
} Rows;

/* ---- a row as text ---- */

static bool
is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID || type == FLOAT4OID ||
		type == FLOAT8OID;
}

/* 1, 1.0 and 1e0 are one number. */
static char *
canonical(Oid type, char *value)
{
	if (!is_number(type))
		return value;
	return numeric_normalize(DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(value),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))));
}

/* Columns by their places, each with its length, so that no two rows look alike. */
static char *
row_text(HeapTuple row, TupleDesc tupdesc)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 1; i <= tupdesc->natts; i++)
	{
		char	   *value = SPI_getvalue(row, tupdesc, i);

		if (value == NULL)
		{
			appendStringInfoString(&s, "null,");
			continue;
		}
		value = canonical(SPI_gettypeid(tupdesc, i), value);
		appendStringInfo(&s, "%zu:%s,", strlen(value), value);
	}
	return s.data;
}

/* ---- a query ---- */

static void
check_room(const Rows *r, Size more)
{
	if (r->n < MOST_ROWS && r->bytes + more <= MOST_BYTES)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("minimax_m1: the query has too many rows to compare"),
			 errdetail("It may have %d, of %d MiB.", MOST_ROWS, MOST_BYTES / 1024 / 1024)));
}

/* Bytes of its values of variable length, when they are taken out of TOAST and compression. */
static Size
raw_size(HeapTuple row, TupleDesc tupdesc)
{
	Size		size = 0;

	for (int i = 0; i < tupdesc->natts; i++)
	{
		bool		isnull;
		Datum		value = heap_getattr(row, i + 1, tupdesc, &isnull);

		if (!isnull && TupleDescAttr(tupdesc, i)->attlen == -1)
			size += toast_raw_datum_size(value);
	}
	return size;
}

static void
add_row(Rows *r, HeapTuple row, TupleDesc tupdesc, MemoryContext scratch)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	char	   *line;
	Size		len;

	check_room(r, raw_size(row, tupdesc));
	line = row_text(row, tupdesc);
	len = strlen(line);
	check_room(r, len);
	r->bytes += len;
	r->rows[r->n++] = MemoryContextStrdup(r->context, line);
	MemoryContextSwitchTo(old);
	MemoryContextReset(scratch);
}

/* An attempt. */
static void
run(void *arg)
{
	Rows	   *r = arg;
	MemoryContext scratch;
	Portal		portal;
	bool		found;

	r->rows = MemoryContextAlloc(r->context, MOST_ROWS * sizeof *r->rows);
	SPI_connect();
	scratch = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 row", ALLOCSET_DEFAULT_SIZES);
	portal = m1pg_open_query(r->sql);
	do
	{
		SPI_cursor_fetch(portal, true, 1);
		found = SPI_processed > 0;
		if (found)
			add_row(r, SPI_tuptable->vals[0], SPI_tuptable->tupdesc, scratch);
		SPI_freetuptable(SPI_tuptable);
	} while (found);
	SPI_cursor_close(portal);
	SPI_finish();
}

static ErrorData *
try_query(Rows *r, const char *sql, Oid role)
{
	M1Attempt	attempt = {.run = run, .arg = r, .read_only = true, .role = role, .limit_ms = LIMIT_MS};

	r->sql = sql;
	r->context = CurrentMemoryContext;
	return m1pg_attempt(&attempt);
}

static int
compare_rows(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static bool
same_rows(Rows *a, Rows *b)
{
	if (a->n != b->n)
		return false;
	qsort(a->rows, a->n, sizeof *a->rows, compare_rows);
	qsort(b->rows, b->n, sizeof *b->rows, compare_rows);
	for (int i = 0; i < a->n; i++)
		if (strcmp(a->rows[i], b->rows[i]) != 0)
			return false;
	return true;
}

/* ---- the role ---- */

static Oid
role_of(Jsonb *example)
{
	char	   *name = m1pg_example_text(example, "role");
	Oid			role;

	if (name == NULL)
		m1pg_bad_argument("the example's role is NULL", "Queries of a model are run as the role that it names.");
	role = get_role_oid(name, false);
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("minimax_m1: permission denied to run queries as role \"%s\"", name)));
	if (superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("minimax_m1: a superuser is not a role for queries that a model has written"),
				 errhint("Name a role that may read the tables of the examples, and nothing else.")));
	return role;
}

/* reward_sql(answer, example) */
Datum
m1pg_reward_sql(PG_FUNCTION_ARGS)
{
	Jsonb	   *example = PG_GETARG_JSONB_P(1);
	char	   *reference = m1pg_example_text(example, "answer");
	Rows		wanted = {0};
	Rows		got = {0};
	ErrorData  *error;
	Oid			role;

	if (reference == NULL)
		PG_RETURN_NULL();
	role = role_of(example);
	error = try_query(&wanted, reference, role);
	if (error != NULL)
		m1pg_raise_of_example(error, "query failed");
	if (try_query(&got, text_to_cstring(PG_GETARG_TEXT_PP(0)), role) != NULL)
		PG_RETURN_FLOAT8(0);
	PG_RETURN_FLOAT8(same_rows(&wanted, &got) ? 1 : 0);
}
