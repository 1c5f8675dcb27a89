/*
 * dialect_sglang.c - SGLang's /generate. Its events have all tokens so far, or, where the server was started so, the
 * new ones only: the number of all of them tells which.
 */
#include "proxy/dialect.h"
#include "proxy/json_out.h"

static void
write_common(m1_buf *out, const int32_t *tokens, size_t n, const m1_request *r, const char *adapter)
{
	m1_buf_puts(out, "{");
	m1_out_ids(out, "input_ids", tokens, n);
	m1_out_owner(out, "extra_key", r->cache_owner);
	if (adapter != NULL)
		m1_out_text(out, "lora_path", m1_slice_of(adapter));
}

static bool
write_ask(m1_buf *out, const m1_ask *ask)
{
	const m1_request *r = ask->request;
	const int32_t eos = r->kind == M1_REQUEST_CHAT ? m1_tokenizer_eos(r->tokenizer) : -1;

	write_common(out, r->tokens.data, r->tokens.len, r, ask->adapter);
	m1_out_raw(out, "stream", "true");
	m1_out_raw(out, "sampling_params", "{");
	m1_out_int(out, "max_new_tokens", ask->n_tokens);
	m1_out_real(out, "temperature", r->sampling.temperature);
	m1_out_real(out, "top_p", r->sampling.top_p);
	m1_out_int(out, "top_k", r->sampling.top_k > 0 ? r->sampling.top_k : -1);
	m1_out_raw(out, "min_p", "0,\"repetition_penalty\":1,\"presence_penalty\":0,\"frequency_penalty\":0");
	m1_out_int(out, "sampling_seed", m1_out_seed(r->sampling.seed, ask->stretch));
	m1_out_flag(out, "ignore_eos", eos < 0);
	m1_out_ids(out, "stop_token_ids", &eos, eos >= 0);
	m1_out_flag(out, "skip_special_tokens", false);
	if (ask->grammar.len > 0)
		m1_out_text(out, "ebnf", ask->grammar);
	return m1_buf_puts(out, "}}");
}

static bool
read_event(const m1_json *event, int known, m1_told *told)
{
	const m1_json *meta = m1_json_get(event, "meta_info");
	const m1_json *ids = m1_json_get(event, "output_ids");
	const m1_json *reason = m1_json_get(meta, "finish_reason");
	const m1_json *type = m1_json_get(reason, "type");
	size_t skip = 0;
	int64_t n;

	if (m1_told_failure(event, told))
		return true;
	if (m1_json_is_text(type, "abort"))
		told->failure = m1_slice_of("the server aborted the request");
	if (m1_json_is_int64(m1_json_get(meta, "cached_tokens"), &n) && n >= 0 && n <= INT32_MAX)
		told->cached = (int) n;
	if (m1_json_is_int64(m1_json_get(meta, "completion_tokens"), &n) && n > 0 && (size_t) n == m1_json_size(ids))
		skip = (size_t) known;
	told->finished = type != NULL;
	told->end_of_turn = m1_json_is_text(type, "stop");
	m1_json_foreach (ids, id)
	{
		if (skip > 0)
			skip--;
		else if (!m1_json_is_int64(id, &n) || n < 0 || n > INT32_MAX || !m1_ids_push(&told->ids, (int32_t) n))
			return false;
	}
	return ids != NULL || told->finished;
}

static bool
write_score(m1_buf *out, const m1_score_ask *ask)
{
	write_common(out, ask->tokens, (size_t) ask->n_tokens, ask->request, ask->adapter);
	m1_out_raw(out, "stream", "false,\"return_logprob\":true");
	m1_out_int(out, "logprob_start_len", ask->n_tokens - ask->n_scored - 1);
	m1_out_raw(out, "sampling_params", "{\"max_new_tokens\":1,\"temperature\":0}");
	return m1_buf_puts(out, "}");
}

/* [logprob, id, text] of each token from there on; the first has none. */
static bool
read_score(const m1_json *answer, const m1_score_ask *ask, double *logprob)
{
	const m1_json *all = m1_json_get(m1_json_get(answer, "meta_info"), "input_token_logprobs");
	const size_t n = m1_json_size(all);
	const size_t scored = (size_t) ask->n_scored;

	if (n < scored)
		return false;
	*logprob = 0;
	for (size_t i = 0; i < scored; i++)
	{
		const m1_json *one = m1_json_at(all, n - scored + i);
		int64_t id;

		if (!m1_json_is(m1_json_at(one, 0), M1_JSON_NUMBER) || !m1_json_is_int64(m1_json_at(one, 1), &id) ||
			id != ask->tokens[(size_t) ask->n_tokens - scored + i])
			return false;
		*logprob += m1_json_real(m1_json_at(one, 0));
	}
	return true;
}

const m1_dialect m1_dialect_sglang = {
	.name = "sglang",
	.called = "SGLang",
	.path = "/generate",
	.takes_ids = true,
	.separates_caches = true,
	.write_ask = write_ask,
	.read_event = read_event,
	.write_score = write_score,
	.read_score = read_score,
	.most_scored = INT32_MAX,
};
