/*
 * http.c - the HTTP face: where requests go, who may ask, and with which role; see gateway.h.
 */
#define _DEFAULT_SOURCE /* strndup, strncasecmp */
#include "gateway/http.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "gateway/base64.h"
#include "gateway/jsonform.h"
#include "gateway/oauth.h"

typedef void (*handler)(gw_http_exchange *x);

static const struct route
{
	const char *path;
	const char *method;
	handler handle;
	bool open; /* to whoever can connect */
} routes[] = {
	{"/mcp", "POST", gw_mcp_handle, false},			  {"/v1/chat/completions", "POST", gw_chat_handle, false},
	{"/v1/models", "GET", gw_models_handle, false},	  {"/v1/models/*", "GET", gw_models_handle, false},
	{"/tokenize", "POST", gw_tokenize_handle, false}, {"/detokenize", "POST", gw_detokenize_handle, false},
	{"/metrics", "GET", gw_metrics_handle, false},	  {"/health", "GET", gw_health_handle, true},
	{GW_OAUTH_PATH, "GET", gw_oauth_handle, true},	  {"/", "GET", gw_page_handle, true},
};

/* ---- errors ---- */

void
gw_http_fail(gw_http_exchange *x, int status, const char *type, const char *code, const char *message)
{
	m1_buf out = {0};

	gw_json(&out, "{'error':{'message':%s,'type':%s,'param':null,'code':%s}}", message, type, code);
	gw_http_reply(x, status, "application/json", (m1_slice){out.data, out.len});
	m1_buf_free(&out);
}

/* ---- from where ---- */

/* The name in HOST, HOST:PORT or [ADDRESS]:PORT. */
static m1_slice
name_of_host(const char *host)
{
	const char *end = host[0] == '[' ? strchr(host, ']') : NULL;

	return (m1_slice){host, end != NULL ? (size_t) (end + 1 - host) : strcspn(host, ":")};
}

static bool
is_name(m1_slice name, const char *text)
{
	return strlen(text) == name.len && strncasecmp(name.data, text, name.len) == 0;
}

/* An address in digits: 127.example.com is a name, which may lead anywhere. */
static bool
is_loopback_address(m1_slice name)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr address;

	if (name.len >= sizeof text)
		return false;
	memcpy(text, name.data, name.len);
	text[name.len] = '\0';
	return inet_pton(AF_INET, text, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/* Nothing, or a colon and digits. */
static bool
is_port(const char *text)
{
	return text[0] == '\0' || (text[0] == ':' && text[1 + strspn(text + 1, "0123456789")] == '\0');
}

/*
 * On loopback only its own names: a page of somebody else's, whose name was made to lead here, would have its own in
 * the Host field.
 */
static bool
is_own_host(const gw_http_exchange *x)
{
	const char *host = gw_http_field_of(x->head, "Host");
	m1_slice name;

	if (!gw_http_is_loopback(x->gateway->http) || host == NULL)
		return true;
	name = name_of_host(host);
	return is_port(name.data + name.len) &&
		   (is_name(name, "localhost") || is_name(name, "[::1]") || is_loopback_address(name));
}

/* Our own page, and those of --origin. */
static bool
is_allowed_origin(const gw_http_exchange *x, const char *origin)
{
	const char *host = gw_http_field_of(x->head, "Host");
	const char *address = strstr(origin, "://");

	if (host != NULL && address != NULL && strcasecmp(address + 3, host) == 0)
		return true;
	for (int i = 0; i < x->gateway->options.n_origins; i++)
		if (strcasecmp(x->gateway->options.origins[i], origin) == 0)
			return true;
	return false;
}

/* false when the request was refused. */
static bool
check_where_from(gw_http_exchange *x)
{
	const char *origin = gw_http_field_of(x->head, "Origin");

	if (!is_own_host(x))
		gw_http_fail(x, 403, "invalid_request_error", "host_not_allowed", "this host is not served here");
	else if (origin != NULL && !is_allowed_origin(x, origin))
		gw_http_fail(x, 403, "invalid_request_error", "origin_not_allowed", "pages of this origin may not ask");
	else
	{
		if (origin != NULL)
		{
			gw_http_add_field(x, "Access-Control-Allow-Origin", origin);
			gw_http_add_field(x, "Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate, Retry-After");
			gw_http_add_field(x, "Vary", "Origin");
		}
		return true;
	}
	return false;
}

/* ---- with which role ---- */

/* "user:password": to one login. false where a part is missing: an empty password would have libpq look elsewhere. */
static bool
split_login(m1_slice text, gw_login *login)
{
	const char *colon = text.len == 0 ? NULL : memchr(text.data, ':', text.len);
	const size_t n = colon == NULL ? 0 : (size_t) (colon - text.data);

	if (n == 0 || n + 1 >= text.len)
		return false;
	login->user = strndup(text.data, n);
	login->password = strndup(colon + 1, text.len - n - 1);
	return login->user != NULL && login->password != NULL && strlen(login->user) == n &&
		   strlen(login->password) == text.len - n - 1;
}

/* A token by itself says in a claim which role it is of. */
static bool
take_token(m1_slice token, const char *claim, gw_login *login, m1_error *err)
{
	m1_buf role = {0};

	if (gw_oauth_role(token, claim, &role, err) != M1_OK)
	{
		m1_buf_free(&role);
		return false;
	}
	login->user = role.data;
	login->password = strndup(token.data, token.len);
	return login->password != NULL;
}

/* A role, and its password or token. */
static bool
take_pair(m1_slice text, const gw_options *options, gw_login *login, m1_error *err)
{
	if (!split_login(text, login))
		return false;
	if (options->auth != GW_AUTH_OAUTH || !gw_oauth_has_expired(m1_slice_of(login->password)))
		return true;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "the token has expired");
	return false;
}

static bool
read_login(const gw_options *options, const char *field, gw_login *login, m1_error *err)
{
	char text[GW_HTTP_MAX_HEAD];
	size_t n = field == NULL ? 0 : strlen(field);
	bool ok = false;

	m1_fail(err, M1_E_INVALID_ARGUMENT, "%s",
			options->auth == GW_AUTH_OAUTH ? "the API key is a token, which names a database role"
										   : "the API key is a database role and its password, as role:password");
	if (n > 7 && strncasecmp(field, "Bearer ", 7) == 0)
		ok = options->auth == GW_AUTH_OAUTH ? take_token((m1_slice){field + 7, n - 7}, options->role_claim, login, err)
											: take_pair((m1_slice){field + 7, n - 7}, options, login, err);
	else if (n > 6 && n < sizeof text && strncasecmp(field, "Basic ", 6) == 0 &&
			 gw_base64_decode((m1_slice){field + 6, n - 6}, text, &n))
	{
		ok = take_pair((m1_slice){text, n}, options, login, err);
		explicit_bzero(text, sizeof text);
	}
	return ok;
}

void
gw_http_ask_login(gw_http_exchange *x)
{
	m1_buf challenge = {0};

	if (x->gateway->options.auth == GW_AUTH_OAUTH)
		gw_oauth_put_challenge(&challenge, x, gw_http_field_of(x->head, "Authorization") != NULL);
	else
		m1_buf_puts(&challenge, "Bearer realm=\"minimax_m1\"");
	if (m1_buf_cstr(&challenge) != NULL)
		gw_http_add_field(x, "WWW-Authenticate", challenge.data);
	m1_buf_free(&challenge);
}

/* false when the request was refused. */
static bool
log_in(gw_http_exchange *x)
{
	const gw_options *options = &x->gateway->options;
	m1_error err;

	if (options->auth == GW_AUTH_FIXED ||
		read_login(options, gw_http_field_of(x->head, "Authorization"), &x->login, &err))
		return true;
	gw_http_ask_login(x);
	gw_http_fail(x, 401, "authentication_error", "invalid_api_key", err.message);
	return false;
}

/* ---- where to ---- */

/* A route that ends with a star is of all paths that begin so. */
static bool
leads(const char *route, const char *path)
{
	const size_t n = strcspn(route, "*");

	return strncmp(route, path, n) == 0 && (route[n] == '*' ? path[n] != '\0' : path[n] == '\0');
}

static const struct route *
find_route(const char *path)
{
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		if (leads(routes[i].path, path))
			return &routes[i];
	return NULL;
}

/* What a browser asks before a page of another origin may ask. */
static void
answer_preflight(gw_http_exchange *x, const struct route *route)
{
	gw_http_add_field(x, "Access-Control-Allow-Methods", route->method);
	gw_http_add_field(x, "Access-Control-Allow-Headers",
					  "Authorization, Content-Type, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id");
	gw_http_add_field(x, "Access-Control-Max-Age", "600");
	gw_http_reply(x, 204, NULL, (m1_slice){0});
}

static void
take(gw_http_exchange *x)
{
	const struct route *route = find_route(x->head->path);
	const char *method = x->head->method;

	if (!check_where_from(x))
		return;
	if (route == NULL)
		gw_http_fail(x, 404, "invalid_request_error", "not_found", "there is nothing at this path");
	else if (strcmp(method, "OPTIONS") == 0 && gw_http_field_of(x->head, "Origin") != NULL)
		answer_preflight(x, route);
	else if (strcmp(method, route->method) != 0 && (strcmp(method, "HEAD") != 0 || strcmp(route->method, "GET") != 0))
	{
		gw_http_add_field(x, "Allow", route->method);
		gw_http_fail(x, 405, "invalid_request_error", "method_not_allowed", "this path takes another method");
	}
	else if (route->open || log_in(x))
		x->handle = route->handle;
}

/* ---- the process ---- */

#define OTHER_FILES 64 /* of the loop, of libpq, and what the process was begun with */

/* Each connection is an open file. false where there may not be as many as the options say. */
static bool
allow_files(const gw_options *options)
{
	const rlim_t needed = (rlim_t) (options->clients + options->pool.connections) + OTHER_FILES;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
		return true;
	if (limit.rlim_max >= needed)
	{
		limit.rlim_cur = needed;
		return setrlimit(RLIMIT_NOFILE, &limit) == 0;
	}
	fprintf(
		stderr,
		"minimax_m1_gateway: --clients %ld and --connections %ld take %llu open files, more than the limit of %llu\n"
		"  Say less, or begin with a higher limit (ulimit -Hn).\n",
		options->clients, options->pool.connections, (unsigned long long) needed, (unsigned long long) limit.rlim_max);
	return false;
}

int
gw_http_serve(gw_gateway *gateway)
{
	m1_error err;

	if (!allow_files(&gateway->options))
		return 2;
	if (gw_http_listen(gateway, take, &gateway->http, &err) != M1_OK)
	{
		fprintf(stderr, "minimax_m1_gateway: %s\n  %s\n", err.message, err.detail);
		return 1;
	}
	if (gateway->options.auth == GW_AUTH_FIXED && !gw_http_is_loopback(gateway->http))
	{
		fprintf(stderr,
				"minimax_m1_gateway: --auth fixed would let everybody in who can reach %s\n"
				"  It is for 127.0.0.1 and [::1] only.\n",
				gateway->options.listen);
		gw_http_close(gateway->http);
		return 2;
	}
	fprintf(stderr, "minimax_m1_gateway: listening on port %d\n", gw_http_port(gateway->http));
	event_base_dispatch(gateway->base);
	gw_http_close(gateway->http);
	gw_health_free(gateway->health);
	return 0;
}
