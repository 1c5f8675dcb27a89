/*
 * request.c
 *	  A generate request: its options, from settings and arguments, and its run to
 *	  the end.
 */
#include "pg/client/request.h"
#include "pg/client/exchange.h"
#include "pg/client/texts.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"

/* ---- options ---- */

/* Who shares snapshots: a role has no number 0, so the three kinds never meet. */
uint64
m1pg_cache_owner(void)
{
	switch ((M1Sharing) m1pg_prefix_cache_sharing)
	{
		case M1_SHARE_ALL:
			return 0;
		case M1_SHARE_DATABASE:
			return MyDatabaseId;
		default:
			return (uint64) GetUserId() << 32 | MyDatabaseId;
	}
}

uint64
m1pg_new_seed(void)
{
	uint64		seed;

	if (!pg_strong_random(&seed, sizeof seed))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random seed")));
	/* a bigint, so that complete() can report it */
	return seed & PG_INT64_MAX;
}

const M1Adapters *m1pg_adapters = NULL;

void
m1pg_plain_request(m1w_generate *g)
{
	memset(g, 0, sizeof *g);
	g->system = m1pg_to_utf8(m1pg_system_prompt, strlen(m1pg_system_prompt));
	g->cache_owner = m1pg_cache_owner();
	g->max_tokens = m1pg_max_tokens;
	g->thinking_budget = m1pg_default_thinking_budget;
	g->temperature = (float) m1pg_temperature;
	g->top_p = (float) m1pg_top_p;
	g->seed = m1pg_new_seed();
}

char *
m1pg_named_request(m1w_generate *g)
{
	const char *adapter = m1pg_session_adapter();
	int			version;

	m1pg_plain_request(g);
	if (adapter == NULL)
		return NULL;
	g->adapter = m1pg_adapters->find(adapter, &version);
	return version > 0 ? psprintf("%s/%d", adapter, version) : pstrdup(adapter);
}

void
m1pg_default_request(m1w_generate *g)
{
	(void) m1pg_named_request(g);
}

bool
m1pg_lacked_adapter(m1_slice adapter, const m1_error *error)
{
	return error->code == M1_E_NOT_FOUND && adapter.len > 0 && m1pg_adapters->give(adapter);
}

static void
read_stops(ArrayType *array, m1w_generate *g)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n > M1W_MAX_STOPS)
		m1pg_bad_argument("too many stop strings",
						  psprintf("There are %d; at most %d are possible.", n, M1W_MAX_STOPS));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			m1pg_bad_argument("a stop string is NULL", psprintf("It is number %d.", i + 1));
		g->stops[i] = m1pg_utf8_of_text(DatumGetTextPP(values[i]));
		if (g->stops[i].len == 0)
			m1pg_bad_argument("a stop string is empty", psprintf("It is number %d.", i + 1));
	}
	g->n_stops = n;
}

int
m1pg_check_max_tokens(int max_tokens)
{
	if (max_tokens < 1)
		m1pg_bad_argument("max_tokens is out of range", psprintf("It is %d; it must be at least 1.", max_tokens));
	return max_tokens;
}

void
m1pg_read_options(FunctionCallInfo fcinfo, int arg, m1w_generate *g)
{
	if (!PG_ARGISNULL(arg))
		g->system = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(arg));
	if (!PG_ARGISNULL(arg + 1))
		g->max_tokens = m1pg_check_max_tokens(PG_GETARG_INT32(arg + 1));
	if (!PG_ARGISNULL(arg + 2) && (g->thinking_budget = PG_GETARG_INT32(arg + 2)) < -1)
		m1pg_bad_argument("thinking_budget is out of range",
					 psprintf("It is %d; it must be -1 (no limit) or more.", g->thinking_budget));
	if (!PG_ARGISNULL(arg + 3))
	{
		double		t = PG_GETARG_FLOAT8(arg + 3);

		if (!(t >= 0 && t <= 100))
			m1pg_bad_argument("temperature is out of range", psprintf("It is %g; it must be between 0 and 100.", t));
		g->temperature = (float) t;
	}
	if (!PG_ARGISNULL(arg + 4))
	{
		double		p = PG_GETARG_FLOAT8(arg + 4);

		g->top_p = (float) p;
		/* also what is too small for the engine's precision */
		if (!(p > 0 && p <= 1 && g->top_p > 0))
			m1pg_bad_argument("top_p is out of range", psprintf("It is %g; it must be above 0 and at most 1.", p));
	}
	if (!PG_ARGISNULL(arg + 5))
		g->seed = (uint64) PG_GETARG_INT64(arg + 5);
}

void
m1pg_read_stops(FunctionCallInfo fcinfo, int arg, m1w_generate *g)
{
	if (!PG_ARGISNULL(arg))
		read_stops(PG_GETARG_ARRAYTYPE_P(arg), g);
}

bool
m1pg_read_prompt(const text *prompt, m1w_generate *g, m1_error *error)
{
	g->prompt = m1pg_utf8_of_text(prompt);
	if (g->prompt.len > 0)
		return true;
	m1_fail(error, M1_E_INVALID_ARGUMENT, "the prompt is empty");
	m1_error_detail(error, "It must have at least one character.");
	return false;
}

void
m1pg_task_prompt(m1w_generate *g, m1_slice task, m1_slice document)
{
	StringInfoData prompt;

	initStringInfo(&prompt);
	appendBinaryStringInfo(&prompt, task.data, task.len);
	appendStringInfoString(&prompt, "\n\n");
	g->template_len = prompt.len;
	appendBinaryStringInfo(&prompt, document.data, document.len);
	g->prompt = (m1_slice) {prompt.data, prompt.len};
}

/* ---- the run ---- */

/* What the activity view shows of a request. */
static char *
excerpt_of(const m1w_generate *g)
{
	m1_slice	s = g->prompt.len > 0 ? g->prompt : g->messages;
	int			len;
	char	   *head;

	if (s.len == 0)
		return "";
	len = pg_encoding_mbcliplen(PG_UTF8, s.data, s.len, M1PG_EXCERPT);
	head = pnstrdup(s.data, len);
	return pg_any_to_server(head, len, PG_UTF8);
}

static bool
check_texts(const m1w_generate *g, m1_error *error)
{
	for (uint32 i = 0; i < g->n_stops; i++)
		if (!m1pg_check_utf8(g->stops[i], "stop string", error))
			return false;
	return m1pg_check_utf8(g->prompt, "prompt", error) && m1pg_check_utf8(g->system, "system prompt", error) &&
		m1pg_check_utf8(g->messages, "messages", error) && m1pg_check_utf8(g->tools, "tools", error) &&
		m1pg_check_utf8(g->tool_choice, "tool_choice", error) &&
		m1pg_check_utf8(g->constraint_text, "form of the answer", error);
}

M1Exchange *
m1pg_open_generate(const m1w_generate *g, const char *function, m1_error *error)
{
	M1Request	request = {.type = M1W_GENERATE, .message.generate = g, .function = function};

	if (!check_texts(g, error))
		return NULL;
	request.excerpt = excerpt_of(g);
	return m1pg_exchange_try_open(&request, error);
}

static m1w_done
decode_done(const char *payload, Size len)
{
	m1w_done	done;
	m1_error	error;

	if (m1w_decode_done(payload, len, &done, &error) != M1_OK)
		m1pg_report(&error);
	return done;
}

m1w_id_slice
m1pg_keep_ids(m1w_id_slice ids)
{
	int32	   *copy = palloc_extended(Max(ids.len, 1) * sizeof *copy, MCXT_ALLOC_HUGE);

	if (ids.len > 0)
		memcpy(copy, ids.data, ids.len * sizeof *copy);
	return (m1w_id_slice) {copy, ids.len};
}

m1w_done
m1pg_keep_done(const m1w_done *done)
{
	m1w_done	copy = *done;

	copy.content = m1pg_keep(done->content);
	copy.reasoning = m1pg_keep(done->reasoning);
	copy.tool_calls = m1pg_keep(done->tool_calls);
	copy.choice_logprobs = m1pg_keep(done->choice_logprobs);
	copy.logprobs = m1pg_keep(done->logprobs);
	copy.ids = m1pg_keep_ids(done->ids);
	copy.prompt_ids = m1pg_keep_ids(done->prompt_ids);
	copy.sampled_logprobs = m1pg_keep(done->sampled_logprobs);
	copy.experts = m1pg_keep(done->experts);
	copy.masked = m1pg_keep_ids(done->masked);
	copy.masks = m1pg_keep(done->masks);
	copy.mask_of = m1pg_keep_ids(done->mask_of);
	return copy;
}

void
m1pg_read_result(const M1Exchange *exchange, m1w_type type, const char *payload, Size len, M1Result *result)
{
	m1w_done	done;

	if (type != M1W_DONE)
		elog(ERROR, "minimax_m1: unexpected event %d", type);
	done = decode_done(payload, len);
	result->done = m1pg_keep_done(&done);
	result->queue_ms = m1pg_exchange_queue_ms(exchange) + result->done.queue_ms;
}

static bool
try_once(const m1w_generate *g, const char *function, M1Result *result, m1_error *error)
{
	M1Exchange *exchange = m1pg_open_generate(g, function, error);
	const char *payload;
	Size		len;
	m1w_type	type;
	bool		done;

	if (exchange == NULL)
		return false;
	type = m1pg_exchange_try_receive(exchange, &payload, &len, error);
	done = type != M1W_ERROR;
	if (done)
		m1pg_read_result(exchange, type, payload, len, result);
	m1pg_exchange_close(exchange);
	return done;
}

bool
m1pg_try_run(const m1w_generate *g, const char *function, M1Result *result, m1_error *error)
{
	for (int tries = 0; !try_once(g, function, result, error); tries++)
		if (tries == M1PG_ADAPTER_TRIES || !m1pg_lacked_adapter(g->adapter, error))
			return false;
	return true;
}

void
m1pg_run(const m1w_generate *g, const char *function, M1Result *result)
{
	m1_error	error;

	if (!m1pg_try_run(g, function, result, &error))
		m1pg_report(&error);
}
