/* servers.c - see servers.h. */
#include "proxy/servers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/least.h"
#include "proxy/server_probe.h"

#define FIRST_PAUSE_MS 1000.0
#define LONGEST_PAUSE_MS 60000.0
#define WAITED_FOR_MS 2000.0 /* the longest, while somebody waits for a server */
#define BUSY_SAID_MS 60000.0 /* from one line of the log that says so to the next */
#define LOOK_MS 10000.0		 /* from one look at a server that is up to the next */

void
m1_server_log(const m1_server *server, const char *what, const char *more)
{
	const m1_servers *s = server->all;
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
	{
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "the name of the servers' model is too long");
		m1_error_hint(err, "See {engine_model}.");
	}
	else
		status = add_servers(s, options->urls, err);
	if (status == M1_OK && options->model->tokenizer != NULL)
		status = m1_tokenizer_encode(options->model->tokenizer, m1_slice_of(M1_SAMPLE_TEXT), M1_ADDED_NONE, &s->sample,
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

/* Once, and again when it is of another kind, however often it is tried. */
static void
log_why_down(m1_server *server, const char *why)
{
	if (server->state == M1_SERVER_DOWN && strcmp(server->said, server->why.message) == 0)
		return;
	snprintf(server->said, sizeof server->said, "%s", server->why.message);
	m1_server_log(server, "is down", why);
}

static void
go_down(m1_server *server, const char *why, double now)
{
	double pause = FIRST_PAUSE_MS;

	for (int i = 0; i < server->failures && pause < LONGEST_PAUSE_MS; i++)
		pause *= 2;
	/* where a request's failure ends a question, that must not be there beside the next one */
	if (server->probe_call != NULL)
		m1_call_drop(server->probe_call);
	server->probe_call = NULL;
	server->failures++;
	log_why_down(server, why);
	server->all->changed |= server->state == M1_SERVER_UP;
	server->state = M1_SERVER_DOWN;
	server->asked = true;
	server->failed_ms = now;
	server->next_try_ms = now + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
}

/* Others that were there when it went down may fail later, and while it is being asked again. */
static bool
is_known_down(const m1_server *server, double now)
{
	return server->state == M1_SERVER_DOWN && (server->probe_call != NULL || server->next_try_ms > now);
}

void
m1_server_failed(m1_server *server, const char *why, double now)
{
	if (is_known_down(server, now))
		return;
	m1_fail(&server->why, M1_E_UNAVAILABLE, "the server cannot be reached");
	m1_error_detail(&server->why, "%.300s: %.180s", server->url, why);
	m1_error_hint(&server->why, "Look whether it runs, and at {engine_url}. Then try again.");
	go_down(server, why, now);
}

void
m1_server_reject(m1_server *server, m1_status status, const char *why, const char *hint)
{
	const double now = m1_now_ms();

	if (is_known_down(server, now))
		return;
	m1_fail(&server->why, status, "%.200s", why);
	m1_error_detail(&server->why, "The server is %.400s.", server->url);
	if (hint != NULL)
		m1_error_hint(&server->why, "%s", hint);
	go_down(server, why, now);
}

void
m1_server_refuses(m1_server *server, long status)
{
	const bool lacks_key = status == 401 || status == 403;
	const m1_servers_options *o = &server->all->options;
	char why[64];

	if (lacks_key)
		o->renew_key(o->renew_context, server);
	snprintf(why, sizeof why, "the server answers with HTTP status %ld", status);
	m1_server_reject(server, M1_E_UNAVAILABLE, why, lacks_key ? "See {engine_api_key_file}." : NULL);
}

void
m1_server_busy(m1_server *server, double seconds, double now)
{
	const double pause = seconds < 0 ? FIRST_PAUSE_MS : seconds * 1000;

	server->busy_until_ms = now + (pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS);
	if (server->busy_said_ms != 0 && now - server->busy_said_ms < BUSY_SAID_MS)
		return;
	server->busy_said_ms = now;
	m1_server_log(server, "is too busy", "requests wait as long as it asks for");
}

void
m1_server_looks_busy(m1_server *server, double seconds, double now)
{
	m1_server_busy(server, seconds, now);
	server->next_look_ms = server->busy_until_ms;
}

void
m1_server_answered(m1_server *server)
{
	server->failures = 0;
}

void
m1_servers_fix(m1_servers *s, bool takes_ids, int context)
{
	s->fixed = true;
	s->takes_ids = takes_ids;
	s->context = context;
}

/* Of requests that are there already, or were told what they may ask for. Rejects it if not. */
static bool
is_fit(m1_server *server)
{
	const m1_servers *s = server->all;
	const m1_server_facts *f = &server->learnt;
	char why[120];

	if (!s->fixed)
		return true;
	if (m1_dialect_of(f->kind)->takes_ids != s->takes_ids)
		snprintf(why, sizeof why, "the server takes %s, and the others do not", s->takes_ids ? "texts only" : "tokens");
	else if (f->context > 0 && f->context < s->context)
		snprintf(why, sizeof why, "the server has a context of %d tokens, and requests may have %d", f->context,
				 s->context);
	else
		return true;
	m1_server_reject(server, M1_E_INVALID_ARGUMENT, why, "See {engine_url} and {max_context}.");
	return false;
}

static bool
is_same(const m1_server_facts *a, const m1_server_facts *b)
{
	return a->kind == b->kind && strcmp(a->version, b->version) == 0 && strcmp(a->model, b->model) == 0;
}

static void
log_up(const m1_server *server)
{
	const m1_dialect *dialect = m1_dialect_of(server->facts.kind);
	char more[200];

	snprintf(more, sizeof more, "%.40s %.48s, model \"%.80s\"", dialect->called, server->facts.version,
			 server->facts.model);
	m1_server_log(server, "is up", more);
	if (server->facts.unknown_tokens)
		m1_server_log(server, "does not tell how it makes tokens", "its tokenizer could not be compared");
	if (server->facts.unknown_adapters > 0)
	{
		snprintf(more, sizeof more, "%d of them are not asked for", server->facts.unknown_adapters);
		m1_server_log(server, "has more adapters than can be named", more);
	}
	if (!dialect->separates_caches)
		m1_server_log(server, "cannot keep the prompt caches of roles apart",
					  "how fast it answers may tell one role what another has asked");
}

void
m1_server_came_up(m1_server *server)
{
	const bool was_up = server->state == M1_SERVER_UP;
	const bool is_news = !was_up || !is_same(&server->facts, &server->learnt);

	if (!is_fit(server))
		return;
	server->state = M1_SERVER_UP;
	server->facts = server->learnt;
	server->asked = true;
	server->said[0] = '\0';
	server->next_look_ms = m1_now_ms() + LOOK_MS;
	if (!was_up)
		server->busy_until_ms = 0;
	if (!is_news)
		return;
	server->all->changed = true;
	log_up(server);
}

/* ---- looking ---- */

int
m1_servers_look(m1_servers *s, double now)
{
	double next = -1;

	for (int i = 0; i < s->n; i++)
	{
		m1_server *server = &s->at[i];
		const double due = server->state == M1_SERVER_UP ? server->next_look_ms : server->next_try_ms;

		if (server->probe_call != NULL)
			continue;
		if (due <= now)
			m1_server_probe(server);
		else if (next < 0 || due - now < next)
			next = due - now;
	}
	return next < 0 ? -1 : (int) next + 1;
}

void
m1_servers_hurry(m1_servers *s)
{
	for (int i = 0; i < s->n; i++)
	{
		m1_server *server = &s->at[i];

		if (server->next_try_ms > server->failed_ms + WAITED_FOR_MS)
			server->next_try_ms = server->failed_ms + WAITED_FOR_MS;
	}
}

/* ---- choosing ---- */

static bool
has_adapter(const m1_server *server, const char *name)
{
	const m1_servers *s = server->all;

	for (int i = 0; i < s->n_adapters && name != NULL; i++)
		if (strcmp(s->adapters[i], name) == 0)
			return server->facts.adapters >> i & 1;
	return name == NULL;
}

bool
m1_server_is_free(const m1_server *server, const char *adapter, double now)
{
	return server->state == M1_SERVER_UP && server->busy_until_ms <= now && has_adapter(server, adapter);
}

m1_server *
m1_servers_choose(m1_servers *s, const char *adapter, const m1_server *other, double now)
{
	m1_server *best = NULL;

	for (int i = 0; i < s->n; i++)
	{
		m1_server *server = &s->at[(s->turn + i) % s->n];

		if (server != other && m1_server_is_free(server, adapter, now) &&
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
