/*
 * oauth.c - see oauth.h; and GET /.well-known/oauth-protected-resource.
 *
 * What libpq has for this is looked up when the program runs: it may be newer than the one it was built with.
 */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include "gateway/oauth.h"

#include <dlfcn.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/base64.h"
#include "gateway/jsonform.h"

/* ---- libpq ---- */

#ifdef LIBPQ_HAS_PROMPT_OAUTH_DEVICE
#define BEARER_TOKEN PQAUTHDATA_OAUTH_BEARER_TOKEN
typedef PGoauthBearerRequest token_request;
#else
/* As version 18 has declared them, for good. */
#define BEARER_TOKEN 1
typedef struct token_request
{
	const char *openid_configuration, *scope;
	PostgresPollingStatusType (*async)(PGconn *pg, struct token_request *request, int *socket);
	void (*cleanup)(PGconn *pg, struct token_request *request);
	char *token;
	void *user;
} token_request;
#endif

static void
forget_token(PGconn *pg, token_request *request)
{
	(void) pg;
	if (request->token != NULL)
		explicit_bzero(request->token, strlen(request->token));
	free(request->token);
	request->token = NULL;
}

/* 1: it was answered; 0: libpq does what it does without us; -1: the connection fails. */
static int
give_token(int type, PGconn *pg, void *data)
{
	token_request *request = data;

	if (type != (int) BEARER_TOKEN)
		return 0;
	request->token = strdup(PQpass(pg));
	request->cleanup = forget_token;
	return request->token == NULL || request->token[0] == '\0' ? -1 : 1;
}

m1_status
gw_oauth_begin(m1_error *err)
{
	void (*set_hook)(int (*hook)(int type, PGconn *pg, void *data));
	const int version = PQlibVersion();

	*(void **) &set_hook = dlsym(RTLD_DEFAULT, "PQsetAuthDataHook");
	if (set_hook != NULL)
	{
		set_hook(give_token);
		return M1_OK;
	}
	m1_fail(err, M1_E_UNSUPPORTED, "--auth oauth needs libpq 18 or later");
	m1_error_detail(err, "This one is of version %d.%d.", version / 10000, version % 10000);
	m1_error_hint(err, "Use --auth password, or run the program with the libpq of a newer PostgreSQL.");
	return M1_E_UNSUPPORTED;
}

/* ---- tokens ---- */

/* base64url without padding, as JWTs have it. */
static bool
decode_part(m1_slice part, m1_buf *out)
{
	m1_buf padded = {0};
	size_t length = 0;
	bool ok;

	for (size_t i = 0; i < part.len; i++)
		m1_buf_append(&padded, part.data[i] == '-' ? "+" : part.data[i] == '_' ? "/" : part.data + i, 1);
	while (padded.len % 4 != 0 && !padded.failed)
		m1_buf_puts(&padded, "=");
	ok = !padded.failed && m1_buf_reserve(out, padded.len + 1) &&
		 gw_base64_decode((m1_slice){padded.data, padded.len}, out->data + out->len, &length);
	out->len += length;
	m1_buf_free(&padded);
	return ok;
}

/* What is between the first and the last of two points. */
static m1_slice
payload_of(m1_slice token)
{
	const char *first = memchr(token.data, '.', token.len);
	const char *second = first == NULL ? NULL : memchr(first + 1, '.', (size_t) (token.data + token.len - first - 1));

	if (second == NULL)
		return (m1_slice){0};
	return (m1_slice){first + 1, (size_t) (second - first - 1)};
}

/* The claims of a JWT. false where the token is none. */
static bool
read_claims(m1_slice token, m1_json_doc *doc)
{
	const m1_slice payload = payload_of(token);
	m1_buf text = {0};
	m1_error err;
	const bool ok = payload.len > 0 && decode_part(payload, &text) &&
					m1_json_parse((m1_slice){text.data, text.len}, "token", NULL, doc, &err) == M1_OK;

	m1_buf_free(&text);
	return ok && m1_json_is(doc->root, M1_JSON_OBJECT);
}

static bool
has_expired(const m1_json *claims)
{
	const m1_json *expires = m1_json_get(claims, "exp");

	return expires != NULL &&
		   (!m1_json_is(expires, M1_JSON_NUMBER) || strtod(expires->text, NULL) <= (double) time(NULL));
}

bool
gw_oauth_has_expired(m1_slice token)
{
	m1_json_doc doc = {0};
	const bool expired = read_claims(token, &doc) && has_expired(doc.root);

	m1_json_free(&doc);
	return expired;
}

static m1_status
read_role(const m1_json *claims, const char *claim, m1_buf *role, m1_error *err)
{
	const m1_slice name = m1_json_text(m1_json_get(claims, claim));

	if (has_expired(claims))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the token has expired");
	if (name.len == 0 || memchr(name.data, '\0', name.len) != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the token has no claim \"%s\" with the name of a role", claim);
	m1_buf_append(role, name.data, name.len);
	return m1_buf_cstr(role) == NULL ? m1_fail(err, M1_E_NO_MEMORY, "out of memory") : M1_OK;
}

m1_status
gw_oauth_role(m1_slice token, const char *claim, m1_buf *role, m1_error *err)
{
	m1_json_doc doc = {0};
	const m1_status status = read_claims(token, &doc) ? read_role(doc.root, claim, role, err)
													  : m1_fail(err, M1_E_INVALID_ARGUMENT,
																"the token is no JWT, which would name its role");

	m1_json_free(&doc);
	return status;
}

/* ---- metadata ---- */

/* Our address, as clients know it. */
static void
put_resource(m1_buf *out, const gw_gateway *gateway)
{
	const gw_options *o = &gateway->options;
	char text[160];

	if (o->resource != NULL)
		m1_buf_puts(out, o->resource);
	else
	{
		snprintf(text, sizeof text, "http://%.*s:%d", (int) (strrchr(o->listen, ':') - o->listen), o->listen,
				 gw_http_port(gateway->http));
		m1_buf_puts(out, text);
	}
}

void
gw_oauth_put_challenge(m1_buf *out, const gw_http_exchange *x, bool refused)
{
	const char *scope = x->gateway->options.pool.issuer.scope;

	m1_buf_puts(out, "Bearer realm=\"minimax_m1\", resource_metadata=\"");
	put_resource(out, x->gateway);
	m1_buf_puts(out, GW_OAUTH_PATH "\"");
	if (scope != NULL)
	{
		m1_buf_puts(out, ", scope=\"");
		m1_buf_puts(out, scope);
		m1_buf_puts(out, "\"");
	}
	if (refused)
		m1_buf_puts(out, ", error=\"invalid_token\"");
}

static void
put_scopes(m1_buf *out, const char *scope)
{
	const char *comma = "";

	gw_json(out, ",'scopes_supported':[");
	for (size_t n; scope += strspn(scope, " "), (n = strcspn(scope, " ")) > 0; scope += n, comma = ",")
		gw_json(out, "%r%t", m1_slice_of(comma), (m1_slice){scope, n});
	m1_buf_puts(out, "]");
}

void
gw_oauth_handle(gw_http_exchange *x)
{
	const gw_options *o = &x->gateway->options;
	m1_buf resource = {0};
	m1_buf out = {0};

	if (o->auth != GW_AUTH_OAUTH)
	{
		gw_http_fail(x, 404, "invalid_request_error", "not_found", "there is nothing at this path");
		return;
	}
	put_resource(&resource, x->gateway);
	gw_json(&out, "{'resource':%t,'authorization_servers':[%s],'bearer_methods_supported':['header']",
			(m1_slice){resource.data, resource.len}, o->pool.issuer.url);
	if (o->pool.issuer.scope != NULL)
		put_scopes(&out, o->pool.issuer.scope);
	m1_buf_puts(&out, ",\"resource_name\":\"MiniMax-M1 in PostgreSQL\"}");
	gw_http_reply(x, 200, "application/json", (m1_slice){out.data, out.len});
	m1_buf_free(&resource);
	m1_buf_free(&out);
}
