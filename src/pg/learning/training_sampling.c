/*
 * training_sampling.c
 *	  Answers to examples, and what the reward makes of them. The model works
 *	  while no transaction is open; rewards are asked in transactions of their own,
 *	  a subtransaction each (attempt.c).
 *
 *	  An answer depends on its seed alone, not on what else is in the batch: so a
 *	  step that is made again has the same, and one that goes on after a failure
 *	  asks for those that it does not have yet.
 */
#include "pg/learning/training.h"
#include "pg/attempt.h"
#include "pg/client/batch.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"
#include "pg/shared.h"

#include <math.h>

#include "access/xact.h"
#include "base/random.h"
#include "miscadmin.h"
#include "text/jsonparse.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* So many rewards are asked in one transaction, which holds a snapshot; or for so long, as some ask the model. */
#define GRADED_AT_ONCE	256
#define GRADING_MS		1000

/* ---- answers ---- */

typedef struct Sampling
{
	M1Training *t;
	int			step;
	const M1Examples *examples;
	const int  *rows;
	int			samples;
	M1Answer   *answers;
	int		   *missing;		/* of the answers, those that are asked for */
	m1_slice	adapter;
	MemoryContext context;		/* of what is kept */
	bool		stopped;		/* a request has failed in a way that is no answer's own */
	m1_error	error;
} Sampling;

static uint64
seed_of(const Sampling *s, int row, int sample)
{
	uint64		bits = m1_random_bits(s->t->options.seed, s->step);

	bits = m1_random_bits(bits, row);
	return m1_random_bits(bits, sample) & PG_INT64_MAX;
}

static bool
sampling_request(void *arg, int number, m1w_generate *g, m1_error *error)
{
	Sampling   *s = arg;
	int			i = s->missing[number];
	int			row = s->rows[i / s->samples];

	/* the rest of what cannot be is not asked for */
	if (s->stopped)
	{
		*error = s->error;
		return false;
	}
	m1pg_training_request(&s->t->options, &s->examples->rows[row], g);
	g->adapter = s->adapter;
	g->seed = seed_of(s, row, i % s->samples);
	g->background = 1;
	if (s->examples == &s->t->holdout)
	{
		g->temperature = 0;
		g->keep = 0;
	}
	return true;
}

bool
m1pg_training_is_passing(const M1Training *t, const m1_error *error)
{
	switch (error->code)
	{
		case M1_E_UNAVAILABLE:
		case M1_E_OVERLOADED:
		case M1_E_CANCELLED:
		case M1_E_DEVICE:
			return true;
		default:
			/* another engine knows nothing of the training, and one that is not ready says why in its own words */
			return m1pg_shared->model.readiness.state != M1_ENGINE_READY ||
				m1pg_shared->model.readiness.pid != t->engine;
	}
}

/* What will be over later, and a quota that has never room for so many tokens. */
static bool
stops_all(const Sampling *s, const m1_error *error)
{
	return s->stopped || error->code == M1_E_OVER_QUOTA || m1pg_training_is_passing(s->t, error);
}

static void
sampling_finish(void *arg, int number, const M1Result *result, const m1_error *error)
{
	Sampling   *s = arg;
	int			i = s->missing[number];
	M1Answer   *a = &s->answers[i];
	MemoryContext old;

	if (result == NULL && stops_all(s, error))
	{
		s->stopped = true;
		s->error = *error;
		return;
	}
	old = MemoryContextSwitchTo(s->context);
	a->row = s->rows[i / s->samples];
	a->sample = i % s->samples;
	a->reward = a->shaped = get_float8_nan();
	a->there = result != NULL;
	if (result != NULL)
		a->done = m1pg_keep_done(&result->done);
	else
		a->error = m1pg_error_text(error);
	a->ended = true;
	MemoryContextSwitchTo(old);
}

bool
m1pg_training_sample(M1Training *t, const M1StepResult *r, const M1Examples *examples, const int *rows, int n,
					 int samples, M1Answer *answers, m1_error *error)
{
	char	   *adapter = m1pg_training_adapter_name(t, t->served);
	Sampling	s = {
		.t = t, .step = r->step, .examples = examples, .rows = rows, .samples = samples, .answers = answers,
		.missing = palloc_extended(Max(n * samples, 1) * sizeof *s.missing, MCXT_ALLOC_HUGE),
		.adapter = m1_slice_of(adapter), .context = r->context
	};
	M1Batch		batch = {
		.function = "train", .arg = &s, .role = t->owner, .request = sampling_request, .finish = sampling_finish
	};

	for (int i = 0; i < n * samples; i++)
		if (!answers[i].ended)
			s.missing[batch.n++] = i;
	m1pg_run_batch(&batch);
	if (s.stopped)
		*error = s.error;
	return !s.stopped;
}

/* ---- rewards ---- */

/* NULL where there is none. *known: all can be shown. */
static text *
text_of(m1_slice s, bool *known)
{
	text	   *t = s.len > 0 ? m1pg_try_text_from_utf8(s) : NULL;

	*known = *known && (t != NULL || s.len == 0);
	return t;
}

static bool
is_json(m1_slice s)
{
	m1_json_doc doc = {0};
	m1_error	unused;
	bool		parsed = m1_json_parse(s, "calls", NULL, &doc, &unused) == M1_OK;

	m1_json_free(&doc);
	return parsed;
}

static void
read_texts(M1Answer *a)
{
	bool		known = (a->content = m1pg_try_text_from_utf8(a->done.content)) != NULL;

	a->reasoning = text_of(a->done.reasoning, &known);
	a->tool_calls = text_of(a->done.tool_calls, &known);
	if (!known)
		a->error = cstring_to_text("the reply has characters that the database's encoding does not have");
	if (a->tool_calls != NULL && !is_json(a->done.tool_calls))
		m1pg_learn_disbelieve(psprintf("The calls in its answer to row %d are no JSON.", a->row + 1));
}

static void
note_failed_reward(const M1Training *t, M1Answer *a, ErrorData *error)
{
	a->reward_failed = true;
	a->error = cstring_to_text(error->message);
	if (t->options.reward_errors == M1_REWARD_ERRORS_FAIL)
	{
		error->detail = psprintf("The reward failed for row %d: %s", a->row + 1,
								 error->detail != NULL ? error->detail : "see the message.");
		if (error->hint == NULL)
			error->hint = "With reward_errors 'zero' or 'skip', a training goes on.";
		ReThrowError(error);
	}
}

/* What a reward leaves in `scratch`, as functions do until their query ends, is gone with its answer. */
static void
grade(M1Training *t, const M1Examples *examples, M1Answer *a, MemoryContext scratch)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	M1Graded	graded = {
		.answer = a->tool_calls != NULL ? a->tool_calls : a->content,
		.reasoning = a->reasoning != NULL ? a->reasoning : cstring_to_text(""),
		.example = examples->rows[a->row].row
	};
	ErrorData  *error = m1pg_reward_call(&t->reward, t->owner, &graded, &a->reward);

	MemoryContextSwitchTo(old);
	if (error != NULL)
		note_failed_reward(t, a, error);
	MemoryContextReset(scratch);
}

/* As the owner, who may have lost the right to call it by now. It is the function that train() has found. */
static void
find_reward(M1Training *t)
{
	Oid			userid;
	int			security;

	m1pg_training_check_owner(t);
	GetUserIdAndSecContext(&userid, &security);
	SetUserIdAndSecContext(t->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	m1pg_reward_find_again(t->reward_function, t->reward_name, &t->reward);
	SetUserIdAndSecContext(userid, security);
}

/* Returns how many of them are graded. */
static int
grade_some(M1Training *t, const M1Examples *examples, M1Answer *answers, int n)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch;
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GRADING_MS);
	int			i;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	scratch = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 reward", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	if (t->reward_name != NULL)
		find_reward(t);
	for (i = 0; i < n && (i == 0 || GetCurrentTimestamp() < end); i++)
	{
		if (!answers[i].there || answers[i].graded)
			continue;
		read_texts(&answers[i]);
		if (t->reward_name != NULL && answers[i].error == NULL)
			grade(t, examples, &answers[i], scratch);
		m1pg_training_shape(&t->options, &answers[i]);
		answers[i].graded = true;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return i;
}

void
m1pg_training_grade(M1Training *t, const M1Examples *examples, M1Answer *answers, int n)
{
	for (int from = 0; from < n;)
		from += grade_some(t, examples, answers + from, Min(GRADED_AT_ONCE, n - from));
}
