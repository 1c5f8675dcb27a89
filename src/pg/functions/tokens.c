/*
 * tokens.c
 *	  Functions on tokens: count_tokens, tokenize, detokenize, and generate_ids
 *	  and logits, which take raw ids and interpret nothing.
 */
#include "pg/functions/tokens.h"
#include "pg/client/exchange.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/report.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(m1pg_count_tokens);
PG_FUNCTION_INFO_V1(m1pg_tokenize_text);
PG_FUNCTION_INFO_V1(m1pg_detokenize);
PG_FUNCTION_INFO_V1(m1pg_generate_ids);
PG_FUNCTION_INFO_V1(m1pg_logits);

/* ---- arrays of ids ---- */

static m1w_id_slice
ids_of_array(ArrayType *array)
{
	m1w_id_slice ids = {NULL, 0};

	if (ARR_NDIM(array) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("minimax_m1: the array of token ids has more than one dimension")));
	if (array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("minimax_m1: a token id is NULL")));
	if (ARR_NDIM(array) == 1)
	{
		ids.data = (const int32_t *) ARR_DATA_PTR(array);
		ids.len = ARR_DIMS(array)[0];
	}
	return ids;
}

static ArrayType *
array_of_ids(const int32 *ids, int n)
{
	Datum	   *values = palloc(Max(n, 1) * sizeof *values);

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum(ids[i]);
	return construct_array(values, n, INT4OID, sizeof(int32), true, TYPALIGN_INT);
}

/* ---- one question, one answer ---- */

/* Looks up between pieces: where memory is new, hundreds of megabytes take a while. */
static void
copy_large(void *to, const void *from, Size len)
{
	const Size	piece = 1 << 20;

	for (Size at = 0; at < len; at += piece)
	{
		CHECK_FOR_INTERRUPTS();
		memcpy((char *) to + at, (const char *) from + at, Min(piece, len - at));
	}
}

/* The payload of the answer, palloc'd; NULL: *error. */
static char *
try_ask(const M1Request *question, m1w_type expected, Size *len, m1_error *error)
{
	M1Exchange *exchange = m1pg_exchange_try_open(question, error);
	const char *answer;
	char	   *copy = NULL;
	m1w_type	type;

	if (exchange == NULL)
		return NULL;
	if ((type = m1pg_exchange_try_receive(exchange, &answer, len, error)) != M1W_ERROR)
	{
		if (type != expected)
			elog(ERROR, "minimax_m1: unexpected event %d", type);
		copy = MemoryContextAllocHuge(CurrentMemoryContext, Max(*len, 1));
		copy_large(copy, answer, *len);
	}
	m1pg_exchange_close(exchange);
	return copy;
}

/* A question that is made of ids; an error is raised. */
static char *
ask(m1w_type type, ArrayType *array, m1w_type expected, const char *function, Size *len)
{
	m1w_tokens	tokens = {.ids = ids_of_array(array)};
	M1Request	question = {.type = type, .message.tokens = &tokens, .function = function, .excerpt = ""};
	m1_error	error;
	char	   *answer = try_ask(&question, expected, len, &error);

	if (answer == NULL)
		m1pg_report(&error);
	return answer;
}

bool
m1pg_try_tokenize(m1_slice utf8, const char *function, int32 **ids, int32 **ends, int *n, m1_error *error)
{
	m1w_words	words = {utf8};
	M1Request	question = {.type = M1W_TOKENIZE, .message.words = &words, .function = function, .excerpt = ""};
	Size		len;
	char	   *answer;
	m1w_tokens	tokens;

	if (!m1pg_check_utf8(utf8, "text", error))
		return false;
	answer = try_ask(&question, M1W_TOKENS, &len, error);
	if (answer == NULL || m1w_decode_tokens(answer, len, &tokens, error) != M1_OK)
		return false;
	if (tokens.ids.len != tokens.ends.len)
		elog(ERROR, "minimax_m1: malformed answer from the engine");
	*n = (int) tokens.ids.len;
	*ids = palloc(Max(*n, 1) * sizeof(int32));
	*ends = palloc(Max(*n, 1) * sizeof(int32));
	copy_large(*ids, tokens.ids.data, *n * sizeof(int32));
	copy_large(*ends, tokens.ends.data, *n * sizeof(int32));
	pfree(answer);
	return true;
}

static void
tokenize(const text *t, const char *function, int32 **ids, int *n)
{
	m1_error	error;
	int32	   *ends;

	if (!m1pg_try_tokenize(m1pg_utf8_of_text(t), function, ids, &ends, n, &error))
		m1pg_report(&error);
}

/* ---- SQL functions, all STRICT ---- */

Datum
m1pg_count_tokens(PG_FUNCTION_ARGS)
{
	int32	   *ids;
	int			n;

	tokenize(PG_GETARG_TEXT_PP(0), "count_tokens", &ids, &n);
	PG_RETURN_INT32(n);
}

Datum
m1pg_tokenize_text(PG_FUNCTION_ARGS)
{
	int32	   *ids;
	int			n;

	tokenize(PG_GETARG_TEXT_PP(0), "tokenize", &ids, &n);
	PG_RETURN_ARRAYTYPE_P(array_of_ids(ids, n));
}

Datum
m1pg_detokenize(PG_FUNCTION_ARGS)
{
	Size		len;
	char	   *answer = ask(M1W_DETOKENIZE, PG_GETARG_ARRAYTYPE_P(0), M1W_TEXT, "detokenize", &len);
	m1w_text	words;
	m1_error	error;

	if (m1w_decode_text(answer, len, &words, &error) != M1_OK)
		m1pg_report(&error);
	PG_RETURN_TEXT_P(m1pg_text_from_utf8(words.text));
}

Datum
m1pg_generate_ids(PG_FUNCTION_ARGS)
{
	int			max_tokens = m1pg_check_max_tokens(PG_GETARG_INT32(1));
	m1w_generate g;
	M1Result	result;

	m1pg_default_request(&g);
	g.ids = ids_of_array(PG_GETARG_ARRAYTYPE_P(0));
	if (g.ids.len == 0)
		m1pg_bad_argument("the array of token ids is empty", NULL);
	g.max_tokens = max_tokens;
	g.temperature = 0;
	m1pg_run(&g, "generate_ids", &result);
	PG_RETURN_ARRAYTYPE_P(array_of_ids(result.done.ids.data, (int) result.done.ids.len));
}

Datum
m1pg_logits(PG_FUNCTION_ARGS)
{
	Size		len;
	char	   *answer = ask(M1W_LOGITS, PG_GETARG_ARRAYTYPE_P(0), M1W_VECTOR, "logits", &len);
	m1w_vector	vector;
	m1_error	error;
	Datum	   *values;
	int			n;

	if (m1w_decode_vector(answer, len, &vector, &error) != M1_OK)
		m1pg_report(&error);
	n = (int) (vector.values.len / sizeof(float));
	values = palloc(Max(n, 1) * sizeof *values);
	for (int i = 0; i < n; i++)
	{
		float		x;

		memcpy(&x, vector.values.data + i * sizeof x, sizeof x);
		values[i] = Float4GetDatum(x);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(values, n, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT));
}
