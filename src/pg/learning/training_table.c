/*
 * training_table.c
 *	  A training's rows, as they are written when a step or the training has ended,
 *	  and what the engine needs to go on. Each function is a transaction of its
 *	  own (training_turn.h).
 *
 *	  Whoever writes has locked the row, and found that it is still the runner.
 */
#include "pg/learning/training.h"
#include "pg/learning/training_turn.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/parameters.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"

/* ---- the engine's state ---- */

uint64
m1pg_training_state_bytes(const M1Training *t)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();
	uint64		bytes;
	bool		isnull;

	(void) m1pg_query_training(t, "SELECT coalesce(sum(length(data)), 0)::bigint FROM minimax_m1.training_state "
							   "WHERE training = $1 AND part = 'state'");
	bytes = (uint64) DatumGetInt64(m1pg_result(0, 1, &isnull));
	m1pg_end_training_turn(&turn);
	return bytes;
}

bytea *
m1pg_training_read_state(const M1Training *t, int piece)
{
	MemoryContext context = CurrentMemoryContext;
	M1TrainingTurn turn = m1pg_begin_training_turn();
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
	m1pg_end_training_turn(&turn);
	return data;
}

/* ---- what is wanted ---- */

/* Locks the row. */
static M1Wanted
lock_run(const M1Training *t)
{
	char	   *wanted;

	if (m1pg_query_training(t, "SELECT wanted FROM minimax_m1.training_run WHERE id = $1 AND state = 'running' "
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
	M1TrainingTurn turn = m1pg_begin_training_turn();
	M1Wanted	wanted = lock_run(t);

	m1pg_training_check_owner(t);
	if (wanted == M1_WANTED_NOTHING)
		(void) m1pg_query_training(t, "UPDATE minimax_m1.training_run SET " M1PG_TRAINING_LEASE " WHERE id = $1");
	m1pg_end_training_turn(&turn);
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

	(void) m1pg_query("UPDATE minimax_m1.training_run SET step = $2, attempts = 0, " M1PG_TRAINING_LEASE ", "
					  "best_step = CASE WHEN $3 THEN $2 ELSE best_step END WHERE id = $1", 3, types, values, NULL,
					  false);
	(void) m1pg_query("SELECT minimax_m1._forget_rollouts($1, $2)", 2, types, values, NULL, false);
	m1pg_queue_note();
}

void
m1pg_training_write(M1Training *t, const M1StepResult *r)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();

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
	m1pg_end_training_turn(&turn);
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
	M1TrainingTurn turn = m1pg_begin_training_turn();
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
			(void) m1pg_query_training(t, "UPDATE minimax_m1.training_run SET best_step = step WHERE id = $1");
		}
	}
	m1pg_end_training_turn(&turn);
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
	M1TrainingTurn turn = m1pg_begin_training_turn();

	if (lock_run(t) == M1_WANTED_PAUSE)
		(void) m1pg_query_training(t, "SELECT minimax_m1._training_end($1, 'paused')");
	m1pg_queue_note();
	m1pg_end_training_turn(&turn);
}

void
m1pg_training_finish(const M1Training *t, const char *ending, bool nothing)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();
	M1Parameters p = {0};

	m1pg_add_int(&p, t->id);
	m1pg_add_string(&p, ending);
	m1pg_add_parameter(&p, BOOLOID, BoolGetDatum(nothing), false);
	end_by(t, "SELECT minimax_m1._training_finish($1, $2, $3)", &p);
	m1pg_end_training_turn(&turn);
}

void
m1pg_training_fail(const M1Training *t, const ErrorData *error)
{
	M1TrainingTurn turn = m1pg_begin_training_turn();
	M1Parameters p = {0};

	m1pg_add_int(&p, t->id);
	m1pg_add_string(&p, unpack_sql_state(error->sqlerrcode));
	m1pg_add_string(&p, error->message);
	m1pg_add_string(&p, error->detail);
	m1pg_add_string(&p, error->hint);
	end_by(t, "SELECT minimax_m1._training_fail($1, $2, $3, $4, $5)", &p);
	m1pg_end_training_turn(&turn);
}
