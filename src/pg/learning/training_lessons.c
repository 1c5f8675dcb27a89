/*
 * training_lessons.c
 *	  Learns from a step's answers: its useful groups are shared out among so many
 *	  updates, a lesson each. Groups stay together, as their answers have the
 *	  prompt in common.
 */
#include "pg/learning/lesson_batch.h"
#include "pg/learning/training.h"

#include <math.h>

#include "utils/float.h"

/* As MiniMax-M1 was trained. */
#define BETA1	0.9f
#define BETA2	0.95f
#define EPSILON	1e-15f
#define CLIP	1.0f

static m1w_loss
loss_of(M1Method method)
{
	switch (method)
	{
		case M1_METHOD_SFT:
			return M1W_LOSS_CE;
		case M1_METHOD_CISPO:
			return M1W_LOSS_CISPO;
		case M1_METHOD_GRPO:
			return M1W_LOSS_GRPO;
		default:
			/* Dr. GRPO has the same trust region, and divides by what no answer's length changes */
			return M1W_LOSS_DAPO;
	}
}

static void
describe(const M1Training *t, const M1LessonBatch *b, m1_slice name, m1w_lesson *l)
{
	const M1TrainingOptions *o = &t->options;

	memset(l, 0, sizeof *l);
	l->training = name;
	l->loss = loss_of(t->method);
	l->update = 1;
	l->cap = o->is_cap;
	l->low = o->clip_low;
	l->high = o->clip_high;
	l->kl = o->kl_coef;
	l->temperature = t->method == M1_METHOD_SFT ? 1.0f : o->temperature;
	l->tokens = t->method == M1_METHOD_DR_GRPO ? (double) b->n * o->max_tokens : 0;
	l->rate = o->learning_rate;
	l->beta1 = BETA1;
	l->beta2 = BETA2;
	l->eps = EPSILON;
	l->clip = CLIP;
	m1pg_lesson_fill(b, l);
}

/* ---- what is too large ---- */

/* How much is learnt at once is a matter of these. */
static char *
hint_of(const M1Training *t)
{
	return psprintf("Less is learnt at once with a higher updates_per_step, or a lower prompts_per_step%s.",
					t->method == M1_METHOD_SFT ? "" : " or group_size");
}

void
m1pg_training_check_size(const M1Training *t, const M1LessonBatch *b)
{
	if (m1pg_lesson_bytes(b) > M1W_MAX_PAYLOAD)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: what is to be learnt at once is too large"),
				 errdetail("%d answers with %d tokens take more than %u bytes.", b->n, b->n_tokens, M1W_MAX_PAYLOAD),
				 errhint("%s", hint_of(t))));
}

/* The hints of requests speak of max_tokens, which is not what makes a lesson large. */
static void
explain(m1_error *error, const char *smaller)
{
	if (error->code == M1_E_OVER_QUOTA)
		m1_error_hint(error, "It would never fit. %s Or have the quota raised.", smaller);
	else if (error->code == M1_E_CONTEXT_OVERFLOW)
		m1_error_hint(error, "%s", smaller);
	else if (error->code == M1_E_TIMEOUT)
		m1_error_hint(error, "%s Or raise minimax_m1.request_timeout.", smaller);
	else if (error->code == M1_E_NO_MEMORY)
		m1_error_hint(error, "The longest rows, with all that is learnt of them, have to fit: leave them out.");
}

/* Every update that was asked for, and no other. The reference stays as it was. */
static void
check_updates(M1Training *t, const m1w_lesson *l, const m1w_learned *learned)
{
	const char *name = m1pg_training_engine_name(t);
	const bool	own = l->training.len == strlen(name) && memcmp(l->training.data, name, l->training.len) == 0;

	if (own && l->update && !learned->dropped)
		t->updates++;
	if (learned->updates != (own ? t->updates : 0))
		m1pg_learn_disbelieve(psprintf("Behind a lesson it counts " INT64_FORMAT " updates, and " INT64_FORMAT
									   " were asked for.", (int64) learned->updates, own ? t->updates : 0));
}

bool
m1pg_training_lesson(M1Training *t, const m1w_lesson *l, const char *smaller, m1w_learned *learned, m1_error *error)
{
	if (m1pg_learn_lesson(&t->caller, l, learned, error))
	{
		check_updates(t, l, learned);
		return true;
	}
	explain(error, smaller);
	return false;
}

static bool
ask(M1Training *t, const m1w_lesson *l, m1w_learned *learned, m1_error *error)
{
	return m1pg_training_lesson(t, l, hint_of(t), learned, error);
}

/* ---- what has been learnt ---- */

/* Means are made of sums when the last lesson is learnt. */
static void
note(M1StepResult *r, const m1w_learned *learned, int64 *clipped, int64 *predicted)
{
	r->updates++;
	r->dropped += learned->dropped;
	if (!learned->dropped)
	{
		r->loss += learned->loss;
		r->entropy += learned->entropy;
		r->gradient_norm += learned->gradient_norm;
		r->router_load = Max(r->router_load, learned->most_load);
	}
	r->rerouted += learned->rerouted;
	*clipped += learned->clipped;
	*predicted += learned->predicted;
}

static void
make_means(M1StepResult *r, int64 clipped, int64 predicted)
{
	int			n = r->updates - r->dropped;

	/* of none, they are no numbers */
	r->loss /= n;
	r->entropy /= n;
	r->gradient_norm /= n;
	r->clipped = (double) clipped / Max(predicted, 1);
}

/*
 * Answers' log-probabilities as a training computes them, before it learns anything of them: these have the same bits
 * each time, whereas the last ones of those that were sampled depend on what else was in the engine's batch.
 */
static bool
measure_again(M1Training *t, m1_slice name, M1LessonBatch *batches, int n, M1StepResult *r, m1_error *error)
{
	r->mismatch = 0;
	for (int i = 0; i < n; i++)
	{
		m1w_lesson	lesson;
		m1w_learned learned;

		describe(t, &batches[i], name, &lesson);
		lesson.update = 0;
		lesson.want_logprobs = 1;
		if (!ask(t, &lesson, &learned, error))
			return false;
		r->mismatch = Max(r->mismatch, learned.old_difference);
		m1pg_lesson_set_logprobs(&batches[i], learned.logprobs);
	}
	return true;
}

/*
 * What the policy that the training began with thinks of the answers, by the experts of its own choice: of all tokens,
 * whatever the answers were worth, as cross entropy has it.
 */
static bool
ask_reference(M1Training *t, M1LessonBatch *batches, int n, m1_error *error)
{
	m1_slice	name = m1_slice_of(m1pg_training_reference_name(t));

	for (int i = 0; i < n; i++)
	{
		m1w_lesson	lesson;
		m1w_learned learned;

		describe(t, &batches[i], name, &lesson);
		lesson.loss = M1W_LOSS_CE;
		lesson.experts = (m1_slice) {0};
		lesson.update = 0;
		lesson.want_logprobs = 1;
		if (!ask(t, &lesson, &learned, error))
			return false;
		m1pg_lesson_set_reference(&batches[i], learned.logprobs);
	}
	return true;
}

/* NaN where answers are so improbable to one of both that it is no number. */
static double
divergence(const M1LessonBatch *batches, int n)
{
	double		sum = 0;
	int64		tokens = 0;

	for (int i = 0; i < n; i++)
		m1pg_lesson_add_divergence(&batches[i], &sum, &tokens);
	return isfinite(sum) ? sum / Max(tokens, 1) : get_float8_nan();
}

/* What losses compare with, before anything of the batches is learnt. */
static bool
measure(M1Training *t, m1_slice name, M1LessonBatch *batches, int n, M1StepResult *r, m1_error *error)
{
	bool		with_reference = t->options.kl_coef > 0;

	if (with_reference && !ask_reference(t, batches, n, error))
		return false;
	if (!measure_again(t, name, batches, n, r, error))
		return false;
	if (with_reference)
		r->kl = divergence(batches, n);
	return true;
}

/* As many as end a training of `minimax_m1_engine train`. */
#define MOST_BARREN	3

/* Of a training that has learnt nothing at all by its last step, there is nothing to keep either. */
static void
check_learnt(const M1Training *t, const M1StepResult *r)
{
	bool		none_at_all = t->updates == 0 && r->step == t->steps;

	if (r->updates > r->dropped || (t->barren + 1 < MOST_BARREN && !none_at_all))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("minimax_m1: nothing was learnt in %d steps in a row", t->barren + 1),
			 errdetail("Their losses or gradients are no numbers."),
			 errhint("Use a lower learning_rate, leave out rows that differ from the others, and check the weights of "
					 "the model and of the adapter that it began from: they may hold values that are not finite.")));
}

bool
m1pg_training_teach(M1Training *t, M1LessonBatch *batches, int n, M1StepResult *r, m1_error *error)
{
	m1_slice	name = m1_slice_of(m1pg_training_engine_name(t));
	int64		clipped = 0;
	int64		predicted = 0;

	/* as of no try before this one */
	r->loss = r->entropy = r->gradient_norm = r->router_load = 0;
	r->updates = r->dropped = r->rerouted = 0;
	if (t->method != M1_METHOD_SFT && !measure(t, name, batches, n, r, error))
		return false;
	for (int i = 0; i < n; i++)
	{
		m1w_lesson	lesson;
		m1w_learned learned;

		describe(t, &batches[i], name, &lesson);
		if (!ask(t, &lesson, &learned, error))
			return false;
		note(r, &learned, &clipped, &predicted);
	}
	check_learnt(t, r);
	make_means(r, clipped, predicted);
	return true;
}

static void
add_group(const M1Training *t, M1LessonBatch *b, const M1Group *g, int share)
{
	for (int i = 0; i < g->n; i++)
		if (g->answers[i].there && !isnan(g->answers[i].shaped))
		{
			m1pg_lesson_add_answer(b, &g->answers[i].done, share, g->answers[i].advantage);
			m1pg_training_check_size(t, b);
		}
}

/* Each update learns from as many groups as it would if all of a step's were useful: few of them make few updates. */
static int
count_updates(const M1TrainingOptions *o, int useful)
{
	int			of_update = Max(o->prompts_per_step / o->updates_per_step, 1);

	return Min(o->updates_per_step, (useful + of_update - 1) / of_update);
}

bool
m1pg_training_learn(M1Training *t, M1StepResult *r, m1_error *error)
{
	const M1Group **useful = palloc(r->n_groups * sizeof *useful);
	int			n = 0;
	int			updates;
	M1LessonBatch *batches;

	for (int i = 0; i < r->n_groups; i++)
		if (r->groups[i].useful)
			useful[n++] = &r->groups[i];
	updates = count_updates(&t->options, n);
	batches = palloc(updates * sizeof *batches);
	for (int i = 0; i < updates; i++)
	{
		m1pg_lesson_init(&batches[i]);
		for (int j = (int64) i * n / updates; j < (int64) (i + 1) * n / updates; j++)
			add_group(t, &batches[i], useful[j], j);
	}
	return m1pg_training_teach(t, batches, updates, r, error);
}
