/*
 * server_probe.c - see server_probe.h. A server is asked three things, one after the other: which models it has, which
 * version of what it is, and how it makes tokens of a text.
 */
#define _GNU_SOURCE /* strdup */
#include "proxy/server_probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "proxy/json_out.h"

enum
{
	ASK_MODELS,
	ASK_VERSION,
	ASK_TOKENS,
};

static void ask(m1_server *server, int question);

/* ---- what it is ---- */

static void
copy_text(char *to, size_t size, const m1_json *from)
{
	snprintf(to, size, "%s", m1_json_cstr(from) != NULL ? m1_json_cstr(from) : "");
}

static int
count_of(const m1_json *object, const char *key)
{
	int64_t n;

	return m1_json_is_int64(m1_json_get(object, key), &n) && n > 0 && n <= INT32_MAX ? (int) n : 0;
}

static uint64_t
large_count_of(const m1_json *object, const char *key)
{
	int64_t n;

	return m1_json_is_int64(m1_json_get(object, key), &n) && n > 0 ? (uint64_t) n : 0;
}

static m1_dialect_kind
kind_by_owner(const m1_json *model)
{
	const m1_json *owner = m1_json_get(model, "owned_by");

	if (m1_json_is_text(owner, "vllm"))
		return M1_DIALECT_VLLM;
	if (m1_json_is_text(owner, "llamacpp"))
		return M1_DIALECT_LLAMA;
	if (m1_json_is_text(owner, "sglang"))
		return M1_DIALECT_SGLANG;
	return M1_DIALECT_OPENAI;
}

/* Its place among the names that are known, to which it is added; -1 = there is no room for it. */
static int
adapter_place(m1_servers *s, const char *name)
{
	int i = 0;

	while (i < s->n_adapters && strcmp(s->adapters[i], name) != 0)
		i++;
	if (i < s->n_adapters)
		return i;
	if (i == M1_MAX_SERVED_ADAPTERS || (s->adapters[i] = strdup(name)) == NULL)
		return -1;
	return s->n_adapters++;
}

/* An entry with a parent is an adapter that is served beside it. */
static void
note_adapter(m1_server *server, const m1_json *entry)
{
	const char *name = m1_json_cstr(m1_json_get(entry, "id"));
	int place;

	if (name == NULL || !m1_json_is(m1_json_get(entry, "parent"), M1_JSON_STRING))
		return;
	if ((place = adapter_place(server->all, name)) >= 0)
		server->learnt.adapters |= UINT64_C(1) << place;
	else
		server->learnt.unknown_adapters++;
}

/* The entry of the model: by the name that is set, or the first that is no adapter. */
static const m1_json *
find_model(m1_server *server, const m1_json *list)
{
	const m1_servers *s = server->all;
	const m1_json *found = NULL;

	m1_json_foreach (list, entry)
	{
		const m1_json *id = m1_json_get(entry, "id");

		note_adapter(server, entry);
		if (found == NULL && m1_json_is(id, M1_JSON_STRING) &&
			(*s->options.model_name != '\0' ? m1_json_is_text(id, s->options.model_name)
											: !m1_json_is(m1_json_get(entry, "parent"), M1_JSON_STRING)))
			found = entry;
	}
	return found;
}

static void
read_models(m1_server *server, const m1_json *answer)
{
	const m1_servers *s = server->all;
	m1_server_facts *f = &server->learnt;
	const m1_json *entry;

	*f = (m1_server_facts){.kind = s->options.dialect};
	entry = find_model(server, m1_json_get(answer, "data"));
	if (entry == NULL)
	{
		m1_server_reject(server, M1_E_NOT_FOUND,
						 *s->options.model_name != '\0' ? "the server has no model of that name"
														: "the server names no model",
						 NULL);
		return;
	}
	if (m1_json_text(m1_json_get(entry, "id")).len > M1_MAX_MODEL_NAME)
	{
		m1_server_reject(server, M1_E_UNSUPPORTED, "the name of the server's model is too long", NULL);
		return;
	}
	if (f->kind == M1_DIALECT_AUTO)
		f->kind = kind_by_owner(entry);
	copy_text(f->model, sizeof f->model, m1_json_get(entry, "id"));
	f->context = count_of(entry, "max_model_len");
	f->vocab = count_of(m1_json_get(entry, "meta"), "n_vocab");
	f->parameters = large_count_of(m1_json_get(entry, "meta"), "n_params");
	f->bytes = large_count_of(m1_json_get(entry, "meta"), "size");
	ask(server, ASK_VERSION);
}

static void
read_version(m1_server *server, const m1_json *answer)
{
	m1_server_facts *f = &server->learnt;
	const m1_json *settings = m1_json_get(answer, "default_generation_settings");

	if (f->kind == M1_DIALECT_LLAMA)
	{
		copy_text(f->version, sizeof f->version, m1_json_get(answer, "build_info"));
		f->context = count_of(settings, "n_ctx");
	}
	else
		copy_text(f->version, sizeof f->version, m1_json_get(answer, "version"));
	ask(server, ASK_TOKENS);
}

static bool
are_sample(const m1_servers *s, const m1_json *tokens)
{
	size_t i = 0;

	m1_json_foreach (tokens, token)
	{
		int64_t id;

		if (i == s->sample.len || !m1_json_is_int64(token, &id) || id != s->sample.data[i++])
			return false;
	}
	return i == s->sample.len;
}

/* answer: NULL where the server does not make tokens for others. */
static void
read_tokens(m1_server *server, const m1_json *answer)
{
	const m1_servers *s = server->all;
	const m1_json *tokens = m1_json_get(answer, "tokens");

	if (server->learnt.vocab > 0 && server->learnt.vocab != s->options.model->config.vocab_size)
		m1_server_reject(server, M1_E_INVALID_ARGUMENT, "the server has another vocabulary than the model's folder",
						 NULL);
	else if (tokens != NULL && !are_sample(s, tokens))
		m1_server_reject(server, M1_E_INVALID_ARGUMENT, "the server has another tokenizer than the model's folder",
						 NULL);
	else
	{
		server->learnt.unknown_tokens = tokens == NULL;
		m1_server_came_up(server);
	}
}

/* ---- questions ---- */

static const char *
path_of(const m1_server *server, int question)
{
	const m1_dialect_kind kind = server->learnt.kind;

	switch (question)
	{
		case ASK_MODELS:
			return "/v1/models";
		case ASK_VERSION:
			return kind == M1_DIALECT_LLAMA ? "/props" : kind == M1_DIALECT_SGLANG ? "/get_server_info" : "/version";
		default:
			return "/tokenize";
	}
}

static void
write_sample(const m1_server *server, m1_buf *body)
{
	const bool llama = server->learnt.kind == M1_DIALECT_LLAMA;

	m1_buf_puts(body, "{");
	m1_out_text(body, llama ? "content" : "prompt", m1_slice_of(M1_SAMPLE_TEXT));
	if (!llama)
		m1_out_text(body, "model", m1_slice_of(server->learnt.model));
	m1_out_flag(body, llama ? "add_special" : "add_special_tokens", false);
	m1_buf_puts(body, "}");
}

static void
read_answer(m1_server *server, const m1_json *answer)
{
	switch (server->probe)
	{
		case ASK_MODELS:
			read_models(server, answer);
			break;
		case ASK_VERSION:
			read_version(server, answer);
			break;
		default:
			read_tokens(server, answer);
			break;
	}
}

/* What a server need not answer: a hosted one tells neither its version nor its tokens. */
static bool
may_be_refused(const m1_server *server, const m1_call_result *result)
{
	return server->probe != ASK_MODELS && result->end == M1_CALL_REFUSED && result->status != 401 &&
		   result->status != 403;
}

/* Not even its models, where it is told what it is and has. */
static bool
takes_it_from_settings(const m1_server *server, const m1_call_result *result)
{
	const m1_servers_options *o = &server->all->options;

	return server->probe == ASK_MODELS && result->status == 404 && o->dialect == M1_DIALECT_OPENAI &&
		   *o->model_name != '\0';
}

static void
on_refusal(m1_server *server, const m1_call_result *result)
{
	if (takes_it_from_settings(server, result))
	{
		server->learnt = (m1_server_facts){.kind = M1_DIALECT_OPENAI};
		snprintf(server->learnt.model, sizeof server->learnt.model, "%s", server->all->options.model_name);
		m1_server_came_up(server);
		return;
	}
	m1_server_refuses(server, result->status);
}

static void
on_probe_over(const m1_call_result *result)
{
	m1_server *server = result->context;
	m1_json_doc doc = {0};
	m1_error err;

	server->probe_call = NULL;
	if (result->end == M1_CALL_UNREACHABLE || result->end == M1_CALL_BROKEN)
		m1_server_failed(server, result->why, m1_now_ms());
	else if (result->end == M1_CALL_BUSY && server->state == M1_SERVER_UP)
		m1_server_looks_busy(server, result->retry_after, m1_now_ms());
	else if (result->end != M1_CALL_ANSWERED && !may_be_refused(server, result))
		on_refusal(server, result);
	else if (result->end == M1_CALL_ANSWERED &&
			 m1_json_parse(result->body, "the server's answer", NULL, &doc, &err) != M1_OK)
		m1_server_reject(server, M1_E_UNAVAILABLE, "what answers is no server of a model", NULL);
	else
		read_answer(server, doc.root);
	m1_json_free(&doc);
}

static const m1_call_handler probe_handler = {.over = on_probe_over};

static void
ask(m1_server *server, int question)
{
	char url[M1_MAX_URL + 32];
	m1_buf body = {0};

	server->probe = question;
	if (question == ASK_TOKENS && server->learnt.kind == M1_DIALECT_OPENAI)
	{
		m1_server_came_up(server);
		return;
	}
	if (question == ASK_TOKENS)
		write_sample(server, &body);
	snprintf(url, sizeof url, "%s%s", server->url, path_of(server, question));
	if (!body.failed)
		server->probe_call =
			m1_call_start(server->all->options.calls, url, (m1_slice){body.data, body.len}, &probe_handler, server);
	if (server->probe_call == NULL)
		m1_server_failed(server, "out of memory", m1_now_ms());
	m1_buf_free(&body);
}

void
m1_server_probe(m1_server *server)
{
	ask(server, ASK_MODELS);
}
