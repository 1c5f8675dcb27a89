/*
 * training_claim.c
 *	  A process takes the training whose turn it is, and reads it. What cannot be
 *	  read fails it, and a process that ends in the middle is counted.
 */
#include "pg/learning/training.h"
#include "pg/learning/training_turn.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/memutils.h"

#define MOST_ATTEMPTS	"5"		/* in SQL: of a step that takes its runner or the server with it */

/*
 * One at a time, and then the next one of the owner whose last one began longest ago. Who looks for one has none: what
 * is leased by its process ID it has given back, or another process has left.
 */
#define CLAIM_SQL \
	"UPDATE minimax_m1.training_run r SET state = 'running', attempts = attempts + 1, " M1PG_TRAINING_LEASE ", " \
	"started_at = coalesce(started_at, clock_timestamp()) " \
	"WHERE id = (SELECT id FROM minimax_m1.training_run t WHERE state IN ('queued', 'running') " \
	"ORDER BY state = 'running' DESC, " \
	"(SELECT max(o.started_at) FROM minimax_m1.training_run o WHERE o.owner = t.owner) NULLS FIRST, " \
	"id LIMIT 1 FOR UPDATE) " \
	"AND (state = 'queued' OR leased_by = pg_backend_pid() OR NOT minimax_m1._training_has_process(leased_by)) " \
	"RETURNING id, owner::oid, attempts > " MOST_ATTEMPTS

#define READ_SQL \
	"SELECT name::text, method, reward, reward_function, path, steps, step, options, best_step, from_adapter, " \
	"NOT EXISTS (SELECT FROM minimax_m1.training_statistics s WHERE s.training = r.id), " \
	"(SELECT coalesce(sum(s.updates - s.dropped), 0)::bigint FROM minimax_m1.training_statistics s " \
	"WHERE s.training = r.id), " \
	"(SELECT count(*)::int FROM minimax_m1.training_statistics s WHERE s.training = r.id AND s.updates > 0 " \
	"AND s.step > ALL (SELECT l.step FROM minimax_m1.training_statistics l " \
	"WHERE l.training = r.id AND l.updates > l.dropped)) " \
	"FROM minimax_m1.training_run r WHERE id = $1"

static int
number(int column)
{
	bool		isnull;
	Datum		value = m1pg_result(0, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static Oid
object_id(int column)
{
	bool		isnull;
	Datum		value = m1pg_result(0, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static bool
flag(int column)
{
	bool		isnull;

	return DatumGetBool(m1pg_result(0, column, &isnull));
}

static bool
wait_for_room(void *arg, const m1_error *error)
{
	return m1pg_training_wait(arg, error);
}

/* No more than it takes to fail it: what is read of it afterwards may be too much. */
static bool
claim(M1Training *t, bool *too_many)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();
	bool		claimed = m1pg_query(CLAIM_SQL, 0, NULL, NULL, NULL, false) > 0;

	if (claimed)
	{
		t->id = number(1);
		t->owner = object_id(2);
		t->caller = (M1LearnCaller) {.role = t->owner, .function = "train", .refused = wait_for_room, .arg = t};
		*too_many = flag(3);
	}
	m1pg_end_training_turn(&turn);
	return claimed;
}

static void
read_run(M1Training *t)
{
	bool		isnull;
	MemoryContext old;

	(void) m1pg_query_training(t, READ_SQL);
	t->name = m1pg_result_text(t->context, 0, 1);
	if (!m1pg_training_find_method(m1pg_result_text(t->context, 0, 2), &t->method))
		elog(ERROR, "minimax_m1: training %d has no method", t->id);
	t->reward_name = m1pg_result_text(t->context, 0, 3);
	t->reward_function = object_id(4);
	t->path = m1pg_result_text(t->context, 0, 5);
	t->steps = number(6);
	t->step = flag(11) ? -1 : number(7);
	t->best_step = number(9);
	t->from_adapter = number(10);
	t->updates_of_steps = DatumGetInt64(m1pg_result(0, 12, &isnull));
	t->barren = number(13);
	old = MemoryContextSwitchTo(t->context);
	m1pg_training_read_options(DatumGetJsonbP(m1pg_result(0, 8, &isnull)), &t->options);
	MemoryContextSwitchTo(old);
	t->served = -1;
	t->end_of_turn = -1;
}

/* What it was asked before: -1 when not even that was. */
static void
read_heldout(M1Training *t)
{
	bool		isnull;
	Datum		value;

	(void) m1pg_query_training(t, "SELECT max(heldout) FILTER (WHERE step = 0), "
							   "max(heldout) FILTER (WHERE step = best_step) "
							   "FROM (SELECT s.step, r.best_step, "
							   "CASE WHEN r.reward IS NULL THEN - s.heldout_loss ELSE s.heldout END AS heldout "
							   "FROM minimax_m1.training_run r "
							   "JOIN minimax_m1.training_statistics s ON s.training = r.id "
							   "WHERE r.id = $1) h");
	value = m1pg_result(0, 1, &isnull);
	t->first_heldout = isnull ? get_float8_nan() : DatumGetFloat8(value);
	value = m1pg_result(0, 2, &isnull);
	t->best_heldout = isnull ? -get_float8_infinity() : DatumGetFloat8(value);
}

static void
read_examples(M1Training *t, const char *part, M1Examples *examples, int **solved)
{
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		values[2] = {Int32GetDatum(t->id), CStringGetTextDatum(part)};
	uint64		n = m1pg_query("SELECT example, coalesce(asked->>'prompt', example->>'prompt'), "
							   "coalesce(asked->>'system_prompt', example->>'system_prompt'), "
							   "coalesce(asked->>'messages', example->>'messages'), "
							   "coalesce(asked->>'tools', example->>'tools'), solved "
							   "FROM minimax_m1.training_example WHERE training = $1 AND part = $2 ORDER BY item",
							   2, types, values, NULL, true);
	MemoryContext old = MemoryContextSwitchTo(t->context);

	examples->n = (int) n;
	examples->rows = palloc_extended(Max(n, 1) * sizeof *examples->rows, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	*solved = palloc0(Max(n, 1) * sizeof **solved);
	for (uint64 i = 0; i < n; i++)
	{
		M1Example  *e = &examples->rows[i];
		bool		isnull;

		e->row = DatumGetJsonbPCopy(m1pg_result(i, 1, &isnull));
		e->prompt = m1pg_result_text(t->context, i, 2);
		e->system_prompt = m1pg_result_text(t->context, i, 3);
		e->messages = m1pg_result_text(t->context, i, 4);
		e->tools = m1pg_result_text(t->context, i, 5);
		(*solved)[i] = DatumGetInt32(m1pg_result(i, 6, &isnull));
	}
	MemoryContextSwitchTo(old);
}

static void
read_training(M1Training *t)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();
	int		   *unused;

	read_run(t);
	read_heldout(t);
	read_examples(t, "train", &t->train, &t->solved);
	read_examples(t, "holdout", &t->holdout, &unused);
	m1pg_end_training_turn(&turn);
}

static void
check_attempts(bool too_many)
{
	if (too_many)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("minimax_m1: the training was begun " MOST_ATTEMPTS
						" times without coming to the end of a step"),
				 errdetail("Each time its process or the server ended."),
				 errhint("The server's log tells why.")));
}

static M1Training *
new_training(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "minimax_m1 training", ALLOCSET_DEFAULT_SIZES);
	M1Training *t = MemoryContextAllocZero(context, sizeof *t);

	t->context = context;
	return t;
}

M1Training *
m1pg_training_claim(void)
{
	M1Training *t = new_training();
	bool		too_many;

	if (!claim(t, &too_many))
	{
		MemoryContextDelete(t->context);
		return NULL;
	}
	/* from here on, what fails fails it, and a process that ends is counted */
	m1pg_training_taken = t;
	check_attempts(too_many);
	read_training(t);
	return t;
}
