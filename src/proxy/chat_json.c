/* chat_json.c - see chat_json.h. */
#include "proxy/chat_json.h"

#include "proxy/json_out.h"

static m1_status
refuse(const char *what, m1_error *err)
{
	m1_fail(err, M1_E_UNSUPPORTED, "%s cannot be asked of a server that takes texts", what);
	m1_error_detail(err, "It speaks OpenAI's chat completions.");
	m1_error_hint(err, "See {engine_dialect}: vLLM, llama.cpp and SGLang take tokens.");
	return M1_E_UNSUPPORTED;
}

static m1_status
check(const m1w_generate *g, m1_error *err)
{
	if (g->ids.len > 0)
		return refuse("the continuation of token ids", err);
	if (g->score_choices)
		return refuse("the probability of choices", err);
	if (g->top_k > 0)
		return refuse("a choice among the top_k likeliest tokens", err);
	if (g->tools.len > 0)
		return refuse("a call of tools", err);
	if (g->constraint == M1W_CONSTRAINT_REGEX)
		return refuse("an answer that matches a regular expression", err);
	if (g->thinking_budget > 0)
		return refuse("a budget of reasoning", err);
	return M1_OK;
}

static void
write_turn(m1_buf *out, bool first, const char *role, m1_slice text)
{
	m1_buf_puts(out, first ? "{" : ",{");
	m1_out_text(out, "role", m1_slice_of(role));
	m1_out_text(out, "content", text);
	m1_buf_puts(out, "}");
}

/* Messages are a JSON array, of which the brackets are ours. */
static void
write_messages(const m1w_generate *g, m1_buf *out)
{
	m1_slice list = g->messages;

	m1_out_raw(out, "messages", "[");
	if (g->system.len > 0)
		write_turn(out, true, "system", g->system);
	if (g->prompt.len > 0)
		write_turn(out, g->system.len == 0, "user", g->prompt);
	while (list.len > 0 && *list.data != '[')
		list = (m1_slice){list.data + 1, list.len - 1};
	while (list.len > 0 && list.data[list.len - 1] != ']')
		list.len--;
	if (list.len > 2)
	{
		m1_buf_puts(out, g->system.len > 0 ? "," : "");
		m1_buf_append(out, list.data + 1, list.len - 2);
	}
	m1_buf_puts(out, "]");
}

static void
write_format(const m1w_generate *g, m1_buf *out)
{
	m1_out_raw(out, "response_format",
			   "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"answer\",\"strict\":true");
	m1_out_key(out, "schema");
	if (g->constraint == M1W_CONSTRAINT_CHOICES)
		m1_buf_puts(out, "{\"type\":\"string\",\"enum\":");
	m1_buf_append(out, g->constraint_text.data, g->constraint_text.len);
	m1_buf_puts(out, g->constraint == M1W_CONSTRAINT_CHOICES ? "}}}" : "}}");
}

m1_status
m1_chat_json_write(const m1w_generate *g, m1_buf *out, m1_error *err)
{
	m1_status status = check(g, err);

	if (status != M1_OK)
		return status;
	write_messages(g, out);
	if (g->constraint != M1W_CONSTRAINT_NONE)
		write_format(g, out);
	return out->failed ? m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request") : M1_OK;
}
