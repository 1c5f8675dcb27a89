/*
 * evaluate.c
 *	  evaluate(): answers to the rows of a query, each with its reward. Nothing is
 *	  trained, and nothing is written.
 *
 *	  The query runs once, whatever the number of adapters and samples. Answers are
 *	  graded as they come, while the model works on the next ones.
 */
#include "pg/client/batch.h"
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/learning/examples.h"
#include "pg/learning/reward.h"
#include "pg/learning/served_adapter.h"
#include "pg/report.h"
#include "pg/rows.h"
#include "pg/settings.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(m1pg_evaluate);

#define MOST_SAMPLES 1000

typedef struct Evaluation
{
	ReturnSetInfo *rsinfo;
	m1w_generate options;
	M1Examples	examples;
	M1Reward	reward;
	char	  **adapters;
	m1_slice   *served;			/* what the engine calls them; empty: none */
	int			n_adapters;
	int			samples;
	MemoryContext scratch;		/* of one answer's row */
} Evaluation;

/* Which of all the answers one is: of the adapters, of the rows, of the samples. */
typedef struct Place
{
	int			adapter;
	int			row;
	int			sample;
} Place;

static Place
place_of(const Evaluation *e, int i)
{
	return (Place) {
		.adapter = i / (e->examples.n * e->samples),
		.row = i / e->samples % e->examples.n,
		.sample = i % e->samples
	};
}

/* ---- requests ---- */

/* The same draws for every adapter, so that they differ by what they have learnt. */
static bool
evaluation_request(void *arg, int i, m1w_generate *g, m1_error *error)
{
	Evaluation *e = arg;
	Place		p = place_of(e, i);

	*g = e->options;
	m1pg_example_request(&e->examples.rows[p.row], g);
	g->adapter = e->served[p.adapter];
	g->seed = (g->seed + (uint64) p.row * e->samples + p.sample) & PG_INT64_MAX;
	return true;
}

/* ---- rows ---- */

enum
{
	ADAPTER, ITEM, SAMPLE, CONTENT, REASONING, TOOL_CALLS, REWARD, FINISH_REASON, PROMPT_TOKENS, COMPLETION_TOKENS,
	ERROR_TEXT, EXAMPLE, N_COLUMNS
};

/* A row whose columns are NULL until they are set. */
typedef struct Row
{
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];
} Row;

static void
set(Row *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

static void
set_text(Row *row, int column, text *t)
{
	if (t != NULL)
		set(row, column, PointerGetDatum(t));
}

/* Of an answer that calls tools, the calls are what a reward looks at. */
static void
grade(const Evaluation *e, const M1Example *example, text *answer, text *reasoning, Row *row)
{
	M1Graded	graded = {
		.answer = answer, .reasoning = reasoning != NULL ? reasoning : cstring_to_text(""), .example = example->row
	};
	double		value;
	ErrorData  *error = m1pg_reward_call(&e->reward, GetUserId(), &graded, &value);

	if (error != NULL)
		set_text(row, ERROR_TEXT, cstring_to_text(error->message));
	else if (!isnan(value))
		set(row, REWARD, Float8GetDatum(value));
}

static void
set_answer(const Evaluation *e, const M1Example *example, const m1w_done *done, Row *row)
{
	text	   *content = m1pg_try_text_from_utf8(done->content);
	text	   *reasoning = done->reasoning.len > 0 ? m1pg_try_text_from_utf8(done->reasoning) : NULL;
	text	   *calls = done->tool_calls.len > 0 ? m1pg_try_text_from_utf8(done->tool_calls) : NULL;

	set_text(row, CONTENT, content);
	set_text(row, REASONING, reasoning);
	set_text(row, TOOL_CALLS, calls);
	set(row, FINISH_REASON, CStringGetTextDatum(m1w_finish_name(done->finish)));
	set(row, PROMPT_TOKENS, Int32GetDatum(done->prompt_tokens));
	set(row, COMPLETION_TOKENS, Int32GetDatum(done->completion_tokens));
	if (content == NULL || (calls == NULL && done->tool_calls.len > 0))
		set_text(row, ERROR_TEXT,
				 cstring_to_text("the reply has characters that the database's encoding does not have"));
	else
		grade(e, example, calls != NULL ? calls : content, reasoning, row);
}

static void
evaluation_finish(void *arg, int i, const M1Result *result, const m1_error *error)
{
	Evaluation *e = arg;
	Place		p = place_of(e, i);
	const M1Example *example = &e->examples.rows[p.row];
	MemoryContext old = MemoryContextSwitchTo(e->scratch);
	Row			row;

	memset(row.nulls, true, sizeof row.nulls);
	set_text(&row, ADAPTER, cstring_to_text(e->adapters[p.adapter]));
	set(&row, ITEM, Int32GetDatum(p.row + 1));
	set(&row, SAMPLE, Int32GetDatum(p.sample + 1));
	set(&row, EXAMPLE, JsonbPGetDatum(example->row));
	if (result != NULL)
		set_answer(e, example, &result->done, &row);
	else
		set_text(&row, ERROR_TEXT, m1pg_error_text(error));
	tuplestore_putvalues(e->rsinfo->setResult, e->rsinfo->setDesc, row.values, row.nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(e->scratch);
}

/* ---- arguments ---- */

/* One name, or an array of them; without any, what the setting says. */
static void
read_adapters(FunctionCallInfo fcinfo, int arg, Evaluation *e)
{
	Datum	   *names;
	bool	   *nulls;

	e->n_adapters = 1;
	e->adapters = palloc(sizeof *e->adapters);
	e->adapters[0] = m1pg_session_adapter() != NULL ? m1pg_adapter : M1PG_BASE;
	if (PG_ARGISNULL(arg))
		return;
	if (get_fn_expr_argtype(fcinfo->flinfo, arg) != TEXTARRAYOID)
	{
		e->adapters[0] = text_to_cstring(PG_GETARG_TEXT_PP(arg));
		return;
	}
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &e->n_adapters);
	if (e->n_adapters == 0)
		m1pg_bad_argument("there are no adapters", "Name the model itself as \"" M1PG_BASE "\".");
	e->adapters = palloc(e->n_adapters * sizeof *e->adapters);
	for (int i = 0; i < e->n_adapters; i++)
		e->adapters[i] = nulls[i] ? M1PG_BASE : TextDatumGetCString(names[i]);
}

static void
serve_adapters(Evaluation *e)
{
	e->served = palloc0(e->n_adapters * sizeof *e->served);
	for (int i = 0; i < e->n_adapters; i++)
		if (strcmp(e->adapters[i], M1PG_BASE) != 0)
		{
			int			unused;

			e->served[i] = m1pg_adapters->find(e->adapters[i], &unused);
		}
}

/* A count; NULL means `otherwise`. */
static int
read_count(FunctionCallInfo fcinfo, int arg, const char *name, int otherwise, int most)
{
	int			n = PG_ARGISNULL(arg) ? otherwise : PG_GETARG_INT32(arg);

	if (n < Min(otherwise, 1) || n > most || (n == 0 && !PG_ARGISNULL(arg)))
		m1pg_bad_argument(psprintf("%s is out of range", name),
						  psprintf("It is %d; it must be between 1 and %d.", n, most));
	return n;
}

/* Rows, samples and adapters together are counted in an int. */
static int
count_answers(const Evaluation *e)
{
	int64		n = (int64) e->examples.n * e->samples * e->n_adapters;

	if (n > PG_INT32_MAX)
		m1pg_bad_argument("there are too many answers", "Lower items or samples.");
	return (int) n;
}

/* evaluate(query, reward, adapter or adapters, samples, items, options as generate has them, the form of answers) */
Datum
m1pg_evaluate(PG_FUNCTION_ARGS)
{
	Evaluation	e = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	M1Batch		batch = {
		.function = "evaluate", .arg = &e, .request = evaluation_request, .finish = evaluation_finish
	};

	m1pg_start_rows(fcinfo);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		m1pg_bad_argument("query or reward is NULL", NULL);
	m1pg_reward_find(text_to_cstring(PG_GETARG_TEXT_PP(1)), &e.reward);
	read_adapters(fcinfo, 2, &e);
	e.samples = read_count(fcinfo, 3, "samples", 1, MOST_SAMPLES);
	m1pg_default_request(&e.options);
	m1pg_read_options(fcinfo, 5, &e.options);
	m1pg_read_form(fcinfo, (M1FormArguments) {.choices = 11, .json_schema = 12, .regex = 13}, &e.options);
	m1pg_examples_read(text_to_cstring(PG_GETARG_TEXT_PP(0)), GetUserId(),
					   read_count(fcinfo, 4, "items", 0, PG_INT32_MAX), 0, &e.examples);
	batch.n = count_answers(&e);
	serve_adapters(&e);
	e.scratch = AllocSetContextCreate(CurrentMemoryContext, "minimax_m1 answer", ALLOCSET_DEFAULT_SIZES);
	m1pg_run_batch(&batch);
	return (Datum) 0;
}
