/*
 * proxy.c - see proxy.h: mail comes in, requests wait for a server, calls go round; m1_proxy_step, at the end, is the
 * whole of it.
 */
#define _GNU_SOURCE /* getrandom, strdup */
#include "proxy/proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "engine/constraints.h"
#include "engine/events.h"
#include "engine/mailbox.h"
#include "proxy/chat_json.h"
#include "proxy/key_file.h"
#include "proxy/remote.h"

#define LOOP_GUARD 3000
#define PATIENCE_MS 10000.0 /* that a request waits while no server is up */
#define START_MS 30000.0	/* that servers may take to say what they are */
#define LONGEST_WAIT_MS 1000

struct m1_proxy
{
	m1_model *model;
	m1_constraints *constraints; /* NULL without a tokenizer */
	m1_engine_events events;
	m1_mailbox mailbox;
	m1_calls *calls;
	m1_servers *servers;
	const char *api_key_file;
	bool takes_ids;		   /* all of them do; fixed once it is open */
	uint64_t secret;	   /* of cache owners: nobody else can name one of ours */
	m1_server_facts facts; /* of the first that is up */
	int adapter_numbers[M1_MAX_SERVED_ADAPTERS];
	int n_named; /* of the servers' adapters: those that requests can name */
	char device[M1_MAX_URL + 160];

	/* the step thread's */
	m1_remote *remotes; /* in order of arrival */
};

/* ---- life ---- */

static void
close_proxy(m1_proxy *p)
{
	m1_calls_free(p->calls);
	m1_servers_free(p->servers);
	m1_mailbox_free(&p->mailbox);
	m1_constraints_free(p->constraints);
	m1_model_close(p->model);
	free(p);
}

/* A server refuses the key: another one may be in the file by now. */
static void
renew_key(void *context, const m1_server *server)
{
	m1_proxy *p = context;
	char *key;
	m1_error err;

	if (m1_key_read(p->api_key_file, &key, &err) != M1_OK)
		m1_server_log(server, "refuses the key, and no other can be read", err.message);
	else if (m1_calls_is_new_key(p->calls, key))
	{
		m1_calls_set_key(p->calls, key);
		m1_server_log(server, "is asked with a new key", "");
	}
	else
		m1_key_free(key);
}

static m1_status
open_parts(m1_proxy *p, const m1_proxy_options *o, m1_error *err)
{
	const m1_calls_options calls = {.ca_file = o->ca_file, .silence = o->silence};
	m1_servers_options servers = {
		.urls = o->urls,
		.model_name = o->model_name,
		.patience_ms = o->silence * 1e3,
		.renew_key = renew_key,
		.renew_context = p,
		.log = o->log,
		.log_context = o->log_context,
	};
	m1_status status;
	char *key = NULL;

	if (!m1_dialect_parse(o->dialect, &servers.dialect))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "unknown dialect \"%.40s\"", o->dialect);
	if ((status = m1_model_open_text(o->model_path, o->max_context, &p->model, err)) != M1_OK ||
		(status = m1_calls_create(&calls, &p->calls, err)) != M1_OK ||
		(status = m1_key_read(o->api_key_file, &key, err)) != M1_OK)
		return status;
	p->api_key_file = o->api_key_file;
	m1_calls_set_key(p->calls, key);
	servers.model = p->model;
	servers.calls = p->calls;
	if ((status = m1_servers_create(&servers, &p->servers, err)) != M1_OK)
		return status;
	if (p->model->tokenizer != NULL &&
		(p->constraints = m1_constraints_create(p->model->tokenizer, p->model->config.vocab_size)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for constraints");
	if (getrandom(&p->secret, sizeof p->secret, 0) != sizeof p->secret)
		return m1_fail(err, M1_E_INTERNAL, "there are no random numbers");
	return M1_OK;
}

/* Until every server has said what it is, or failed to. */
static m1_status
ask_servers(m1_proxy *p, m1_error *err)
{
	const double end = m1_now_ms() + START_MS;
	m1_status status = M1_OK;

	for (int i = 0; i < p->servers->n; i++)
		p->servers->at[i].next_try_ms = 0;
	while (status == M1_OK && !m1_servers_all_asked(p->servers) && m1_now_ms() < end)
	{
		/* one that has failed is not asked again meanwhile */
		m1_servers_look(p->servers, 0);
		status = m1_calls_work(p->calls, 100, err);
	}
	if (status != M1_OK || m1_servers_any_up(p->servers, NULL))
		return status;
	m1_servers_why_down(p->servers, NULL, err);
	return err->code;
}

/* Adapters are called as servers call them; nothing of them is here. They stay as long as the proxy. */
static m1_status
name_adapters(m1_proxy *p, m1_error *err)
{
	m1_status status = M1_OK;

	for (; p->n_named < p->servers->n_adapters && status == M1_OK; p->n_named++)
	{
		const m1_slice name = m1_slice_of(p->servers->adapters[p->n_named]);

		status = m1_adapter_set_add(p->model->adapters, name, NULL, err);
		p->adapter_numbers[p->n_named] = m1_adapter_set_acquire(p->model->adapters, name);
	}
	return status;
}

static const char *
adapter_name(const m1_proxy *p, int number)
{
	for (int i = 0; i < p->n_named && number > 0; i++)
		if (p->adapter_numbers[i] == number)
			return p->servers->adapters[i];
	return NULL;
}

/* Where requests go now: the first server that is up, and of how many; NULL = none is. */
static void
describe(m1_proxy *p)
{
	const m1_server *first = NULL;
	char others[48] = "";
	int n_up = 0;

	for (int i = p->servers->n - 1; i >= 0; i--)
		if (p->servers->at[i].state == M1_SERVER_UP)
		{
			first = &p->servers->at[i];
			n_up++;
		}
	if (p->servers->n > 1)
		snprintf(others, sizeof others, ", %d of %d servers", n_up, p->servers->n);
	if (first == NULL)
	{
		snprintf(p->device, sizeof p->device, "%s (down%s)", p->servers->at[0].url, others);
		return;
	}
	p->facts = first->facts;
	snprintf(p->device, sizeof p->device, "%s (%s%s%s%s)", first->url, m1_dialect_of(first->facts.kind)->called,
			 first->facts.version[0] != '\0' ? " " : "", first->facts.version, others);
}

/* What all that are up can do; servers that come up later must be able to, too. */
static m1_status
take_facts(m1_proxy *p, m1_error *err)
{
	int texts = 0;
	int n = 0;

	for (int i = 0; i < p->servers->n; i++)
	{
		const m1_server *server = &p->servers->at[i];

		if (server->state != M1_SERVER_UP)
			continue;
		n++;
		texts += !m1_dialect_of(server->facts.kind)->takes_ids;
		if (server->facts.context > 0 && server->facts.context < p->model->max_context)
			p->model->max_context = server->facts.context;
	}
	if (texts > 0 && texts < n)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "some servers take tokens, and others texts only");
	p->takes_ids = texts == 0;
	m1_servers_fix(p->servers, p->takes_ids, p->model->max_context);
	p->servers->changed = false;
	describe(p);
	return M1_OK;
}

m1_status
m1_proxy_open(const m1_proxy_options *options, const m1_engine_events *events, m1_proxy **out, m1_error *err)
{
	m1_proxy *p = calloc(1, sizeof *p);
	m1_status status;

	*out = NULL;
	if (p == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	p->events = *events;
	m1_mailbox_init(&p->mailbox);
	if ((status = open_parts(p, options, err)) != M1_OK || (status = ask_servers(p, err)) != M1_OK ||
		(status = take_facts(p, err)) != M1_OK || (status = name_adapters(p, err)) != M1_OK)
	{
		close_proxy(p);
		return status;
	}
	*out = p;
	return M1_OK;
}

const m1_model *
m1_proxy_model(const m1_proxy *p)
{
	return p->model;
}

m1w_ready
m1_proxy_info(const m1_proxy *p)
{
	const m1_model *m = p->model;

	return (m1w_ready){
		.name = m1_slice_of(m->name),
		.architecture = m1_slice_of(m->config.architecture),
		.device = m1_slice_of(p->device),
		.parameters = p->facts.parameters,
		.bytes = p->facts.bytes,
		.layers = m->config.layers,
		.experts = m->config.experts,
		.context = m->max_context,
		.vocab = m->config.vocab_size,
		.has_tokenizer = m->tokenizer != NULL,
	};
}

/* ---- from other threads ---- */

static bool
post(m1_proxy *p, m1_mail_kind kind, uint64_t id, m1_request *r)
{
	const bool posted = m1_mailbox_post(&p->mailbox, kind, id, r);

	m1_calls_wake(p->calls);
	return posted;
}

/* Two owners never become one: both steps can be undone. */
static uint64_t
hide_owner(const m1_proxy *p, uint64_t owner)
{
	const uint64_t hidden = (owner ^ p->secret) * 0x9e3779b97f4a7c15u;

	return owner == 0 ? 0 : hidden != 0 ? hidden : 1;
}

m1_status
m1_proxy_generate(m1_proxy *p, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err)
{
	m1_request *r;
	m1_status status = M1_OK;
	m1_buf chat = {0};

	if (g->logprobs || g->keep)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "%s is not asked of servers elsewhere",
				g->keep ? "what a lesson needs of a reply" : "the probability of each written token");
		m1_error_hint(err, "Only the engine on this machine tells them: see {engine_url}.");
		return M1_E_UNSUPPORTED;
	}
	if (!p->takes_ids)
		status = m1_chat_json_write(g, &chat, err);
	if (status == M1_OK)
		status = m1_request_create(p->model, p->constraints, id, g, LOOP_GUARD, work, &r, err);
	if (status != M1_OK)
	{
		m1_buf_free(&chat);
		return status;
	}
	r->cache_owner = hide_owner(p, r->cache_owner);
	r->submitted_ms = m1_now_ms();
	r->chat = chat;
	if (post(p, M1_MAIL_REQUEST, id, r))
		return M1_OK;
	m1_request_free(r);
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
}

void
m1_proxy_cancel(m1_proxy *p, uint64_t id)
{
	post(p, M1_MAIL_CANCEL, id, NULL);
}

void
m1_proxy_pause(m1_proxy *p, uint64_t id)
{
	post(p, M1_MAIL_PAUSE, id, NULL);
}

void
m1_proxy_resume(m1_proxy *p, uint64_t id)
{
	post(p, M1_MAIL_RESUME, id, NULL);
}

/* ---- the step thread ---- */

static m1_remote *
find_remote(const m1_proxy *p, uint64_t id)
{
	m1_remote *m = p->remotes;

	while (m != NULL && m->request->id != id)
		m = m->next;
	return m;
}

static void
arrive(m1_proxy *p, m1_request *r)
{
	m1_remote **end = &p->remotes;
	m1_remote *m = m1_remote_create(r, &p->events, p->calls);
	m1_error error;

	if (m == NULL)
	{
		m1_fail(&error, M1_E_NO_MEMORY, "out of memory for the request");
		m1_event_failed(&p->events, r, &error);
		m1_request_free(r);
		return;
	}
	m->adapter = adapter_name(p, r->adapter);
	while (*end != NULL)
		end = &(*end)->next;
	*end = m;
}

static void
set_pause(m1_remote *m, bool paused)
{
	const bool resumed = m->request->paused && !paused;

	m->request->paused = paused;
	if (resumed && m->call != NULL)
		m1_call_resume(m->call);
}

static void
take_mail(m1_proxy *p)
{
	m1_mail *next;

	for (m1_mail *mail = m1_mailbox_take(&p->mailbox); mail != NULL; mail = next)
	{
		m1_remote *m = mail->kind == M1_MAIL_REQUEST ? NULL : find_remote(p, mail->id);
		m1_error error;

		next = mail->next;
		if (mail->kind == M1_MAIL_REQUEST)
			arrive(p, mail->request);
		else if (m != NULL && !m->over && mail->kind == M1_MAIL_CANCEL)
		{
			m1_fail(&error, M1_E_CANCELLED, "the request was cancelled");
			m1_remote_fail(m, &error);
		}
		else if (m != NULL && !m->over)
			set_pause(m, mail->kind == M1_MAIL_PAUSE);
		free(mail);
	}
}

static void
forget_over(m1_proxy *p)
{
	for (m1_remote **at = &p->remotes; *at != NULL;)
	{
		m1_remote *m = *at;

		if (!m->over)
		{
			at = &m->next;
			continue;
		}
		*at = m->next;
		m1_remote_free(m);
	}
}

/*
 * The rest of a reply is asked for where its beginning is cached. What a server has failed at is asked elsewhere, and
 * in a while when all of them have been asked.
 */
static m1_server *
server_for(m1_proxy *p, const m1_remote *m, double now)
{
	m1_server *last = m->server;

	if (m->left == NULL && last != NULL && m1_server_is_free(last, m->adapter, now))
		return last;
	if (now < m->again_ms && m->moves >= p->servers->n)
		return NULL;
	return m1_servers_choose(p->servers, m->adapter, now < m->again_ms ? m->left : NULL, now);
}

static void
wait_for_any(m1_proxy *p, m1_remote *m, double now)
{
	m1_error error;

	m1_servers_hurry(p->servers);
	if (now - m->waits_since_ms <= PATIENCE_MS)
		return;
	m1_servers_why_down(p->servers, m->adapter, &error);
	error.code = M1_E_UNAVAILABLE;
	m1_remote_fail(m, &error);
}

static void
ask_waiting(m1_proxy *p, double now)
{
	for (m1_remote *m = p->remotes; m != NULL; m = m->next)
	{
		m1_server *server;

		m1_remote_look(m, now);
		if (m->call != NULL || m->over || m->request->paused)
			continue;
		if ((server = server_for(p, m, now)) != NULL)
			m1_remote_ask(m, server);
		else if (!m1_servers_any_up(p->servers, m->adapter))
			wait_for_any(p, m, now);
	}
}

/* Some wait for a server that will be up or free by itself, or for the end of an answer: they are looked at often. */
static int
wait_ms(const m1_proxy *p, int until_look)
{
	int wait = until_look >= 0 && until_look < LONGEST_WAIT_MS ? until_look : LONGEST_WAIT_MS;

	for (const m1_remote *m = p->remotes; m != NULL; m = m->next)
		if (m1_remote_lingers(m) || (m->call == NULL && !m->over && !m->request->paused))
			wait = wait < 100 ? wait : 100;
	return wait;
}

static void
take_news(m1_proxy *p)
{
	m1w_ready ready;
	m1_error err;

	/* one for which memory ran out stays unknown */
	name_adapters(p, &err);
	if (!p->servers->changed)
		return;
	p->servers->changed = false;
	describe(p);
	ready = m1_proxy_info(p);
	p->events.ready(p->events.context, &ready);
}

m1_status
m1_proxy_step(m1_proxy *p, m1_error *err)
{
	m1_status status;
	double now;
	int until_look;

	take_mail(p);
	now = m1_now_ms();
	until_look = m1_servers_look(p->servers, now);
	take_news(p);
	ask_waiting(p, now);
	forget_over(p);
	status = m1_calls_work(p->calls, wait_ms(p, until_look), err);
	forget_over(p);
	return status;
}
