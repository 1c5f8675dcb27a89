/*
 * training_engine.c
 *	  The engine's part of a training: it has it in its memory, and loses it when
 *	  it ends. What a step left is in the table then, and is put there again.
 */
#include "pg/learning/training.h"
#include "pg/learning/served_adapter.h"
#include "pg/shared.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

/* Of a new adapter. */
#define EXPERT_RANK	1
#define ALPHA		32.0f
#define TARGETS		"attention,experts,router"

/* Databases may number theirs alike. */
char *
m1pg_training_engine_name(const M1Training *t)
{
	return psprintf("training/%u/%d", MyDatabaseId, t->id);
}

char *
m1pg_training_reference_name(const M1Training *t)
{
	return psprintf("training/%u/%d/reference", MyDatabaseId, t->id);
}

char *
m1pg_training_adapter_name(const M1Training *t, int step)
{
	return psprintf("training/%u/%d/%d", MyDatabaseId, t->id, step);
}

/* ---- what it begins with ---- */

/* *found: there is a state, and it was put. */
static bool
put_state(M1Training *t, m1_slice under, bool *found, m1_error *error)
{
	uint64		total = m1pg_training_state_bytes(t);
	uint64		offset = 0;
	bytea	   *data;

	*found = total > 0;
	if (total == 0 && t->step > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("minimax_m1: what step %d of training \"%s\" has left is not there", t->step, t->name),
				 errdetail("A dump does not carry it."),
				 errhint("Begin a new training.")));
	for (int piece = 0; offset < total && (data = m1pg_training_read_state(t, piece)) != NULL; piece++)
	{
		m1w_bytes	m = {
			.name = under, .total = total, .offset = offset, .bytes = {VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)}
		};

		if (!m1pg_learn_put(&t->caller, &m, error))
			return false;
		offset += m.bytes.len;
		pfree(data);
	}
	return true;
}

/* The adapter that the options name, as it was when train() was called; the name by which the engine knows it. */
static m1_slice
first_adapter(const M1Training *t)
{
	MemoryContext context = CurrentMemoryContext;
	m1_slice	name;
	Oid			userid;
	int			security;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&userid, &security);
	SetUserIdAndSecContext(t->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	MemoryContextSwitchTo(context);
	name = m1pg_served_adapter_of(t->options.adapter, t->from_adapter);
	SetUserIdAndSecContext(userid, security);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return name;
}

/* `found`: a state was put under its name. */
static bool
begin_as(M1Training *t, m1_slice name, bool found, m1w_learned *learned, m1_error *error)
{
	m1w_training m = {
		.name = name, .rank = t->options.rank, .expert_rank = EXPERT_RANK, .targets = m1_slice_of(TARGETS),
		.alpha = ALPHA, .seed = t->options.seed
	};

	if (found)
		m.from = name;
	else if (t->options.adapter != NULL)
		m.from = first_adapter(t);
	return m1pg_learn_begin(&t->caller, &m, learned, error);
}

/* As it was after the last step. */
static void
note_begun(M1Training *t, const m1w_learned *learned)
{
	if (learned->updates != t->updates_of_steps)
		m1pg_learn_disbelieve(psprintf("It has begun behind " INT64_FORMAT " updates, and " INT64_FORMAT " were made.",
									   (int64) learned->updates, t->updates_of_steps));
	t->updates = learned->updates;
	t->state_bytes = learned->bytes;
}

/* A runner that was killed may have left it. */
static bool
forget(M1Training *t, m1_slice name, m1_error *error)
{
	return m1pg_learn_forget(&t->caller, M1W_KEPT_TRAINING, name, error);
}

static bool
forget_served(M1Training *t, int step, m1_error *error)
{
	return m1pg_learn_forget(&t->caller, M1W_KEPT_ADAPTER, m1_slice_of(m1pg_training_adapter_name(t, step)), error);
}

/* Of the step that ended last, of the one before it or of the one after it: where a runner is at when it is ended. */
static bool
forget_all_served(M1Training *t, m1_error *error)
{
	for (int step = Max(t->step - 1, 0); step <= t->step + 1; step++)
		if (!forget_served(t, step, error))
			return false;
	t->served = -1;
	return true;
}

static bool
begin_reference(M1Training *t, m1_error *error)
{
	m1_slice	name = m1_slice_of(m1pg_training_reference_name(t));

	return t->options.kl_coef == 0 || (forget(t, name, error) && begin_as(t, name, false, NULL, error));
}

static bool
begin(M1Training *t, m1_error *error)
{
	m1_slice	name = m1_slice_of(m1pg_training_engine_name(t));
	bool		found;
	m1w_learned learned;

	if (!forget(t, name, error) || !forget_all_served(t, error) || !put_state(t, name, &found, error) ||
		!begin_as(t, name, found, &learned, error))
		return false;
	note_begun(t, &learned);
	return begin_reference(t, error);
}

bool
m1pg_training_ensure(M1Training *t, m1_error *error)
{
	int			engine = m1pg_shared->model.readiness.pid;

	if (t->engine == engine && engine != 0 && !t->spoilt)
		return true;
	t->engine = engine;
	t->spoilt = true;
	t->learnt = false;
	t->served = -1;
	if (begin(t, error))
	{
		t->spoilt = false;
		return true;
	}
	if (m1pg_shared->model.readiness.pid == engine && m1pg_shared->model.readiness.state == M1_ENGINE_READY)
		return false;
	/* which another engine will answer otherwise */
	t->engine = 0;
	return false;
}

/* Behind the eight letters that say what the bytes are, they name the model; but the engine may say anything. */
m1_slice
m1pg_training_base(m1_slice state)
{
	m1_slice	digest = {state.data + 8, 16};

	if (state.len < 24 || !m1w_is_digest(digest))
		m1pg_learn_disbelieve("The state that it gave names no model.");
	return digest;
}

/* ---- the adapter that samples ---- */

bool
m1pg_training_serve(M1Training *t, int step, m1_error *error)
{
	m1_slice	training = m1_slice_of(m1pg_training_engine_name(t));
	m1_slice	adapter = m1_slice_of(m1pg_training_adapter_name(t, step));

	if (t->served == step)
		return true;
	if (t->served >= 0 && !forget_served(t, t->served, error))
		return false;
	t->served = -1;
	if (!forget_served(t, step, error) || !m1pg_learn_serve(&t->caller, adapter, training, error))
		return false;
	t->served = step;
	return true;
}

/* What it cannot be told, it has forgotten by itself, or forgets with its end. Another runner may have begun. */
void
m1pg_training_leave_engine(M1Training *t)
{
	m1_error	error;

	if (m1pg_shared->model.readiness.state != M1_ENGINE_READY)
		return;
	(void) forget_all_served(t, &error);
	(void) m1pg_learn_forget(&t->caller, M1W_KEPT_BYTES, m1_slice_of(m1pg_training_engine_name(t)), &error);
	(void) forget(t, m1_slice_of(m1pg_training_engine_name(t)), &error);
	if (t->options.kl_coef > 0)
		(void) forget(t, m1_slice_of(m1pg_training_reference_name(t)), &error);
	t->engine = 0;
	t->served = -1;
}
