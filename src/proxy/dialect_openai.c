/*
 * dialect_openai.c - OpenAI's chat completions: texts go out and come back, and the server's own template, tokenizer
 * and parsers are between. What was asked comes as JSON members that proxy.c has made (m1_ask.chat).
 */
#include "proxy/dialect.h"
#include "proxy/json_out.h"

static bool
write_ask(m1_buf *out, const m1_ask *ask)
{
	const m1_request *r = ask->request;

	m1_buf_puts(out, "{");
	m1_out_text(out, "model", m1_slice_of(ask->adapter != NULL ? ask->adapter : ask->server->model));
	m1_buf_puts(out, ",");
	m1_buf_append(out, ask->chat.data, ask->chat.len);
	m1_out_int(out, "max_tokens", ask->n_tokens);
	m1_out_real(out, "temperature", r->sampling.temperature);
	m1_out_real(out, "top_p", r->sampling.top_p);
	m1_out_int(out, "seed", m1_out_seed(r->sampling.seed, ask->stretch));
	m1_out_raw(out, "stream", "true,\"stream_options\":{\"include_usage\":true}");
	return m1_buf_puts(out, "}");
}

static bool
read_event(const m1_json *event, int known, m1_told *told)
{
	const m1_json *choice = m1_json_at(m1_json_get(event, "choices"), 0);
	const m1_json *delta = m1_json_get(choice, "delta");
	const m1_json *reason = m1_json_get(choice, "finish_reason");
	const m1_json *details = m1_json_get(m1_json_get(event, "usage"), "prompt_tokens_details");
	int64_t n;

	(void) known;
	if (m1_told_failure(event, told))
		return true;
	if (m1_json_is_int64(m1_json_get(details, "cached_tokens"), &n) && n >= 0 && n <= INT32_MAX)
		told->cached = (int) n;
	told->text = m1_json_text(m1_json_get(delta, "content"));
	told->reasoning = m1_json_text(m1_json_get(delta, "reasoning_content"));
	if (told->reasoning.len == 0)
		told->reasoning = m1_json_text(m1_json_get(delta, "reasoning"));
	told->finished = m1_json_is(reason, M1_JSON_STRING);
	told->end_of_turn = told->finished && !m1_json_is_text(reason, "length");
	return m1_json_is(m1_json_get(event, "choices"), M1_JSON_ARRAY);
}

const m1_dialect m1_dialect_openai = {
	.name = "openai",
	.called = "OpenAI",
	.path = "/v1/chat/completions",
	.write_ask = write_ask,
	.read_event = read_event,
};
