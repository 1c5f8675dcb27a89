/*
 * training_table.c
 *	  A training's rows: read when a runner takes it, and written when a step or
 *	  the training has ended. Each function is a transaction of its own, as the
 *	  extension's owner.
 *
 *	  Whoever writes has locked the row, and found that it is still the runner.
 */
#include "pg/learning/training.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/parameters.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define MOST_ATTEMPTS	"5"		/* in SQL: of a step that takes its runner or the server with it */
#define LEASE	"leased_by = pg_backend_pid(), leased_until = clock_timestamp() + '1 hour'"

/* ---- transactions ---- */

typedef struct Turn
{
	MemoryContext context;
	M1Guard		guard;
} Turn;

/* With the extension went all that this process is for. In the engine, it is given up when others want room. */
static Oid
owner_of_tables(void)
{
	if (!OidIsValid(m1pg_extension_owner()))
		proc_exit(0);
	return m1pg_extension_owner();
}

static Turn
begin_turn(void)
{
	Turn		turn = {.context = CurrentMemoryContext};

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	turn.guard = m1pg_become(owner_of_tables(), false);
	return turn;
}

static void
end_turn(const Turn *turn)
{
	m1pg_unbecome(&turn->guard);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(turn->context);
}

/* A statement about one training, whose id is its $1. */
static uint64
query_of(const M1Training *t, const char *sql)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(t->id)};

	return m1pg_query(sql, 1, types, values, NULL, false);
}

/* ---- taking a training ---- */

/*
 * One at a time, and then the next one of the owner whose last one began longest ago. Who looks for one has none: what
 * is leased by its process ID it has given back, or another process has left.
 */
#define CLAIM_SQL \
	"UPDATE minimax_m1.training_run r SET state = 'running', attempts = attempts + 1, " LEASE ", " \
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
	Turn		turn = begin_turn();
	bool		claimed = m1pg_query(CLAIM_SQL, 0, NULL, NULL, NULL, false) > 0;

	if (claimed)
	{
		t->id = number(1);
		t->owner = object_id(2);
		t->caller = (M1LearnCaller) {.role = t->owner, .function = "train", .refused = wait_for_room, .arg = t};
		*too_many = flag(3);
	}
	end_turn(&turn);
	return claimed;
}

static void
read_run(M1Training *t)
{
	bool		isnull;
	MemoryContext old;

	(void) query_of(t, READ_SQL);
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

	(void) query_of(t, "SELECT max(heldout) FILTER (WHERE step = 0), max(heldout) FILTER (WHERE step = best_step) "
					"FROM (SELECT s.step, r.best_step, "
					"CASE WHEN r.reward IS NULL THEN - s.heldout_loss ELSE s.heldout END AS heldout "
					"FROM minimax_m1.training_run r JOIN minimax_m1.training_statistics s ON s.training = r.id "
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
	Turn		turn = begin_turn();
	int		   *unused;

	read_run(t);
	read_heldout(t);
	read_examples(t, "train", &t->train, &t->solved);
	read_examples(t, "holdout", &t->holdout, &unused);
	end_turn(&turn);
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

/* ---- the engine's state ---- */

uint64
m1pg_training_state_bytes(const M1Training *t)
{
	Turn		turn = begin_turn();
	uint64		bytes;
	bool		isnull;

	(void) query_of(t, "SELECT coalesce(sum(length(data)), 0)::bigint FROM minimax_m1.training_state "
					"WHERE training = $1 AND part = 'state'");
	bytes = (uint64) DatumGetInt64(m1pg_result(0, 1, &isnull));
	end_turn(&turn);
	return bytes;
}

bytea *
m1pg_training_read_state(const M1Training *t, int piece)
{
	MemoryContext context = CurrentMemoryContext;
	Turn		turn = begin_turn();
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2] = {Int32GetDatum(t->id), Int32GetDatum(piece)};
	bytea	   *data = NULL;
	bool		isnull;

	if (m1pg_query("SELECT data FROM minimax_m1.training_state WHERE training = $1 AND part = 'state' AND piece = $2",
				   2, types, values, NULL, true) > 0)
	{
		Datum		value = m1pg_result(0, 1, &isnull);

		MemoryContextSwitchTo(context);
		data = DatumGetByteaPCopy(value);
	}
	end_turn(&turn);
	return data;
}

/* ---- what is wanted ---- */

/* Locks the row. */
static M1Wanted
lock_run(const M1Training *t)
{
	char	   *wanted;

	if (query_of(t, "SELECT wanted FROM minimax_m1.training_run WHERE id = $1 AND state = 'running' "
				 "AND leased_by = pg_backend_pid() FOR UPDATE") == 0)
		return M1_WANTED_LEAVE;
	wanted = m1pg_result_text(CurrentMemoryContext, 0, 1);
	if (wanted == NULL)
		return M1_WANTED_NOTHING;
	return strcmp(wanted, "pause") == 0 ? M1_WANTED_PAUSE : M1_WANTED_CANCEL;
}

/* Nothing is run, or charged, in the name of a role that was dropped. */
void
m1pg_training_check_owner(const M1Training *t)
{
	if (GetUserNameFromId(t->owner, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("minimax_m1: the owner of training \"%s\" does not exist any more", t->name)));
}

M1Wanted
m1pg_training_wanted(const M1Training *t)
{
	Turn		turn = begin_turn();
	M1Wanted	wanted = lock_run(t);

	m1pg_training_check_owner(t);
	if (wanted == M1_WANTED_NOTHING)
		(void) query_of(t, "UPDATE minimax_m1.training_run SET " LEASE " WHERE id = $1");
	end_turn(&turn);
	return wanted;
}

/* ---- writing a step ---- */

/* INSERT INTO table VALUES ($1, ...), with the columns in the order of the table's. */
static void
insert(const char *into, M1Parameters *c)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO minimax_m1.%s VALUES (", into);
	for (int i = 0; i < c->n; i++)
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoChar(&sql, ')');
	(void) m1pg_query_with(sql.data, c);
}

/* ---- statistics ---- */

static int
compare_ints(const void *a, const void *b)
{
	return *(const int *) a - *(const int *) b;
}

typedef struct Lengths
{
	double		mean;
	double		p99;
	double		truncated;
} Lengths;

static Lengths
lengths_of(const M1Answer *answers, int n)
{
	Lengths		l = {get_float8_nan(), get_float8_nan(), get_float8_nan()};
	int		   *tokens = palloc(Max(n, 1) * sizeof *tokens);
	int			there = 0;
	double		sum = 0;
	int			cut = 0;

	for (int i = 0; i < n; i++)
		if (answers[i].there)
		{
			sum += tokens[there++] = answers[i].done.completion_tokens;
			cut += answers[i].done.finish == M1W_FINISH_LENGTH;
		}
	if (there == 0)
		return l;
	qsort(tokens, there, sizeof *tokens, compare_ints);
	return (Lengths) {sum / there, tokens[(there * 99 - 1) / 100], (double) cut / there};
}

typedef struct Counts
{
	int			useful;
	int			solved;
	int			hopeless;
	int			errors;			/* of rewards; an answer that failed has none */
	int			unanswered;
} Counts;

static Counts
counts_of(const M1StepResult *r)
{
	Counts		c = {0};

	for (int i = 0; i < r->n_groups; i++)
	{
		c.useful += r->groups[i].useful;
		c.solved += r->groups[i].solved;
		c.hopeless += r->groups[i].hopeless;
	}
	for (int i = 0; i < r->n_answers; i++)
	{
		c.errors += r->answers[i].reward_failed;
		c.unanswered += !r->answers[i].there;
	}
	return c;
}

/* Mean, its error, and of how many. */
static void
add_heldout(M1Parameters *c, const M1StepResult *r)
{
	M1Spread	heldout = m1pg_spread_of_rewards(r->heldout, r->n_heldout);

	m1pg_add_float(c, heldout.mean);
	m1pg_add_float(c, heldout.deviation / sqrt(Max(heldout.n, 1)));
	m1pg_add_parameter(c, INT4OID, Int32GetDatum(heldout.n), heldout.n == 0);
}

/* In the order of the table's columns. */
static void
insert_statistics(const M1Training *t, const M1StepResult *r)
{
	M1Spread	rewards = m1pg_spread_of_rewards(r->answers, r->n_answers);
	Lengths		lengths = lengths_of(r->answers, r->n_answers);
	Counts		counts = counts_of(r);
	M1Parameters c = {0};

	m1pg_add_int(&c, t->id);
	m1pg_add_int(&c, r->step);
	m1pg_add_float(&c, rewards.mean);
	m1pg_add_float(&c, rewards.deviation);
	add_heldout(&c, r);
	m1pg_add_float(&c, r->heldout_loss);
	m1pg_add_float(&c, r->loss);
	m1pg_add_int(&c, r->n_groups);
	m1pg_add_int(&c, counts.useful);
	m1pg_add_int(&c, counts.solved);
	m1pg_add_int(&c, counts.hopeless);
	m1pg_add_int(&c, r->n_answers);
	m1pg_add_int(&c, counts.errors);
	m1pg_add_int(&c, counts.unanswered);
	m1pg_add_parameter(&c, INT8OID, Int64GetDatum(r->tokens), false);
	m1pg_add_float(&c, lengths.mean);
	m1pg_add_float(&c, lengths.p99);
	m1pg_add_float(&c, lengths.truncated);
	m1pg_add_float(&c, r->entropy);
	m1pg_add_float(&c, r->kl);
	m1pg_add_float(&c, r->clipped);
	m1pg_add_float(&c, r->gradient_norm);
	m1pg_add_float(&c, r->updates > r->dropped ? r->router_load : get_float8_nan());
	m1pg_add_float(&c, r->mismatch);
	m1pg_add_parameter(&c, INT8OID, Int64GetDatum(r->rerouted), false);
	m1pg_add_int(&c, r->updates);
	m1pg_add_int(&c, r->dropped);
	m1pg_add_float(&c, r->sampling_ms);
	m1pg_add_float(&c, r->reward_ms);
	m1pg_add_float(&c, r->training_ms);
	insert("training_statistics", &c);
}

/* ---- answers ---- */

static void
insert_answer(const M1Training *t, int step, const char *part, const M1Answer *a)
{
	const char *finish = m1w_finish_name(a->done.finish);
	M1Parameters c = {0};

	m1pg_add_int(&c, t->id);
	m1pg_add_int(&c, step);
	m1pg_add_string(&c, part);
	m1pg_add_int(&c, a->row + 1);
	m1pg_add_int(&c, a->sample + 1);
	m1pg_add_text(&c, a->content);
	m1pg_add_text(&c, a->reasoning);
	m1pg_add_parameter(&c, JSONOID, PointerGetDatum(a->tool_calls), a->tool_calls == NULL);
	m1pg_add_float(&c, a->reward);
	m1pg_add_float(&c, strcmp(part, "train") == 0 && a->there ? a->advantage : get_float8_nan());
	m1pg_add_string(&c, a->there ? finish : NULL);
	m1pg_add_parameter(&c, INT4OID, Int32GetDatum(a->done.prompt_tokens), !a->there);
	m1pg_add_parameter(&c, INT4OID, Int32GetDatum(a->done.completion_tokens), !a->there);
	m1pg_add_text(&c, a->error);
	insert("training_answer", &c);
}

static void
insert_answers(const M1Training *t, const M1StepResult *r)
{
	for (int i = 0; i < r->n_answers; i++)
		insert_answer(t, r->step, "train", &r->answers[i]);
	for (int i = 0; i < r->n_heldout; i++)
		insert_answer(t, r->step, "holdout", &r->heldout[i]);
}

/* ---- state ---- */

static void
replace_state(const M1Training *t, int step, const char *part, m1_slice bytes)
{
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		values[2] = {Int32GetDatum(t->id), CStringGetTextDatum(part)};

	(void) m1pg_query("DELETE FROM minimax_m1.training_state WHERE training = $1 AND part = $2", 2, types, values, NULL,
					  false);
	for (size_t at = 0; at < bytes.len; at += M1PG_PIECE_BYTES)
	{
		M1Parameters c = {0};
		size_t		n = Min(bytes.len - at, M1PG_PIECE_BYTES);
		bytea	   *data = palloc(VARHDRSZ + n);

		SET_VARSIZE(data, VARHDRSZ + n);
		memcpy(VARDATA(data), bytes.data + at, n);
		m1pg_add_int(&c, t->id);
		m1pg_add_int(&c, step);
		m1pg_add_int(&c, (int) (at / M1PG_PIECE_BYTES));
		m1pg_add_parameter(&c, BYTEAOID, PointerGetDatum(data), false);
		m1pg_add_parameter(&c, TEXTOID, values[1], false);
		insert("training_state", &c);
		pfree(data);
	}
}

static void
note_base(const M1Training *t, m1_slice state)
{
	m1_slice	digest = m1pg_training_base(state);
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		values[2] = {Int32GetDatum(t->id), 0};

	values[1] = PointerGetDatum(cstring_to_text_with_len(digest.data, (int) digest.len));
	if (m1pg_query("UPDATE minimax_m1.training_run SET base_digest = $2 "
				   "WHERE id = $1 AND coalesce(base_digest, $2) = $2 RETURNING id", 2, types, values, NULL, false) == 0)
		m1pg_learn_disbelieve("Its state names another model than it began with.");
}

/* How often in a row all answers to a row were right. */
static void
note_solved(M1Training *t, const M1StepResult *r)
{
	for (int i = 0; i < r->n_groups; i++)
	{
		const M1Group *g = &r->groups[i];
		int			row = g->answers[0].row;
		int			solved = g->solved ? t->solved[row] + 1 : 0;
		Oid			types[3] = {INT4OID, INT4OID, INT4OID};
		Datum		values[3] = {Int32GetDatum(t->id), Int32GetDatum(row + 1), Int32GetDatum(solved)};

		if (solved == t->solved[row])
			continue;
		t->solved[row] = solved;
		(void) m1pg_query("UPDATE minimax_m1.training_example SET solved = $3 "
						  "WHERE training = $1 AND part = 'train' AND item = $2", 3, types, values, NULL, false);
	}
}

static void
note_step(const M1Training *t, const M1StepResult *r)
{
	Oid			types[3] = {INT4OID, INT4OID, BOOLOID};
	Datum		values[3] = {Int32GetDatum(t->id), Int32GetDatum(r->step), BoolGetDatum(r->best.len > 0)};

	(void) m1pg_query("UPDATE minimax_m1.training_run SET step = $2, attempts = 0, " LEASE ", "
					  "best_step = CASE WHEN $3 THEN $2 ELSE best_step END WHERE id = $1", 3, types, values, NULL,
					  false);
	(void) m1pg_query("SELECT minimax_m1._forget_rollouts($1, $2)", 2, types, values, NULL, false);
	m1pg_queue_note();
}

void
m1pg_training_write(M1Training *t, const M1StepResult *r)
{
	Turn		turn = begin_turn();

	if (lock_run(t) != M1_WANTED_LEAVE)
	{
		insert_statistics(t, r);
		insert_answers(t, r);
		replace_state(t, r->step, "state", r->state);
		if (r->best.len > 0)
			replace_state(t, r->step, "best", r->best);
		note_base(t, r->state);
		note_solved(t, r);
		note_step(t, r);
	}
	end_turn(&turn);
	t->step = r->step;
	t->updates_of_steps += r->updates - r->dropped;
	t->barren = r->updates > 0 && r->updates == r->dropped ? t->barren + 1 : 0;
	if (r->step == 0)
		t->first_heldout = m1pg_training_heldout(t, r);
	if (r->best.len > 0)
	{
		t->best_step = r->step;
		t->best_heldout = m1pg_training_heldout(t, r);
	}
}

void
m1pg_training_write_last(M1Training *t, const M1StepResult *r)
{
	Turn		turn = begin_turn();
	M1Parameters c = {0};

	m1pg_add_int(&c, t->id);
	m1pg_add_int(&c, r->step);
	add_heldout(&c, r);
	m1pg_add_parameter(&c, INT8OID, Int64GetDatum(r->tokens), false);
	if (lock_run(t) != M1_WANTED_LEAVE)
	{
		(void) m1pg_query_with("UPDATE minimax_m1.training_statistics SET heldout = coalesce($3, heldout), "
							   "heldout_error = coalesce($4, heldout_error), heldout_n = coalesce($5, heldout_n), "
							   "tokens = tokens + $6 WHERE training = $1 AND step = $2", &c);
		insert_answers(t, r);
		if (r->best.len > 0)
		{
			replace_state(t, r->step, "best", r->best);
			(void) query_of(t, "UPDATE minimax_m1.training_run SET best_step = step WHERE id = $1");
		}
	}
	end_turn(&turn);
}

/* ---- the end ---- */

/* If the training is still this process's; *p has its id first. Who waits for it looks again. */
static void
end_by(const M1Training *t, const char *sql, M1Parameters *p)
{
	if (lock_run(t) != M1_WANTED_LEAVE)
		(void) m1pg_query_with(sql, p);
	m1pg_queue_note();
}

void
m1pg_training_pause(const M1Training *t)
{
	Turn		turn = begin_turn();

	if (lock_run(t) == M1_WANTED_PAUSE)
		(void) query_of(t, "SELECT minimax_m1._training_end($1, 'paused')");
	m1pg_queue_note();
	end_turn(&turn);
}

void
m1pg_training_finish(const M1Training *t, const char *ending, bool nothing)
{
	Turn		turn = begin_turn();
	M1Parameters p = {0};

	m1pg_add_int(&p, t->id);
	m1pg_add_string(&p, ending);
	m1pg_add_parameter(&p, BOOLOID, BoolGetDatum(nothing), false);
	end_by(t, "SELECT minimax_m1._training_finish($1, $2, $3)", &p);
	end_turn(&turn);
}

void
m1pg_training_fail(const M1Training *t, const ErrorData *error)
{
	Turn		turn = begin_turn();
	M1Parameters p = {0};

	m1pg_add_int(&p, t->id);
	m1pg_add_string(&p, unpack_sql_state(error->sqlerrcode));
	m1pg_add_string(&p, error->message);
	m1pg_add_string(&p, error->detail);
	m1pg_add_string(&p, error->hint);
	end_by(t, "SELECT minimax_m1._training_fail($1, $2, $3, $4, $5)", &p);
	end_turn(&turn);
}
