/*
 * servers.c - see servers.h. A server is asked three things, one after the other: which models it has, which version of
 * what it is, and how it makes tokens of a text.
 */
#define _GNU_SOURCE /* strdup, strnlen */
#include "proxy/servers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/least.h"
#include "proxy/json_out.h"

#define FIRST_PAUSE_MS 1000.0
#define LONGEST_PAUSE_MS 60000.0
#define LOOK_MS 10000.0 /* from one look at a server that is up to the next */

/* Words, digits, spaces, breaks and letters of several scripts: other tokenizers give other ids for some of it. */
#define SAMPLE_TEXT                                                                                                 \
	"SELECT 1234567 AS n;  -- it's na\303\257ve\n\n\tDatenbank\303\244hnlich \346\225\260\346\215\256\345\272\223 " \
	"\320\277\321\200\320\270\320\262\320\265\321\202!"

enum
{
	ASK_MODELS,
	ASK_VERSION,
	ASK_TOKENS,
};

static void
log_line(const m1_servers *s, const char *what, const m1_server *server, const char *more)
{
	char line[M1_MAX_URL + 1024];

	if (s->options.log == NULL)
		return;
	snprintf(line, sizeof line, "server %s %s%s%s", server->url, what, *more != '\0' ? ": " : "", more);
	/* what a server says of itself stays on its line */
	for (char *c = line; *c != '\0'; c++)
		*c = iscntrl((unsigned char) *c) ? '?' : *c;
	s->options.log(s->options.log_context, line);
}

/* ---- life ---- */

static m1_status
refuse_url(const char *text, size_t len, const char *why, m1_error *err)
{
	m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.*s\" is no url of a server", (int) m1_min_size(len, 100), text);
	m1_error_detail(err, "%s", why);
	m1_error_hint(err, "See {engine_url}.");
	return M1_E_INVALID_ARGUMENT;
}

/* "http://host:8000/v1/" is "http://host:8000": paths are added. */
static m1_status
add_server(m1_servers *s, const char *text, size_t len, m1_error *err)
{
	m1_server *server = &s->at[s->n];
	const char *fault;

	while (len > 0 && text[len - 1] == '/')
		len--;
	if (len > 3 && memcmp(text + len - 3, "/v1", 3) == 0)
		len -= 3;
	if (s->n == M1_MAX_SERVERS)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "there are more than %d urls", M1_MAX_SERVERS);
	if (len >= M1_MAX_URL)
		return refuse_url(text, len, "It is too long.", err);
	*server = (m1_server){.all = s};
	memcpy(server->url, text, len);
	if ((fault = m1_call_url_fault(server->url)) != NULL)
		return refuse_url(text, strchr(server->url, '@') == NULL ? len : strcspn(server->url, ":") + 3, fault, err);
	s->n++;
	return M1_OK;
}

static m1_status
add_servers(m1_servers *s, const char *urls, m1_error *err)
{
	m1_status status = M1_OK;

	while (*urls != '\0' && status == M1_OK)
	{
		const size_t len = strcspn(urls, ", ");

		if (len > 0)
			status = add_server(s, urls, len, err);
		urls += len + (urls[len] != '\0');
	}
	if (status == M1_OK && s->n == 0)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "there is no url of a server");
	return status;
}

m1_status
m1_servers_create(const m1_servers_options *options, m1_servers **out, m1_error *err)
{
	m1_servers *s = calloc(1, sizeof *s);
	m1_status status;

	*out = NULL;
	if (s == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for servers");
	s->options = *options;
	if (strlen(options->model_name) > M1_MAX_MODEL_NAME)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "the name in {engine_model} is too long");
	else
		status = add_servers(s, options->urls, err);
	if (status == M1_OK && options->model->tokenizer != NULL)
		status = m1_tokenizer_encode(options->model->tokenizer, m1_slice_of(SAMPLE_TEXT), M1_ADDED_NONE, &s->sample,
									 NULL, NULL, err);
	if (status != M1_OK)
	{
		m1_servers_free(s);
		return status;
	}
	*out = s;
	return M1_OK;
}

void
m1_servers_free(m1_servers *s)
{
	if (s == NULL)
		return;
	for (int i = 0; i < s->n_adapters; i++)
		free(s->adapters[i]);
	m1_ids_free(&s->sample);
	free(s);
}

/* ---- up and down ---- */

static void
go_down(m1_server *server, double now)
{
	double pause = FIRST_PAUSE_MS;

	for (int i = 0; i < server->failures && pause < LONGEST_PAUSE_MS; i++)
		pause *= 2;
	server->failures++;
	server->state = M1_SERVER_DOWN;
	server->asked = true;
	server->probed = false;
	server->next_try_ms = now + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
	log_line(server->all, "is down", server, server->why.detail[0] != '\0' ? server->why.detail : server->why.message);
}

void
m1_server_failed(m1_server *server, const char *why, double now)
{
	if (server->state == M1_SERVER_DOWN && !server->probed)
		return;
	m1_fail(&server->why, M1_E_UNAVAILABLE, "the server cannot be reached");
	m1_error_detail(&server->why, "%.300s: %.180s", server->url, why);
	m1_error_hint(&server->why, "Look whether it runs, and at {engine_url}. Then try again.");
	go_down(server, now);
}

/* What it has answered makes it useless. */
static void
reject(m1_server *server, m1_status status, const char *why)
{
	m1_fail(&server->why, status, "%.200s", why);
	m1_error_detail(&server->why, "The server is %.400s.", server->url);
	go_down(server, m1_now_ms());
}

void
m1_server_busy(m1_server *server, double seconds, double now)
{
	const double pause = seconds < 0 ? FIRST_PAUSE_MS : seconds * 1000;

	server->busy_until_ms = now + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
}

void
m1_server_answered(m1_server *server)
{
	server->failures = 0;
}

static void
come_up(m1_server *server)
{
	const bool was_up = server->state == M1_SERVER_UP;
	char more[200];

	server->state = M1_SERVER_UP;
	server->facts = server->learnt;
	server->asked = true;
	server->probed = false;
	server->next_look_ms = m1_now_ms() + LOOK_MS;
	if (was_up)
		return;
	server->busy_until_ms = 0;
	snprintf(more, sizeof more, "%.40s %.48s, model \"%.80s\"", m1_dialect_of(server->facts.kind)->called,
			 server->facts.version, server->facts.model);
	log_line(server->all, "is up", server, more);
}

/* ---- what it is ---- */

static void ask(m1_server *server, int question);

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
		log_line(server->all, "has more adapters than are asked for, the first being", server, name);
}

static bool
has_adapter(const m1_server *server, const char *name)
{
	const m1_servers *s = server->all;

	for (int i = 0; i < s->n_adapters && name != NULL; i++)
		if (strcmp(s->adapters[i], name) == 0)
			return server->facts.adapters >> i & 1;
	return name == NULL;
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
		reject(server, M1_E_NOT_FOUND,
			   *s->options.model_name != '\0' ? "the server has no model of that name" : "the server names no model");
		return;
	}
	if (m1_json_text(m1_json_get(entry, "id")).len > M1_MAX_MODEL_NAME)
	{
		reject(server, M1_E_UNSUPPORTED, "the name of the server's model is too long");
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
		f->slots = count_of(answer, "total_slots");
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
		reject(server, M1_E_INVALID_ARGUMENT, "the server has another vocabulary than the model's folder");
	else if (tokens != NULL && !are_sample(s, tokens))
		reject(server, M1_E_INVALID_ARGUMENT, "the server has another tokenizer than the model's folder");
	else
	{
		if (tokens == NULL)
			log_line(s, "does not tell how it makes tokens: its tokenizer could not be compared", server, "");
		come_up(server);
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
	m1_out_text(body, llama ? "content" : "prompt", m1_slice_of(SAMPLE_TEXT));
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
	char why[64];

	if (takes_it_from_settings(server, result))
	{
		server->learnt = (m1_server_facts){.kind = M1_DIALECT_OPENAI};
		snprintf(server->learnt.model, sizeof server->learnt.model, "%s", server->all->options.model_name);
		come_up(server);
		return;
	}
	snprintf(why, sizeof why, "the server answers with HTTP status %ld", result->status);
	reject(server, M1_E_UNAVAILABLE, why);
	if (result->status == 401 || result->status == 403)
		m1_error_hint(&server->why, "See {engine_api_key_file}.");
}

static void
on_probe_over(const m1_call_result *result)
{
	m1_server *server = result->context;
	m1_json_doc doc = {0};
	m1_error err;

	if (result->end == M1_CALL_UNREACHABLE || result->end == M1_CALL_BROKEN)
		m1_server_failed(server, result->why, m1_now_ms());
	else if (result->end != M1_CALL_ANSWERED && !may_be_refused(server, result))
		on_refusal(server, result);
	else if (result->end == M1_CALL_ANSWERED &&
			 m1_json_parse(result->body, "the server's answer", NULL, &doc, &err) != M1_OK)
		reject(server, M1_E_UNAVAILABLE, "what answers is no server of a model");
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
		come_up(server);
		return;
	}
	if (question == ASK_TOKENS)
		write_sample(server, &body);
	snprintf(url, sizeof url, "%s%s", server->url, path_of(server, question));
	if (body.failed ||
		m1_call_start(server->all->options.calls, url, (m1_slice){body.data, body.len}, &probe_handler, server) == NULL)
		m1_server_failed(server, "out of memory", m1_now_ms());
	m1_buf_free(&body);
}

int
m1_servers_look(m1_servers *s, double now)
{
	double next = -1;

	for (int i = 0; i < s->n; i++)
	{
		m1_server *server = &s->at[i];
		const double due = server->state == M1_SERVER_UP ? server->next_look_ms : server->next_try_ms;

		if (server->probed)
			continue;
		if (due <= now)
		{
			server->probed = true;
			ask(server, ASK_MODELS);
		}
		else if (next < 0 || due - now < next)
			next = due - now;
	}
	return next < 0 ? -1 : (int) next + 1;
}

/* ---- choosing ---- */

bool
m1_server_is_free(const m1_server *server, double now)
{
	return server->state == M1_SERVER_UP && server->busy_until_ms <= now;
}

m1_server *
m1_servers_choose(m1_servers *s, const char *adapter, const m1_server *other, double now)
{
	m1_server *best = NULL;

	for (int i = 0; i < s->n; i++)
	{
		m1_server *server = &s->at[(s->turn + i) % s->n];

		if (server != other && m1_server_is_free(server, now) && has_adapter(server, adapter) &&
			(best == NULL || server->in_flight < best->in_flight))
			best = server;
	}
	if (best != NULL)
		s->turn = (int) (best - s->at + 1) % s->n;
	return best;
}

bool
m1_servers_any_up(const m1_servers *s, const char *adapter)
{
	for (int i = 0; i < s->n; i++)
		if (s->at[i].state == M1_SERVER_UP && has_adapter(&s->at[i], adapter))
			return true;
	return false;
}

bool
m1_servers_all_asked(const m1_servers *s)
{
	for (int i = 0; i < s->n; i++)
		if (!s->at[i].asked)
			return false;
	return true;
}

void
m1_servers_why_down(const m1_servers *s, const char *adapter, m1_error *err)
{
	*err = (m1_error){0};
	for (int i = 0; i < s->n && err->code == M1_OK; i++)
		if (s->at[i].state == M1_SERVER_DOWN)
			*err = s->at[i].why;
	if (err->code != M1_OK)
		return;
	m1_fail(err, M1_E_UNAVAILABLE, "no server is up");
	if (adapter != NULL)
		m1_error_detail(err, "None that is has the adapter \"%.300s\".", adapter);
}
