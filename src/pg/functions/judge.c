/*
 * judge.c
 *	  is_true(), score() and rank(): what the model thinks of a statement about a
 *	  text, from the probabilities of "yes" and "no" as its answer.
 */
#include "pg/client/batch.h"
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/report.h"
#include "pg/rows.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(m1pg_is_true);
PG_FUNCTION_INFO_V1(m1pg_score);
PG_FUNCTION_INFO_V1(m1pg_rank);

/* An answer that is less probable leaves is_true() undecided. */
#define DEFAULT_CERTAINTY 0.6

/* ---- one question ---- */

static int
trimmed_length(const char *s, int len)
{
	while (len > 0 && (s[len - 1] == ' ' || s[len - 1] == '\n' || s[len - 1] == '\t'))
		len--;
	return len;
}

/* "the customer wants a refund" with or without a full stop is the same question. */
static char *
question(const text *statement)
{
	char	   *s = text_to_cstring(statement);
	int			len = trimmed_length(s, strlen(s));

	if (len > 0 && s[len - 1] == '.')
		len = trimmed_length(s, len - 1);
	if (len == 0)
		m1pg_bad_argument("the statement is empty", NULL);
	return psprintf("Answer yes or no: %.*s.", len, s);
}

static void
constrain_to_yes_or_no(m1w_generate *g)
{
	m1pg_constrain(g, M1W_CONSTRAINT_CHOICES, "[\"yes\", \"no\"]");
	g->score_choices = 1;
}

/* The probability of "yes"; NaN when the reply did not come to an answer. false: what the engine says cannot be. */
static bool
read_probability(const M1Result *result, double *yes, m1_error *error)
{
	const m1_slice logprobs = result->done.choice_logprobs;

	*yes = get_float8_nan();
	if (logprobs.len == 0)
		return true;
	if (logprobs.len == 2 * sizeof(double))
		*yes = exp(m1w_double_at(logprobs, 0));
	if (fabs(*yes + exp(m1w_double_at(logprobs, logprobs.len / sizeof(double) - 1)) - 1) < 1e-3)
		return true;
	m1_fail(error, M1_E_CORRUPT, "the engine's probabilities of yes and no cannot be");
	m1_error_detail(error, "There are %zu of them, which must be two that add up to 1.", logprobs.len / sizeof(double));
	m1_error_hint(error, "Look into the server's log for why the engine may be broken.");
	return false;
}

static bool
judge(m1w_generate *g, const text *statement, const text *document, const char *function, double *yes, m1_error *error)
{
	M1Result	result;

	constrain_to_yes_or_no(g);
	if (!m1pg_read_task(g, question(statement), document, error) || !m1pg_try_run(g, function, &result, error))
		return false;
	return read_probability(&result, yes, error);
}

/* is_true(statement, document, certainty, ...): NULL unless one answer is at least that probable. */
Datum
m1pg_is_true(PG_FUNCTION_ARGS)
{
	m1w_generate g;
	m1_error	error;
	double		certainty;
	double		yes;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	certainty = PG_ARGISNULL(2) ? DEFAULT_CERTAINTY : PG_GETARG_FLOAT8(2);
	if (!(certainty > 0.5 && certainty <= 1))
		m1pg_bad_argument("certainty is out of range",
						  psprintf("It is %g; it must be above 0.5 and at most 1.", certainty));
	m1pg_default_request(&g);
	m1pg_read_options(fcinfo, 3, &g);
	if (!judge(&g, PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), "is_true", &yes, &error))
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	/* both are false for NaN */
	if (yes >= certainty)
		PG_RETURN_BOOL(true);
	if (1 - yes >= certainty)
		PG_RETURN_BOOL(false);
	PG_RETURN_NULL();
}

/* score(criterion, document) */
Datum
m1pg_score(PG_FUNCTION_ARGS)
{
	m1w_generate g;
	m1_error	error;
	double		yes = get_float8_nan();

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	m1pg_default_request(&g);
	if (!judge(&g, PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), "score", &yes, &error))
		m1pg_report_or_null(&error);
	if (isnan(yes))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(yes);
}

/* ---- rank ---- */

typedef struct Ranked
{
	int			ord;
	text	   *document;
	double		score;			/* NaN: none */
} Ranked;

typedef struct RankCall
{
	m1w_generate options;
	char	   *question;
	Ranked	   *documents;
	int			n;
} RankCall;

static bool
rank_request(void *arg, int i, m1w_generate *g, m1_error *error)
{
	RankCall   *call = arg;

	*g = call->options;
	return m1pg_read_task(g, call->question, call->documents[i].document, error);
}

static void
rank_finish(void *arg, int i, const M1Result *result, const m1_error *error)
{
	RankCall   *call = arg;
	m1_error	absurd;

	if (result == NULL)
		m1pg_report_or_null(error);
	else if (!read_probability(result, &call->documents[i].score, &absurd))
		m1pg_report_or_null(&absurd);
}

/* The most probable first; those without a score last; equals in the order of the array. */
static int
compare_ranked(const void *a, const void *b)
{
	const Ranked *x = a;
	const Ranked *y = b;

	CHECK_FOR_INTERRUPTS();
	if (isnan(x->score) != isnan(y->score))
		return isnan(x->score) ? 1 : -1;
	if (!isnan(x->score) && x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x->ord < y->ord ? -1 : 1;
}

/* NULL is not a document. One by one, because there may be millions: deconstruct_array() heeds no cancel. */
static void
read_documents(RankCall *call, ArrayType *array)
{
	ArrayIterator iterator = array_create_iterator(array, 0, NULL);
	int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	Datum		value;
	bool		isnull;

	call->documents = palloc_extended(Max(n, 1) * sizeof *call->documents, MCXT_ALLOC_HUGE);
	for (int ord = 1; array_iterate(iterator, &value, &isnull); ord++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!isnull)
			call->documents[call->n++] = (Ranked) {ord, DatumGetTextPP(value), get_float8_nan()};
	}
	array_free_iterator(iterator);
}

/* rank(query, documents, k) */
Datum
m1pg_rank(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RankCall	call = {.n = 0};
	M1Batch		batch = {.function = "rank", .arg = &call, .request = rank_request, .finish = rank_finish};
	int			k = PG_ARGISNULL(2) ? PG_INT32_MAX : PG_GETARG_INT32(2);

	m1pg_start_rows(fcinfo);
	if (k < 1)
		m1pg_bad_argument("k is out of range", psprintf("It is %d; it must be at least 1.", k));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	m1pg_default_request(&call.options);
	constrain_to_yes_or_no(&call.options);
	call.question = question(PG_GETARG_TEXT_PP(0));
	read_documents(&call, PG_GETARG_ARRAYTYPE_P(1));
	batch.n = call.n;
	m1pg_run_batch(&batch);
	qsort(call.documents, call.n, sizeof *call.documents, compare_ranked);
	for (int i = 0; i < Min(k, call.n); i++)
	{
		const Ranked *d = &call.documents[i];
		Datum		values[] = {Int32GetDatum(d->ord), PointerGetDatum(d->document), Float8GetDatum(d->score)};
		bool		nulls[] = {false, false, isnan(d->score)};

		CHECK_FOR_INTERRUPTS();
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
