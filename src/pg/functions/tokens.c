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

/* Of numbers of four bytes, as they are in an array, too: one Datum for each would take three times the memory. */
static ArrayType *
array_of_numbers(const void *numbers, Size n, Oid type)
{
	Size		size = ARR_OVERHEAD_NONULLS(1) + n * sizeof(int32);
	ArrayType  *array;

	if (n == 0)
		return construct_empty_array(type);
	array = palloc(size);
	memset(array, 0, ARR_OVERHEAD_NONULLS(1));
	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->elemtype = type;
	ARR_DIMS(array)[0] = (int) n;
	ARR_LBOUND(array)[0] = 1;
	copy_large(ARR_DATA_PTR(array), numbers, n * sizeof(int32));
	return array;
}

static ArrayType *
array_of_ids(m1w_id_slice ids)
{
	return array_of_numbers(ids.data, ids.len, INT4OID);
}

/* ---- one question, one answer ---- */

/* The exchange, as long as which the answer lives, and which the caller closes. NULL: *error. */
static M1Exchange *
try_ask(const M1Request *question, m1w_type expected, m1_slice *answer, m1_error *error)
{
	M1Exchange *exchange = m1pg_exchange_try_open(question, error);
	m1w_type	type;

	if (exchange == NULL)
		return NULL;
	type = m1pg_exchange_try_receive(exchange, &answer->data, &answer->len, error);
	if (type == expected)
		return exchange;
	if (type != M1W_ERROR)
		elog(ERROR, "minimax_m1: unexpected event %d", type);
	m1pg_exchange_close(exchange);
	return NULL;
}

/* A question that is made of ids; an error is raised. */
static M1Exchange *
ask(m1w_type type, ArrayType *array, m1w_type expected, const char *function, m1_slice *answer)
{
	m1w_tokens	tokens = {.ids = ids_of_array(array)};
	M1Request	question = {.type = type, .message.tokens = &tokens, .function = function, .excerpt = ""};
	m1_error	error;
	M1Exchange *exchange = try_ask(&question, expected, answer, &error);

	if (exchange == NULL)
		m1pg_report(&error);
	return exchange;
}

/* ---- a text's tokens ---- */

/* As try_ask. */
static M1Exchange *
try_tokenize(m1_slice utf8, m1w_wanted wanted, const char *function, m1_slice *answer, m1_error *error)
{
	m1w_words	words = {.text = utf8, .wanted = wanted};
	M1Request	question = {.type = M1W_TOKENIZE, .message.words = &words, .function = function, .excerpt = ""};

	if (!m1pg_check_utf8(utf8, "text", error))
		return NULL;
	return try_ask(&question, wanted == M1W_WANT_COUNT ? M1W_COUNTED : M1W_TOKENS, answer, error);
}

/* The same, and the answer is taken apart. */
static M1Exchange *
try_tokens(m1_slice utf8, m1w_wanted wanted, const char *function, m1w_tokens *tokens, m1_error *error)
{
	m1_slice	answer;
	M1Exchange *exchange = try_tokenize(utf8, wanted, function, &answer, error);

	if (exchange != NULL && m1w_decode_tokens(answer.data, answer.len, tokens, error) != M1_OK)
		m1pg_report(error);
	return exchange;
}

bool
m1pg_try_count_tokens(m1_slice utf8, const char *function, int *n, m1_error *error)
{
	m1w_counted counted;
	m1_slice	answer;
	M1Exchange *exchange = try_tokenize(utf8, M1W_WANT_COUNT, function, &answer, error);

	if (exchange == NULL)
		return false;
	if (m1w_decode_counted(answer.data, answer.len, &counted, error) != M1_OK)
		m1pg_report(error);
	*n = (int) counted.tokens;
	m1pg_exchange_close(exchange);
	return true;
}

bool
m1pg_try_token_ends(m1_slice utf8, const char *function, int32 **ends, int *n, m1_error *error)
{
	m1w_tokens	tokens;
	M1Exchange *exchange = try_tokens(utf8, M1W_WANT_ENDS, function, &tokens, error);

	if (exchange == NULL)
		return false;
	*n = (int) tokens.ends.len;
	*ends = palloc(Max(*n, 1) * sizeof(int32));
	copy_large(*ends, tokens.ends.data, *n * sizeof(int32));
	m1pg_exchange_close(exchange);
	return true;
}

/* ---- SQL functions, all STRICT ---- */

Datum
m1pg_count_tokens(PG_FUNCTION_ARGS)
{
	m1_error	error;
	int			n;

	if (!m1pg_try_count_tokens(m1pg_utf8_of_text(PG_GETARG_TEXT_PP(0)), "count_tokens", &n, &error))
		m1pg_report(&error);
	PG_RETURN_INT32(n);
}

Datum
m1pg_tokenize_text(PG_FUNCTION_ARGS)
{
	m1_error	error;
	m1w_tokens	tokens;
	M1Exchange *exchange = try_tokens(m1pg_utf8_of_text(PG_GETARG_TEXT_PP(0)), M1W_WANT_IDS, "tokenize", &tokens,
									  &error);
	ArrayType  *result;

	if (exchange == NULL)
		m1pg_report(&error);
	result = array_of_ids(tokens.ids);
	m1pg_exchange_close(exchange);
	PG_RETURN_ARRAYTYPE_P(result);
}

Datum
m1pg_detokenize(PG_FUNCTION_ARGS)
{
	m1_slice	answer;
	M1Exchange *exchange = ask(M1W_DETOKENIZE, PG_GETARG_ARRAYTYPE_P(0), M1W_TEXT, "detokenize", &answer);
	m1w_text	words;
	m1_error	error;
	text	   *result;

	if (m1w_decode_text(answer.data, answer.len, &words, &error) != M1_OK)
		m1pg_report(&error);
	result = m1pg_text_from_utf8(words.text);
	m1pg_exchange_close(exchange);
	PG_RETURN_TEXT_P(result);
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
	PG_RETURN_ARRAYTYPE_P(array_of_ids(result.done.ids));
}

Datum
m1pg_logits(PG_FUNCTION_ARGS)
{
	m1_slice	answer;
	M1Exchange *exchange = ask(M1W_LOGITS, PG_GETARG_ARRAYTYPE_P(0), M1W_VECTOR, "logits", &answer);
	m1w_vector	vector;
	m1_error	error;
	ArrayType  *result;

	if (m1w_decode_vector(answer.data, answer.len, &vector, &error) != M1_OK)
		m1pg_report(&error);
	result = array_of_numbers(vector.values.data, vector.values.len / sizeof(float), FLOAT4OID);
	m1pg_exchange_close(exchange);
	PG_RETURN_ARRAYTYPE_P(result);
}
