/*
 * examples.c
 *	  Reads the rows of a query as examples. Columns prompt or messages are what is
 *	  asked, system_prompt and tools go with it, and held_out divides the rows of a
 *	  training; all columns together are the JSON that a reward gets.
 */
#include "pg/learning/examples.h"
#include "pg/client/texts.h"
#include "pg/attempt.h"
#include "pg/learning/query.h"
#include "pg/report.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#define MOST_EXAMPLES	1000000
#define ROWS_AT_ONCE	100

/* The columns that are not only for rewards, by number; SPI_ERROR_NOATTRIBUTE where there is none. */
typedef struct Columns
{
	int			prompt;
	int			system_prompt;
	int			messages;
	int			tools;
	int			held_out;
} Columns;

typedef struct Reading
{
	const char *query;
	M1Examples *examples;
	int			space;
	MemoryContext context;		/* of the examples */
	Size		bytes;			/* of what is read so far */
	Size		most_bytes;		/* 0 = any */
	FmgrInfo	to_jsonb;
	Columns		columns;
} Reading;

/* ---- columns ---- */

static void
check_distinct(TupleDesc tupdesc)
{
	for (int i = 0; i < tupdesc->natts; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(NameStr(TupleDescAttr(tupdesc, i)->attname), NameStr(TupleDescAttr(tupdesc, j)->attname)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("minimax_m1: the query has two columns \"%s\"",
								NameStr(TupleDescAttr(tupdesc, i)->attname)),
						 errhint("Give each a name of its own with AS.")));
}

static Columns
find_columns(TupleDesc tupdesc)
{
	Columns		c = {
		.prompt = SPI_fnumber(tupdesc, "prompt"), .system_prompt = SPI_fnumber(tupdesc, "system_prompt"),
		.messages = SPI_fnumber(tupdesc, "messages"), .tools = SPI_fnumber(tupdesc, "tools"),
		.held_out = SPI_fnumber(tupdesc, "held_out")
	};

	check_distinct(tupdesc);
	if (c.prompt <= 0 && c.messages <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("minimax_m1: the query has no column \"prompt\""),
				 errhint("Name what is asked: SELECT ... AS prompt. A conversation is the column messages.")));
	if (c.prompt > 0 && c.messages > 0)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_COLUMN),
				 errmsg("minimax_m1: the query has both a column \"prompt\" and a column \"messages\""),
				 errhint("Leave one of them out, or give it another name with AS: a question is the column prompt, a "
						 "conversation the column messages.")));
	if (c.held_out > 0 && SPI_gettypeid(tupdesc, c.held_out) != BOOLOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("minimax_m1: the column \"held_out\" of the query is not boolean"),
				 errdetail("It says which rows train() holds out."),
				 errhint("Give it another name with AS if that is not what it is for.")));
	return c;
}

/* ---- rows ---- */

/* to_jsonb() asks its call for the type of what it is given. */
static void
prepare_to_jsonb(FmgrInfo *to_jsonb, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	fmgr_info(F_TO_JSONB, to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID,
											 list_make1(makeNullConst(RECORDOID, -1, InvalidOid)),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL), to_jsonb);
	MemoryContextSwitchTo(old);
}

static Jsonb *
row_as_json(Reading *r, HeapTuple row, TupleDesc tupdesc)
{
	Datum		value = heap_copy_tuple_as_datum(row, tupdesc);
	Jsonb	   *json = DatumGetJsonbP(FunctionCall1(&r->to_jsonb, value));
	Jsonb	   *copy = MemoryContextAlloc(r->context, VARSIZE(json));

	memcpy(copy, json, VARSIZE(json));
	return copy;
}

static void
check_bytes(Reading *r, const M1Example *e)
{
	r->bytes += VARSIZE(e->row);
	if (r->most_bytes > 0 && r->bytes > r->most_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the rows of the query take more than %zu MB", r->most_bytes >> 20),
				 errdetail("They are kept as JSON, and the first %d are more.", r->examples->n),
				 errhint("Leave columns out that nobody asks for, or take fewer rows.")));
}

static char *
column_text(Reading *r, HeapTuple row, TupleDesc tupdesc, int column)
{
	char	   *value = column > 0 ? SPI_getvalue(row, tupdesc, column) : NULL;

	return value == NULL ? NULL : MemoryContextStrdup(r->context, value);
}

static bool
is_held_out(const Reading *r, HeapTuple row, TupleDesc tupdesc)
{
	bool		isnull;
	Datum		value;

	if (r->columns.held_out <= 0)
		return false;
	value = SPI_getbinval(row, tupdesc, r->columns.held_out, &isnull);
	return !isnull && DatumGetBool(value);
}

static M1Example *
next_example(Reading *r)
{
	M1Examples *all = r->examples;

	if (all->n == MOST_EXAMPLES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the query has more than %d rows", MOST_EXAMPLES),
				 errhint("Add a LIMIT.")));
	if (all->n == r->space)
	{
		r->space = Max(64, r->space * 2);
		all->rows = all->rows == NULL ? MemoryContextAlloc(r->context, r->space * sizeof *all->rows) :
			repalloc_huge(all->rows, r->space * sizeof *all->rows);
	}
	return &all->rows[all->n++];
}

static void
add_example(Reading *r, HeapTuple row, TupleDesc tupdesc)
{
	M1Example  *e = next_example(r);

	e->row = row_as_json(r, row, tupdesc);
	check_bytes(r, e);
	e->prompt = column_text(r, row, tupdesc, r->columns.prompt);
	e->system_prompt = column_text(r, row, tupdesc, r->columns.system_prompt);
	e->messages = column_text(r, row, tupdesc, r->columns.messages);
	e->tools = column_text(r, row, tupdesc, r->columns.tools);
	e->held_out = is_held_out(r, row, tupdesc);
	if (e->prompt == NULL && e->messages == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("minimax_m1: the prompt of row %d is NULL", r->examples->n),
				 errhint("Leave such rows out with WHERE.")));
}

static void
add_rows(Reading *r, MemoryContext scratch)
{
	TupleDesc	tupdesc = BlessTupleDesc(SPI_tuptable->tupdesc);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		add_example(r, SPI_tuptable->vals[i], tupdesc);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
}

/* An attempt. */
static void
read_query(void *arg)
{
	Reading    *r = arg;
	MemoryContext scratch;
	Portal		portal;
	uint64		n;

	SPI_connect();
	scratch = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 example", ALLOCSET_DEFAULT_SIZES);
	portal = m1pg_open_query(r->query);
	r->columns = find_columns(portal->tupDesc);
	r->examples->divided = r->columns.held_out > 0;
	prepare_to_jsonb(&r->to_jsonb, CurrentMemoryContext);
	do
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		n = SPI_processed;
		add_rows(r, scratch);
		SPI_freetuptable(SPI_tuptable);
	} while (n > 0);
	SPI_cursor_close(portal);
	SPI_finish();
}

/* Every n-th, so that a sorted query is seen from its beginning to its end. */
static void
choose(M1Examples *examples, int most)
{
	if (most == 0 || most >= examples->n)
		return;
	for (int i = 0; i < most; i++)
		examples->rows[i] = examples->rows[(int64) i * examples->n / most];
	examples->n = most;
}

void
m1pg_examples_read(const char *query, Oid role, int most, Size most_bytes, M1Examples *examples)
{
	Reading		r = {.query = query, .examples = examples, .context = CurrentMemoryContext, .most_bytes = most_bytes};
	M1Attempt	attempt = {.run = read_query, .arg = &r, .read_only = true, .role = role};
	ErrorData  *error;

	memset(examples, 0, sizeof *examples);
	error = m1pg_attempt(&attempt);
	if (error != NULL)
		ReThrowError(error);
	if (examples->n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("minimax_m1: the query gives no rows"),
				 errhint("Run it by itself, as the same role: its WHERE, or row security, may leave none.")));
	choose(examples, most);
}

/* ---- requests ---- */

static m1_slice
utf8_of(const char *s)
{
	return m1pg_to_utf8(s, strlen(s));
}

void
m1pg_example_request(const M1Example *example, m1w_generate *g)
{
	if (example->prompt != NULL)
		g->prompt = utf8_of(example->prompt);
	if (example->system_prompt != NULL)
		g->system = utf8_of(example->system_prompt);
	if (example->messages != NULL)
		g->messages = utf8_of(example->messages);
	if (example->tools != NULL)
		g->tools = utf8_of(example->tools);
}
