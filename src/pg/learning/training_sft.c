/*
 * training_sft.c
 *	  Learning from right answers: the engine renders what is asked, as for a
 *	  request, and the tokens of reasoning and answer with the end of turn follow.
 */
#include "pg/learning/lesson_batch.h"
#include "pg/learning/rewards.h"
#include "pg/learning/training.h"
#include "pg/client/batch.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/shared.h"

#include "text/markup.h"
#include "utils/builtins.h"

/* So many tokens of held-out rows are asked for at once, or a row: what they are all together may never fit a quota. */
#define HELDOUT_TOKENS	4096

/* ---- tokens ---- */

/* The rows to be shown, of the examples, and what there is of them as tokens. */
typedef struct Rendering
{
	M1Training *t;
	const M1Examples *examples;
	const int  *rows;
	M1Shown    *shown;
	int		   *missing;		/* of the rows, those that are asked for */
	MemoryContext context;		/* of what is kept */
	bool		failed;
	m1_error	error;
} Rendering;

/* Of its query, from 1. */
static char *
name_of(const Rendering *r, int i)
{
	return psprintf("row %d of the %s", r->rows[i] + 1, r->examples == &r->t->holdout ? "held-out rows" : "examples");
}

/* One token is asked for: what is kept of it is the prompt's tokens. */
static bool
rendering_request(void *arg, int number, m1w_generate *g, m1_error *error)
{
	Rendering  *r = arg;
	int			i = r->missing[number];

	if (r->failed)
	{
		*error = r->error;
		return false;
	}
	m1pg_training_request(&r->t->options, &r->examples->rows[r->rows[i]], g);
	g->constraint = M1W_CONSTRAINT_NONE;
	g->constraint_text = (m1_slice) {0};
	g->max_tokens = 1;
	g->background = 1;
	return true;
}

static void
rendering_finish(void *arg, int number, const M1Result *result, const m1_error *error)
{
	Rendering  *r = arg;
	int			i = r->missing[number];
	MemoryContext old;

	if (result != NULL)
	{
		old = MemoryContextSwitchTo(r->context);
		r->shown[i].prompt = m1pg_keep_ids(result->done.prompt_ids);
		MemoryContextSwitchTo(old);
	}
	else if (!r->failed)
	{
		r->failed = true;
		r->error = *error;
		m1_error_detail(&r->error, "It is %s. %s", name_of(r, i), error->detail);
		/* no answer's length is what it lacks room for */
		if (error->code == M1_E_OVER_QUOTA)
			m1_error_hint(&r->error, "Leave such rows out with WHERE, or have the quota raised.");
	}
}

static bool
render(Rendering *r, int n, m1_error *error)
{
	M1Batch		batch = {
		.function = "train", .arg = r, .role = r->t->owner, .request = rendering_request, .finish = rendering_finish
	};

	r->missing = palloc(n * sizeof *r->missing);
	for (int i = 0; i < n; i++)
		if (r->shown[i].prompt.len == 0)
			r->missing[batch.n++] = i;
	m1pg_run_batch(&batch);
	if (r->failed)
		*error = r->error;
	return !r->failed;
}

/* The tokens of a conversation, up to where the model would answer. */
static bool
conversation_ids(M1Training *t, const char *messages, m1w_id_slice *ids, m1_error *error)
{
	m1w_generate g = {
		.messages = m1_slice_of(messages), .max_tokens = 1, .temperature = 1, .top_p = 1, .keep = 1,
		.background = 1
	};
	m1w_done	done;

	if (!m1pg_learn_sample(&t->caller, &g, &done, error))
		return false;
	*ids = done.prompt_ids;
	return true;
}

static bool
has_id(m1w_id_slice ids, int32 id)
{
	for (size_t i = 0; i < ids.len; i++)
		if (m1w_id_at(ids, i) == id)
			return true;
	return false;
}

/*
 * The token that ends a turn: what stands behind a turn of one letter, where a conversation without that turn would go
 * on otherwise. Of a training it is asked for once: another model would fail it.
 */
static bool
find_end(M1Training *t, m1_error *error)
{
	m1w_id_slice one;
	m1w_id_slice more;
	size_t		same = 0;

	if (t->end_of_turn >= 0)
		return true;
	if (!conversation_ids(t, "[{\"role\": \"user\", \"content\": \"a\"}]", &one, error) ||
		!conversation_ids(t, "[{\"role\": \"user\", \"content\": \"a\"}, "
						  "{\"role\": \"assistant\", \"content\": \"b\"}, "
						  "{\"role\": \"user\", \"content\": \"a\"}]", &more, error))
		return false;
	while (same < one.len && same < more.len && m1w_id_at(one, same) == m1w_id_at(more, same))
		same++;
	if (same + 1 >= more.len || !has_id(one, m1w_id_at(more, same + 1)))
		m1pg_learn_disbelieve(psprintf("The end of a turn is not where it must be among %zu tokens.", more.len));
	t->end_of_turn = m1w_id_at(more, same + 1);
	return true;
}

/*
 * What the model is to write: its reasoning, where the example has some, and the answer. Without a budget to think, the
 * prompt ends with the words that there is none; train() has refused rows that have.
 */
static m1_slice
reply_of(const M1Training *t, const M1Example *example)
{
	char	   *reply = m1pg_example_text(example->row, "answer");
	char	   *reasoning = m1pg_example_optional_text(example->row, "reasoning");

	if (reasoning != NULL && t->options.thinking_budget != 0)
		reply = psprintf(M1_THINK_BEFORE "%s" M1_THINK_BEHIND "%s", reasoning, reply);
	return m1pg_to_utf8(reply, strlen(reply));
}

/* The tokens of what the model is to write, and of the end of its turn. */
static bool
find_reply(const Rendering *r, int i, m1_error *error)
{
	M1Training *t = r->t;
	int32	   *with_end;
	m1w_id_slice of_text;

	if (r->shown[i].reply.len > 0)
		return true;
	if (!m1pg_learn_tokenize(&t->caller, reply_of(t, &r->examples->rows[r->rows[i]]), &of_text, error))
		return false;
	with_end = MemoryContextAlloc(r->context, (of_text.len + 1) * sizeof *with_end);
	memcpy(with_end, of_text.data, of_text.len * sizeof *with_end);
	with_end[of_text.len] = t->end_of_turn;
	r->shown[i].reply = (m1w_id_slice) {with_end, of_text.len + 1};
	return true;
}

/* No model could read it. */
static void
check_length(const Rendering *r, int i)
{
	Size		prompt = r->shown[i].prompt.len;
	Size		reply = r->shown[i].reply.len;

	if (prompt + reply > (Size) m1pg_shared->model.context)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: %s is too long to be learnt", name_of(r, i)),
				 errdetail("Its prompt has %zu tokens and what is to be answered %zu; the context has %d.",
						   prompt, reply, m1pg_shared->model.context),
				 errhint("Leave such rows out with WHERE.")));
}

/* ---- lessons ---- */

/* train() has looked at it. */
static float
weight_of(const M1Example *example)
{
	char	   *weight = m1pg_example_optional_text(example->row, "weight");

	return weight != NULL ? strtof(weight, NULL) : 1.0f;
}

/* All rows as tokens. */
static bool
find_tokens(Rendering *r, int n, m1_error *error)
{
	if (!find_end(r->t, error) || !render(r, n, error))
		return false;
	for (int i = 0; i < n; i++)
	{
		if (!find_reply(r, i, error))
			return false;
		check_length(r, i);
	}
	return true;
}

static void
add_row(const Rendering *r, int i, M1LessonBatch *b)
{
	m1pg_lesson_add_text(b, r->shown[i].prompt, r->shown[i].reply, weight_of(&r->examples->rows[r->rows[i]]));
	m1pg_training_check_size(r->t, b);
}

/* The rows shared out among n batches. */
static void
make_batches(const Rendering *r, int n_rows, M1LessonBatch *batches, int n)
{
	for (int i = 0; i < n; i++)
	{
		m1pg_lesson_init(&batches[i]);
		for (int j = (int64) i * n_rows / n; j < (int64) (i + 1) * n_rows / n; j++)
			add_row(r, j, &batches[i]);
	}
}

/* Of the rows from `from` on, those that are asked for at once; the first that is not. */
static int
make_batch(const Rendering *r, int from, int n_rows, M1LessonBatch *b)
{
	m1pg_lesson_init(b);
	do
		add_row(r, from++, b);
	while (from < n_rows &&
		   b->n_tokens + r->shown[from].prompt.len + r->shown[from].reply.len <= HELDOUT_TOKENS);
	return from;
}

/* Of rows for which nothing was asked yet. */
static M1Shown *
new_shown(const M1StepResult *r, int n)
{
	return MemoryContextAllocZero(r->context, Max(n, 1) * sizeof(M1Shown));
}

bool
m1pg_training_learn_answers(M1Training *t, M1StepResult *r, const int *rows, int n, m1_error *error)
{
	int			updates = Min(t->options.updates_per_step, n);
	M1LessonBatch *batches = palloc(Max(updates, 1) * sizeof *batches);
	Rendering	rendering = {.t = t, .examples = &t->train, .rows = rows, .context = r->context};

	if (r->shown == NULL)
		r->shown = new_shown(r, n);
	rendering.shown = r->shown;
	if (!find_tokens(&rendering, n, error))
		return false;
	make_batches(&rendering, n, batches, updates);
	r->shown_tokens = 0;
	for (int i = 0; i < updates; i++)
		r->shown_tokens += batches[i].n_tokens;
	return m1pg_training_teach(t, batches, updates, r, error);
}

static bool
ask_loss(M1Training *t, const M1LessonBatch *batch, double *loss, m1_error *error)
{
	m1w_lesson	lesson = {
		.training = m1_slice_of(m1pg_training_engine_name(t)), .loss = M1W_LOSS_CE, .temperature = 1, .eps = 1e-15f
	};
	m1w_learned learned;

	m1pg_lesson_fill(batch, &lesson);
	if (!m1pg_training_lesson(t, &lesson, "Leave long rows out of those that are held out.", &learned, error))
		return false;
	*loss = learned.loss;
	return true;
}

/* The mean by weights, as of one lesson of all rows. */
static bool
mean_loss(const Rendering *r, int n, double *mean, m1_error *error)
{
	double		sum = 0;
	double		weight = 0;

	for (int from = 0; from < n;)
	{
		M1LessonBatch batch;
		double		loss;

		from = make_batch(r, from, n, &batch);
		if (!ask_loss(r->t, &batch, &loss, error))
			return false;
		sum += loss * batch.weight;
		weight += batch.weight;
	}
	*mean = sum / weight;
	return true;
}

bool
m1pg_training_heldout_loss(M1Training *t, M1StepResult *r, m1_error *error)
{
	int		   *rows = palloc(t->holdout.n * sizeof *rows);
	Rendering	rendering = {.t = t, .examples = &t->holdout, .rows = rows, .context = r->context};

	for (int i = 0; i < t->holdout.n; i++)
		rows[i] = i;
	if (r->heldout_shown == NULL)
		r->heldout_shown = new_shown(r, t->holdout.n);
	rendering.shown = r->heldout_shown;
	return find_tokens(&rendering, t->holdout.n, error) && mean_loss(&rendering, t->holdout.n, &r->heldout_loss, error);
}
