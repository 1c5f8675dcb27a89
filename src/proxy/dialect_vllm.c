/*
 * dialect_vllm.c - vLLM's /v1/completions.
 *
 * Every sampling parameter is given: what is not, the server takes from the checkpoint's generation_config.json. Ids
 * come back as token_ids where the server knows return_token_ids, else as logprobs.tokens ("token_id:5"), which all
 * versions with MiniMax-M1 have.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/dialect.h"
#include "proxy/json_out.h"

/* Whether a version "0.11.1..." is that one or newer. */
static bool
is_since(const char *version, long major, long minor)
{
	char *end;
	const long a = strtol(version, &end, 10);
	const long b = *end == '.' ? strtol(end + 1, NULL, 10) : 0;

	return *version == '\0' || a > major || (a == major && b >= minor);
}

static void
write_common(m1_buf *out, const m1_server_facts *server, const m1_request *r, const char *adapter)
{
	m1_buf_puts(out, "{");
	m1_out_text(out, "model", m1_slice_of(adapter != NULL ? adapter : server->model));
	m1_out_owner(out, "cache_salt", r->cache_owner);
}

/* Structured outputs have been one object since 0.11. */
static void
write_grammar(m1_buf *out, const m1_ask *ask)
{
	if (!is_since(ask->server->version, 0, 11))
	{
		m1_out_text(out, "guided_grammar", ask->grammar);
		return;
	}
	m1_out_raw(out, "structured_outputs", "{");
	m1_out_text(out, "grammar", ask->grammar);
	m1_buf_puts(out, "}");
}

static bool
write_ask(m1_buf *out, const m1_ask *ask)
{
	const m1_request *r = ask->request;
	const int32_t eos = r->kind == M1_REQUEST_CHAT ? m1_tokenizer_eos(r->tokenizer) : -1;

	write_common(out, ask->server, r, ask->adapter);
	m1_out_ids(out, "prompt", r->tokens.data, r->tokens.len);
	m1_out_int(out, "max_tokens", ask->n_tokens);
	m1_out_real(out, "temperature", r->sampling.temperature);
	m1_out_real(out, "top_p", r->sampling.top_p);
	m1_out_int(out, "top_k", r->sampling.top_k > 0 ? r->sampling.top_k : -1);
	m1_out_int(out, "seed", m1_out_seed(r->sampling.seed, ask->stretch));
	m1_out_raw(out, "min_p", "0,\"repetition_penalty\":1,\"presence_penalty\":0,\"frequency_penalty\":0");
	m1_out_flag(out, "ignore_eos", eos < 0);
	m1_out_ids(out, "stop_token_ids", &eos, eos >= 0);
	m1_out_raw(out, "stream", "true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}");
	m1_out_raw(out, "return_token_ids", "true,\"return_tokens_as_token_ids\":true,\"logprobs\":0");
	m1_out_flag(out, "skip_special_tokens", false);
	if (ask->grammar.len > 0)
		write_grammar(out, ask);
	return m1_buf_puts(out, "}");
}

/* ---- events ---- */

static bool
read_id(const m1_json *value, m1_ids *ids)
{
	int64_t id;

	return m1_json_is_int64(value, &id) && id >= 0 && id <= INT32_MAX && m1_ids_push(ids, (int32_t) id);
}

/* "token_id:5" */
static bool
read_named_id(const m1_json *value, m1_ids *ids)
{
	static const char prefix[] = "token_id:";
	const char *text = m1_json_cstr(value);
	char *end;
	long id;

	if (text == NULL || strncmp(text, prefix, sizeof prefix - 1) != 0)
		return false;
	id = strtol(text + sizeof prefix - 1, &end, 10);
	return *end == '\0' && end != text + sizeof prefix - 1 && id >= 0 && id <= INT32_MAX &&
		   m1_ids_push(ids, (int32_t) id);
}

static bool
read_ids(const m1_json *choice, m1_told *told)
{
	const m1_json *ids = m1_json_get(choice, "token_ids");
	const m1_json *logprobs = m1_json_get(choice, "logprobs");
	const m1_json *named = m1_json_get(logprobs, "tokens");
	const m1_json *values = m1_json_get(logprobs, "token_logprobs");
	bool ok = true;

	if (m1_json_is(ids, M1_JSON_ARRAY))
		m1_json_foreach (ids, id)
			ok = ok && read_id(id, &told->ids);
	else
		m1_json_foreach (named, id)
			ok = ok && read_named_id(id, &told->ids);
	if (m1_json_size(values) > 0 && m1_json_is(m1_json_at(values, m1_json_size(values) - 1), M1_JSON_NUMBER))
		told->probability = (float) exp(m1_json_real(m1_json_at(values, m1_json_size(values) - 1)));
	return ok;
}

static void
read_usage(const m1_json *usage, m1_told *told)
{
	int64_t n;

	if (m1_json_is_int64(m1_json_get(m1_json_get(usage, "prompt_tokens_details"), "cached_tokens"), &n))
		told->cached = (int) (n < 0 ? 0 : n > INT32_MAX ? INT32_MAX : n);
}

static bool
read_event(const m1_json *event, int known, m1_told *told)
{
	const m1_json *choice = m1_json_at(m1_json_get(event, "choices"), 0);
	const m1_json *reason = m1_json_get(choice, "finish_reason");

	(void) known;
	if (m1_told_failure(event, told))
		return true;
	read_usage(m1_json_get(event, "usage"), told);
	if (choice == NULL)
		return m1_json_is(m1_json_get(event, "choices"), M1_JSON_ARRAY);
	told->text = m1_json_text(m1_json_get(choice, "text"));
	told->finished = m1_json_is(reason, M1_JSON_STRING);
	told->end_of_turn = m1_json_is_text(reason, "stop");
	if (m1_json_is_text(reason, "abort") || m1_json_is_text(reason, "error"))
		told->failure = m1_slice_of("the server aborted the request");
	return read_ids(choice, told);
}

/* ---- probabilities ---- */

static bool
write_score(m1_buf *out, const m1_score_ask *ask)
{
	write_common(out, ask->server, ask->request, ask->adapter);
	m1_out_ids(out, "prompt", ask->tokens, (size_t) ask->n_tokens);
	m1_out_raw(out, "max_tokens", "1,\"temperature\":0,\"prompt_logprobs\":0,\"stream\":false");
	return m1_buf_puts(out, "}");
}

/* Of each token of the prompt, an object of probabilities by id: the token's own is among them. */
static bool
read_score(const m1_json *answer, const m1_score_ask *ask, double *logprob)
{
	const m1_json *choice = m1_json_at(m1_json_get(answer, "choices"), 0);
	const m1_json *all = m1_json_get(choice, "prompt_logprobs");

	if (m1_json_size(all) != (size_t) ask->n_tokens)
		return false;
	*logprob = 0;
	for (int i = ask->n_tokens - ask->n_scored; i < ask->n_tokens; i++)
	{
		char id[16];
		const m1_json *one;

		snprintf(id, sizeof id, "%d", ask->tokens[i]);
		one = m1_json_get(m1_json_get(m1_json_at(all, (size_t) i), id), "logprob");
		if (!m1_json_is(one, M1_JSON_NUMBER))
			return false;
		*logprob += m1_json_real(one);
	}
	return true;
}

const m1_dialect m1_dialect_vllm = {
	.name = "vllm",
	.called = "vLLM",
	.path = "/v1/completions",
	.takes_ids = true,
	.separates_caches = true,
	.write_ask = write_ask,
	.read_event = read_event,
	.write_score = write_score,
	.read_score = read_score,
	.most_scored = INT32_MAX,
};
