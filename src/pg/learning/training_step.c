/*
 * training_step.c
 *	  One step: answers are sampled and graded until enough groups of them differ
 *	  in their rewards, the adapter learns from these, and held-out rows are asked
 *	  when it is time. Nothing of it is written here.
 */
#include "pg/learning/training.h"
#include "pg/learning/adapter_files.h"
#include "pg/report.h"

#include <math.h>

#include "base/random.h"
#include "lib/stringinfo.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/float.h"

/* Groups that are of no use are replaced by others this often; what is learnt from is at least half a step's groups. */
#define MOST_ROUNDS	3

/* ---- which rows ---- */

typedef struct Drawn
{
	uint64		number;
	int			row;
} Drawn;

static int
compare_drawn(const void *a, const void *b)
{
	const Drawn *x = a;
	const Drawn *y = b;

	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return x->row - y->row;
}

/* The rows in this step's order, without those that were solved so often that nothing is learnt from them. */
static int *
order_rows(const M1Training *t, int step, int *n)
{
	Drawn	   *drawn = palloc(t->train.n * sizeof *drawn);
	int		   *rows = palloc(t->train.n * sizeof *rows);
	uint64		bits = m1_random_bits(t->options.seed, (uint64) step + PG_INT32_MAX);

	*n = 0;
	for (int row = 0; row < t->train.n; row++)
		if (t->options.drop_solved == 0 || t->solved[row] < t->options.drop_solved)
			drawn[(*n)++] = (Drawn) {m1_random_bits(bits, row), row};
	qsort(drawn, *n, sizeof *drawn, compare_drawn);
	for (int i = 0; i < *n; i++)
		rows[i] = drawn[i].row;
	return rows;
}

/*
 * The rows of a step of right answers, of which each is shown before any is shown again: all of them are gone through
 * in one order after another.
 */
static int *
next_rows(const M1Training *t, int step, int *n)
{
	int		   *rows;
	int		   *order = NULL;
	int			n_order;

	*n = Min(t->train.n, t->options.prompts_per_step);
	rows = palloc(*n * sizeof *rows);
	for (int i = 0; i < *n; i++)
	{
		int64		place = (int64) (step - 1) * *n + i;

		if (order == NULL || place % t->train.n == 0)
			order = order_rows(t, (int) (place / t->train.n), &n_order);
		rows[i] = order[place % t->train.n];
	}
	return rows;
}

/* ---- answers ---- */

static double
ms_since(instr_time began)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, began);
	return INSTR_TIME_GET_MILLISEC(now);
}

static bool
sample_and_grade(M1Training *t, M1StepResult *r, const M1Examples *examples, const int *rows, int n, int samples,
				 M1Answer *answers, m1_error *error)
{
	instr_time	began;
	bool		sampled;

	MemoryContext old;

	INSTR_TIME_SET_CURRENT(began);
	sampled = m1pg_training_sample(t, r, examples, rows, n, samples, answers, error);
	r->sampling_ms += ms_since(began);
	if (!sampled)
		return false;
	INSTR_TIME_SET_CURRENT(began);
	old = MemoryContextSwitchTo(r->context);
	m1pg_training_grade(t, examples, answers, n * samples);
	MemoryContextSwitchTo(old);
	r->reward_ms += ms_since(began);
	return true;
}

/* Those that were not asked for yet. */
static M1Answer *
new_answers(const M1StepResult *r, int64 n)
{
	return MemoryContextAllocExtended(r->context, Max(n, 1) * sizeof(M1Answer), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

static int64
tokens_of(const M1Answer *answers, int n)
{
	int64		sum = 0;

	for (int i = 0; i < n; i++)
		if (answers[i].there)
			sum += answers[i].done.prompt_tokens + answers[i].done.completion_tokens;
	return sum;
}

/* When the model answers nothing at all, it is a failure, and not a matter of rewards. */
static void
check_answers(const M1Answer *answers, int n)
{
	for (int i = 0; i < n; i++)
		if (answers[i].there)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: no row of the examples can be answered"),
			 errdetail("Of the first: %s", n > 0 ? text_to_cstring(answers[0].error) : "there is none.")));
}

static int
count_useful(const M1StepResult *r)
{
	int			n = 0;

	for (int i = 0; i < r->n_groups; i++)
		n += r->groups[i].useful;
	return n;
}

static void
add_groups(const M1Training *t, M1StepResult *r, int n)
{
	for (int i = 0; i < n; i++)
	{
		M1Group    *g = &r->groups[r->n_groups++];

		g->answers = r->answers + r->n_answers;
		g->n = t->options.group_size;
		m1pg_training_advantages(t->method, g);
		r->n_answers += g->n;
	}
}

static bool
fill_groups(M1Training *t, M1StepResult *r, m1_error *error)
{
	int			n_rows;
	int		   *rows = order_rows(t, r->step, &n_rows);
	int			most = Min(n_rows, MOST_ROUNDS * t->options.prompts_per_step);
	int			wanted = (Min(n_rows, t->options.prompts_per_step) + 1) / 2;

	if (r->answers == NULL)
	{
		r->answers = new_answers(r, (int64) most * t->options.group_size);
		r->groups = MemoryContextAlloc(r->context, Max(most, 1) * sizeof *r->groups);
	}
	while (r->n_groups < most && count_useful(r) < wanted)
	{
		int			n = Min(t->options.prompts_per_step, most - r->n_groups);

		if (!sample_and_grade(t, r, &t->train, rows + r->n_groups, n, t->options.group_size, r->answers + r->n_answers,
							  error))
			return false;
		check_answers(r->answers + r->n_answers, n * t->options.group_size);
		add_groups(t, r, n);
	}
	return true;
}

/* What came of the answers of a step that nothing can be learnt from: groups of them, and rewards that have failed. */
typedef struct Fruit
{
	int			solved;
	int			hopeless;
	int			silent;			/* of no answer is there a reward */
	int			failed;
	const text *why;			/* the first of these has */
} Fruit;

static Fruit
fruit_of(const M1StepResult *r)
{
	Fruit		f = {0};

	for (int i = 0; i < r->n_groups; i++)
	{
		f.solved += r->groups[i].solved;
		f.hopeless += r->groups[i].hopeless;
		f.silent += r->groups[i].silent;
	}
	for (int i = 0; i < r->n_answers; i++)
		if (r->answers[i].reward_failed && f.failed++ == 0)
			f.why = r->answers[i].error;
	return f;
}

static char *
detail_of(const M1Training *t, const M1StepResult *r, const Fruit *f)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "Each of %d rows was answered %d times, and within none of them do the rewards differ: "
					 "all answers of %d are right, none of %d is worth anything, and none of %d has a reward.",
					 r->n_groups, t->options.group_size, f->solved, f->hopeless, f->silent);
	if (f->failed > 0)
		appendStringInfo(&s, " The reward failed for %d answers, at first with: %s", f->failed,
						 text_to_cstring(f->why));
	return s.data;
}

static const char *
hint_of(const M1StepResult *r, const Fruit *f)
{
	if (f->failed > 0)
		return "Mend the reward.";
	if (f->solved == r->n_groups)
		return "The model can do this already: ask for more.";
	if (f->silent == r->n_groups)
		return "Let the reward return a number: NULL means that it has no opinion.";
	if (f->hopeless == r->n_groups)
		return "Show right answers first (method sft), ask for less, or give partial rewards.";
	return "Raise group_size or temperature, or give partial rewards.";
}

/* Before anything was learnt it is an error; afterwards, it is the end. */
static void
check_useful(const M1Training *t, const M1StepResult *r)
{
	Fruit		f = fruit_of(r);

	if (t->step > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("minimax_m1: there is nothing to learn from"),
			 errdetail("%s", detail_of(t, r, &f)),
			 errhint("%s", hint_of(r, &f))));
}

/* ---- held-out rows ---- */

static bool
is_time_to_evaluate(const M1Training *t, int step)
{
	return t->holdout.n > 0 && (step % t->options.evaluate_every == 0 || step == t->steps);
}

static bool
ask_loss(M1Training *t, M1StepResult *r, m1_error *error)
{
	instr_time	began;
	bool		asked;

	INSTR_TIME_SET_CURRENT(began);
	asked = m1pg_training_heldout_loss(t, r, error);
	r->training_ms += ms_since(began);
	return asked;
}

static bool
evaluate(M1Training *t, M1StepResult *r, m1_error *error)
{
	int		   *rows = palloc(t->holdout.n * sizeof *rows);

	if (t->method == M1_METHOD_SFT && !ask_loss(t, r, error))
		return false;
	if (t->reward_name == NULL)
		return true;
	for (int i = 0; i < t->holdout.n; i++)
		rows[i] = i;
	r->n_heldout = t->holdout.n;
	if (r->heldout == NULL)
		r->heldout = new_answers(r, r->n_heldout);
	return sample_and_grade(t, r, &t->holdout, rows, r->n_heldout, 1, r->heldout, error);
}

double
m1pg_training_heldout(const M1Training *t, const M1StepResult *r)
{
	return t->reward_name != NULL ? m1pg_spread_of_rewards(r->heldout, r->n_heldout).mean : -r->heldout_loss;
}

/* ---- the step ---- */

static bool
learn(M1Training *t, M1StepResult *r, m1_error *error)
{
	instr_time	began;
	bool		learnt;
	int			n_rows;
	int		   *rows;

	INSTR_TIME_SET_CURRENT(began);
	t->spoilt = true;
	if (t->method == M1_METHOD_SFT)
	{
		rows = next_rows(t, r->step, &n_rows);
		learnt = m1pg_training_learn_answers(t, r, rows, n_rows, error);
	}
	else
		learnt = m1pg_training_learn(t, r, error);
	r->training_ms += ms_since(began);
	t->learnt = learnt;
	t->spoilt = !learnt;
	return learnt;
}

/* The adapter for others to use. It is smaller than what the optimizer keeps beside it, but for its config. */
static bool
fetch_best(M1Training *t, m1_slice name, M1StepResult *r, m1_error *error)
{
	const char *wrong;

	if (!m1pg_learn_fetch(&t->caller, name, M1W_PART_PEFT, t->state_bytes + M1PG_PIECE_BYTES, &r->best, error))
		return false;
	if ((wrong = m1pg_wrong_with_adapter(r->best, m1pg_training_base(r->state))) != NULL)
		m1pg_learn_disbelieve(psprintf("The files that it gave cannot become an adapter. %s", wrong));
	return true;
}

/* What of the training has to be kept: to go on, and the adapter if it is the best so far. `last`: no step follows. */
static bool
fetch(M1Training *t, M1StepResult *r, bool last, m1_error *error)
{
	m1_slice	name = m1_slice_of(m1pg_training_engine_name(t));
	double		heldout = m1pg_training_heldout(t, r);
	bool		best = r->step > 0 && (t->holdout.n == 0 ? last :
									   !isnan(heldout) && heldout > Max(t->first_heldout, t->best_heldout));

	if (!m1pg_learn_fetch(&t->caller, name, M1W_PART_TRAINING, t->state_bytes, &r->state, error))
		return false;
	if (r->state.len != t->state_bytes)
		m1pg_learn_disbelieve(psprintf("Its state of " UINT64_FORMAT " bytes has become one of %zu.", t->state_bytes,
									   r->state.len));
	return !best || fetch_best(t, name, r, error);
}

/* ---- tries ---- */

static void
begin_result(M1StepResult *r, int step, MemoryContext context)
{
	memset(r, 0, sizeof *r);
	r->step = step;
	r->context = context;
	r->heldout_loss = r->loss = r->entropy = r->kl = r->clipped = r->gradient_norm = r->mismatch = get_float8_nan();
}

void
m1pg_training_begin_step(M1Training *t, MemoryContext context, M1StepResult *r)
{
	begin_result(r, t->step + 1, context);
	t->learnt = false;
}

/* Nothing can be learnt any more: what the last step has left is looked at, if it was not. */
static M1StepEnd
look_at_last(M1Training *t, M1StepResult *r, m1_error *error)
{
	bool		looked = is_time_to_evaluate(t, t->step) || t->holdout.n == 0;

	if (!r->nothing)
		begin_result(r, t->step, r->context);
	r->nothing = true;
	if (!looked && (!m1pg_training_serve(t, t->step, error) || !evaluate(t, r, error)))
		return M1_STEP_AGAIN;
	r->tokens = tokens_of(r->heldout, r->n_heldout);
	return fetch(t, r, true, error) ? M1_STEP_NOTHING : M1_STEP_AGAIN;
}

static bool
sample(M1Training *t, M1StepResult *r, m1_error *error)
{
	if (!r->sampled)
		r->sampled = m1pg_training_serve(t, r->step - 1, error) && fill_groups(t, r, error);
	return r->sampled;
}

static bool
learn_and_look(M1Training *t, M1StepResult *r, m1_error *error)
{
	if (r->step > 0 && !t->learnt && !learn(t, r, error))
		return false;
	if (is_time_to_evaluate(t, r->step) && (!m1pg_training_serve(t, r->step, error) || !evaluate(t, r, error)))
		return false;
	return fetch(t, r, r->step == t->steps, error);
}

M1StepEnd
m1pg_training_step(M1Training *t, M1StepResult *r, m1_error *error)
{
	bool		by_reward = r->step > 0 && t->method != M1_METHOD_SFT;

	if (!m1pg_training_ensure(t, error))
		return M1_STEP_AGAIN;
	if (r->nothing)
		return look_at_last(t, r, error);
	if (by_reward && !sample(t, r, error))
		return M1_STEP_AGAIN;
	if (by_reward && count_useful(r) == 0)
	{
		check_useful(t, r);
		return look_at_last(t, r, error);
	}
	if (!learn_and_look(t, r, error))
		return M1_STEP_AGAIN;
	r->tokens = r->shown_tokens + tokens_of(r->answers, r->n_answers) + tokens_of(r->heldout, r->n_heldout);
	return M1_STEP_DONE;
}
