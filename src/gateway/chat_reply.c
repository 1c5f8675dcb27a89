/* chat_reply.c - answers of /v1/chat/completions, whole and in pieces, of rows of the database; see openai.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/jsonform.h"
#include "gateway/nonce.h"
#include "gateway/openai.h"
#include "text/jsontext.h"

#define ID_SIZE 25

static void
put_random(char *out, const char *prefix)
{
	const size_t n = strlen(prefix);

	memcpy(out, prefix, n);
	gw_make_nonce(out + n, ID_SIZE);
}

void
gw_chat_reply_init(gw_chat_reply *reply)
{
	put_random(reply->id, "chatcmpl-");
	reply->created = time(NULL);
}

void
gw_chat_reply_free(gw_chat_reply *reply)
{
	m1_buf_free(&reply->model);
	gw_call_pieces_free(&reply->calls);
}

static const char *
text_of(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

static int64_t
count_of(const PGresult *result, int row, int column)
{
	return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static const char *
model_of(const gw_chat_reply *reply)
{
	return reply->model.len > 0 ? reply->model.data : "minimax-m1";
}

/* ---- what both forms have ---- */

static void
put_usage(m1_buf *out, const PGresult *result, int row)
{
	const int64_t prompt = count_of(result, row, GW_CHAT_PROMPT_TOKENS);
	const int64_t completion = count_of(result, row, GW_CHAT_COMPLETION_TOKENS);

	gw_json(out,
			"{'prompt_tokens':%d,'completion_tokens':%d,'total_tokens':%d,'prompt_tokens_details':{'cached_tokens':%d},"
			"'completion_tokens_details':{'reasoning_tokens':%d}}",
			prompt, completion, prompt + completion, count_of(result, row, GW_CHAT_CACHED_TOKENS),
			count_of(result, row, GW_CHAT_REASONING_TOKENS));
}

static const char *
finish_reason(const char *ours, bool calls)
{
	if (ours != NULL && (strcmp(ours, "length") == 0 || strcmp(ours, "loop") == 0))
		return "length";
	return calls ? "tool_calls" : "stop";
}

/* Those of the content: what was thought has no place there. */
static void
put_logprobs(m1_buf *out, const PGresult *result, int row)
{
	const char *text = text_of(result, row, GW_CHAT_LOGPROBS);
	m1_json_doc doc = {0};
	const char *comma = "";
	m1_error err;

	if (text == NULL || m1_json_parse(m1_slice_of(text), "logprobs", NULL, &doc, &err) != M1_OK)
	{
		m1_buf_puts(out, "null");
		return;
	}
	gw_json(out, "{'content':[");
	m1_json_foreach (doc.root, token)
	{
		const m1_json *top = m1_json_get(token, "top_logprobs");

		if (!m1_json_is_text(m1_json_get(token, "channel"), "content"))
			continue;
		gw_json(out, "%r{'token':%j,'logprob':%j,'bytes':%j,'top_logprobs':", m1_slice_of(comma),
				m1_json_get(token, "token"), m1_json_get(token, "logprob"), m1_json_get(token, "bytes"));
		if (top == NULL)
			m1_buf_puts(out, "[]}");
		else
			gw_json(out, "%j}", top);
		comma = ",";
	}
	gw_json(out, "],'refusal':null}");
	m1_json_free(&doc);
}

/* The calls in a row. What is none of them was written all the same: see put_unread. */
typedef struct calls
{
	m1_json_doc doc;
	int n;
} calls;

static calls
read_calls(const PGresult *result, int row)
{
	const char *text = text_of(result, row, GW_CHAT_CALLS);
	calls c = {.n = 0};
	m1_error err;

	if (text != NULL && m1_json_parse(m1_slice_of(text), "tool_calls", NULL, &c.doc, &err) == M1_OK)
		m1_json_foreach (c.doc.root, call)
			c.n += m1_json_get(call, "name") != NULL;
	return c;
}

/* What a call begins with, and its arguments, a text of JSON, as far as they are known. */
static void
put_call_begin(m1_buf *out, m1_slice name, m1_slice arguments)
{
	char id[32];

	put_random(id, "call_");
	gw_json(out, "'id':%s,'type':'function','function':{'name':%t,'arguments':%t}}", id, name, arguments);
}

static void
put_call(m1_buf *out, const m1_json *call)
{
	m1_buf arguments = {0};

	m1_json_write(&arguments, m1_json_get(call, "arguments"), M1_JSON_AS_GIVEN);
	put_call_begin(out, m1_json_text(m1_json_get(call, "name")), (m1_slice){arguments.data, arguments.len});
	out->failed |= arguments.failed;
	m1_buf_free(&arguments);
}

/* What the model wrote that is no call is content. */
static void
put_unread(m1_buf *content, const calls *c)
{
	m1_json_foreach (c->doc.root, call)
	{
		const m1_slice text = m1_json_text(m1_json_get(call, "text"));

		if (m1_json_get(call, "name") == NULL)
			m1_buf_append(content, text.data, text.len);
	}
}

/* ---- the whole ---- */

static void
put_message(m1_buf *out, const PGresult *result, int row, const calls *c)
{
	const char *reasoning = text_of(result, row, GW_CHAT_REASONING);
	m1_buf content = {0};
	int index = 0;

	if (!PQgetisnull(result, row, GW_CHAT_CONTENT))
		m1_buf_puts(&content, PQgetvalue(result, row, GW_CHAT_CONTENT));
	put_unread(&content, c);
	gw_json(out, "{'role':'assistant','content':");
	if (content.len == 0 && c->n > 0)
		m1_buf_puts(out, "null");
	else
		gw_json(out, "%t", (m1_slice){content.data, content.len});
	gw_json(out, ",'refusal':null");
	if (reasoning != NULL)
		gw_json(out, ",'reasoning':%s,'reasoning_content':%s", reasoning, reasoning);
	if (c->n > 0)
		gw_json(out, ",'tool_calls':[");
	m1_json_foreach (c->doc.root, call)
	{
		if (m1_json_get(call, "name") == NULL)
			continue;
		m1_buf_puts(out, index++ > 0 ? ",{" : "{");
		put_call(out, call);
	}
	m1_buf_puts(out, c->n > 0 ? "]}" : "}");
	out->failed |= content.failed;
	m1_buf_free(&content);
}

void
gw_chat_put_whole(m1_buf *out, const gw_chat_reply *reply, const PGresult *result, int row)
{
	calls c = read_calls(result, row);

	gw_json(out,
			"{'id':%s,'object':'chat.completion','created':%d,'model':%s,'choices':[{'index':0,'message':", reply->id,
			reply->created, model_of(reply));
	put_message(out, result, row, &c);
	gw_json(out, ",'logprobs':");
	put_logprobs(out, result, row);
	gw_json(out, ",'finish_reason':%s}],'usage':", finish_reason(text_of(result, row, GW_CHAT_FINISH_REASON), c.n > 0));
	put_usage(out, result, row);
	gw_json(out, "}");
	m1_json_free(&c.doc);
}

/* ---- pieces ---- */

static void
begin_piece(m1_buf *out, const gw_chat_reply *reply)
{
	gw_json(out, "data: {'id':%s,'object':'chat.completion.chunk','created':%d,'model':%s,'choices':[", reply->id,
			reply->created, model_of(reply));
}

static void
end_piece(m1_buf *out)
{
	gw_json(out, ",'logprobs':null,'finish_reason':null}]}\n\n");
}

void
gw_chat_put_first(m1_buf *out, const gw_chat_reply *reply)
{
	begin_piece(out, reply);
	gw_json(out, "{'index':0,'delta':{'role':'assistant','content':''}");
	end_piece(out);
}

static void
put_content(m1_buf *out, const gw_chat_reply *reply, m1_slice text)
{
	begin_piece(out, reply);
	gw_json(out, "{'index':0,'delta':{'content':%t}", text);
	end_piece(out);
}

/* Who a listener of gw_call_pieces puts pieces for. */
typedef struct call_writer
{
	m1_buf *out;
	const gw_chat_reply *reply;
} call_writer;

static void
begin_call_piece(const call_writer *w, int index)
{
	begin_piece(w->out, w->reply);
	gw_json(w->out, "{'index':0,'delta':{'tool_calls':[{'index':%d,", (int64_t) index);
}

static void
end_call_piece(const call_writer *w)
{
	gw_json(w->out, "]}");
	end_piece(w->out);
}

static void
on_call(void *context, int index, m1_slice name)
{
	begin_call_piece(context, index);
	put_call_begin(((const call_writer *) context)->out, name, (m1_slice){"", 0});
	end_call_piece(context);
}

static void
on_arguments(void *context, int index, m1_slice piece)
{
	begin_call_piece(context, index);
	gw_json(((const call_writer *) context)->out, "'function':{'arguments':%t}}", piece);
	end_call_piece(context);
}

static void
put_call_text(m1_buf *out, gw_chat_reply *reply, m1_slice text)
{
	static const gw_call_listener listener = {on_call, on_arguments};
	call_writer writer = {out, reply};

	gw_call_pieces_read(&reply->calls, text, &listener, &writer);
	out->failed |= reply->calls.head.failed;
}

void
gw_chat_put_delta(m1_buf *out, gw_chat_reply *reply, const PGresult *result, int row)
{
	const char *channel = PQgetvalue(result, row, GW_CHAT_CHANNEL);
	const m1_slice text = {PQgetvalue(result, row, GW_CHAT_DELTA), (size_t) PQgetlength(result, row, GW_CHAT_DELTA)};

	if (strcmp(channel, "tool_calls") == 0)
		put_call_text(out, reply, text);
	else if (strcmp(channel, "reasoning") != 0)
		put_content(out, reply, text);
	else
	{
		begin_piece(out, reply);
		gw_json(out, "{'index':0,'delta':{'reasoning':%t,'reasoning_content':%t}", text, text);
		end_piece(out);
	}
}

/* Those that were not told while they were written. */
static void
put_calls(m1_buf *out, const gw_chat_reply *reply, const calls *c)
{
	const call_writer writer = {out, reply};
	m1_buf unread = {0};
	int index = 0;

	put_unread(&unread, c);
	if (unread.len > 0)
		put_content(out, reply, (m1_slice){unread.data, unread.len});
	m1_buf_free(&unread);
	m1_json_foreach (c->doc.root, call)
	{
		if (m1_json_get(call, "name") == NULL || index++ < reply->calls.begun)
			continue;
		begin_call_piece(&writer, index - 1);
		put_call(out, call);
		end_call_piece(&writer);
	}
}

bool
gw_chat_put_last(m1_buf *out, const gw_chat_reply *reply, const PGresult *result, int row, bool with_usage)
{
	calls c = read_calls(result, row);
	const bool agree = gw_call_pieces_agree(&reply->calls, c.doc.root);

	put_calls(out, reply, &c);
	begin_piece(out, reply);
	gw_json(out, "{'index':0,'delta':{},'logprobs':");
	put_logprobs(out, result, row);
	gw_json(out, ",'finish_reason':%s}]}\n\n", finish_reason(text_of(result, row, GW_CHAT_FINISH_REASON), c.n > 0));
	if (with_usage)
	{
		begin_piece(out, reply);
		gw_json(out, "],'usage':");
		put_usage(out, result, row);
		gw_json(out, "}\n\n");
	}
	m1_json_free(&c.doc);
	return agree;
}
