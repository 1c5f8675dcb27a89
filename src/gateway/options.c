/* options.c - the gateway's command line; see gateway.h. */
#define _DEFAULT_SOURCE /* strdup */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/gateway.h"

typedef m1_status (*take_option)(gw_options *options, const char *value, m1_error *err);

typedef struct option
{
	const char *name;
	const char *argument; /* NULL: it has none */
	take_option take;
	bool http_only;
	const char *help;
} option;

static m1_status
take_number(const char *what, const char *value, long least, long most, long *out, m1_error *err)
{
	char *end;

	errno = 0;
	*out = strtol(value, &end, 10);
	if (errno == 0 && end != value && *end == '\0' && *out >= least && *out <= most)
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "--%s is out of range", what);
	m1_error_detail(err, "It is \"%s\"; it must be from %ld to %ld.", value, least, most);
	return M1_E_INVALID_ARGUMENT;
}

static m1_status
take_listen(gw_options *options, const char *value, m1_error *err)
{
	(void) err;
	options->listen = value;
	return M1_OK;
}

static m1_status
take_auth(gw_options *options, const char *value, m1_error *err)
{
	if (strcmp(value, "password") == 0)
		options->auth = GW_AUTH_PASSWORD;
	else if (strcmp(value, "oauth") == 0)
		options->auth = GW_AUTH_OAUTH;
	else if (strcmp(value, "fixed") == 0)
		options->auth = GW_AUTH_FIXED;
	else
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "--auth is password, oauth or fixed, not \"%s\"", value);
	return M1_OK;
}

/* An address, which will stand between quotes in a field of HTTP. */
static m1_status
take_url(const char *what, const char *value, const char **out, m1_error *err)
{
	for (const char *at = value; *at != '\0'; at++)
		if (*at <= ' ' || *at >= 0x7F || *at == '"' || *at == '\\')
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "--%s has a character that addresses do not have", what);
	if (strncmp(value, "https://", 8) != 0 && strncmp(value, "http://", 7) != 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "--%s is an address, as https://example.com, not \"%s\"", what,
					   value);
	*out = value;
	return M1_OK;
}

static m1_status
take_issuer(gw_options *options, const char *value, m1_error *err)
{
	return take_url("issuer", value, &options->pool.issuer.url, err);
}

static m1_status
take_resource(gw_options *options, const char *value, m1_error *err)
{
	return take_url("resource", value, &options->resource, err);
}

/* Words of RFC 6749, with a space between them. */
static m1_status
take_scope(gw_options *options, const char *value, m1_error *err)
{
	for (const char *at = value; *at != '\0'; at++)
		if (*at < ' ' || *at >= 0x7F || *at == '"' || *at == '\\')
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "--scope has a character that scopes do not have");
	options->pool.issuer.scope = value;
	return M1_OK;
}

static m1_status
take_role_claim(gw_options *options, const char *value, m1_error *err)
{
	(void) err;
	options->role_claim = value;
	return M1_OK;
}

static m1_status
take_origin(gw_options *options, const char *value, m1_error *err)
{
	if (options->n_origins == GW_MAX_ORIGINS)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "more than %d origins", GW_MAX_ORIGINS);
	if (strstr(value, "://") == NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%s\" is no origin, as https://example.com is", value);
	options->origins[options->n_origins++] = value;
	return M1_OK;
}

static m1_status
take_tools(gw_options *options, const char *value, m1_error *err)
{
	(void) err;
	options->tools = value;
	return M1_OK;
}

static m1_status
take_functions(gw_options *options, const char *value, m1_error *err)
{
	char *list = strdup(value);

	for (char *name = list == NULL ? NULL : strtok(list, ","); name != NULL; name = strtok(NULL, ","))
	{
		if (options->n_functions == GW_MAX_FUNCTIONS)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "more than %d functions", GW_MAX_FUNCTIONS);
		if (strchr(name, '.') == NULL)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "function \"%s\" is to be named with its schema", name);
		options->functions[options->n_functions++] = name;
	}
	return list == NULL ? m1_fail(err, M1_E_NO_MEMORY, "out of memory") : M1_OK;
}

static m1_status
take_write(gw_options *options, const char *value, m1_error *err)
{
	(void) value;
	(void) err;
	options->write = true;
	return M1_OK;
}

static m1_status
take_max_rows(gw_options *options, const char *value, m1_error *err)
{
	return take_number("max-rows", value, 1, 100000, &options->max_rows, err);
}

static m1_status
take_max_result_tokens(gw_options *options, const char *value, m1_error *err)
{
	return take_number("max-result-tokens", value, 100, 1000000, &options->max_result_tokens, err);
}

static m1_status
take_connections(gw_options *options, const char *value, m1_error *err)
{
	return take_number("connections", value, 1, 10000, &options->pool.connections, err);
}

static m1_status
take_login_lifetime(gw_options *options, const char *value, m1_error *err)
{
	return take_number("login-lifetime", value, 0, 86400, &options->pool.login_lifetime, err);
}

static m1_status
take_clients(gw_options *options, const char *value, m1_error *err)
{
	return take_number("clients", value, 1, 100000, &options->clients, err);
}

static const option options_known[] = {
	{"tools", "NAME,...", take_tools, false, "only these tools of MCP"},
	{"functions", "SCHEMA.NAME,...", take_functions, false, "SQL functions, each a tool of MCP"},
	{"write", NULL, take_write, false, "VOLATILE ones among them, in READ WRITE transactions"},
	{"max-rows", "N", take_max_rows, false, "rows of a result, 100 by default"},
	{"max-result-tokens", "N", take_max_result_tokens, false, "length of a result, 20000 by default"},
	{"connections", "N", take_connections, false, "to the database, 64 by default"},
	{"listen", "ADDRESS:PORT", take_listen, true, "127.0.0.1:8087 by default"},
	{"auth", "password|oauth|fixed", take_auth, true, "whose role requests have"},
	{"login-lifetime", "SECONDS", take_login_lifetime, true, "until the database judges it again; 300 by default"},
	{"issuer", "URL", take_issuer, true, "of the tokens of --auth oauth"},
	{"scope", "SCOPE", take_scope, true, "that they have to have"},
	{"role-claim", "NAME", take_role_claim, true, "of a token, its role; sub by default"},
	{"resource", "URL", take_resource, true, "of the gateway, where a proxy is in front of it"},
	{"origin", "ORIGIN", take_origin, true, "of pages that may ask; repeatable"},
	{"clients", "N", take_clients, true, "connections to us, 1000 by default"},
};

#define N_OPTIONS (sizeof options_known / sizeof *options_known)

void
gw_options_print(void)
{
	puts("minimax_m1_gateway - MiniMax-M1 in PostgreSQL, for programs that speak MCP or OpenAI's HTTP\n\n"
		 "  minimax_m1_gateway mcp  [CONNINFO] [options]    MCP on stdin and stdout\n"
		 "  minimax_m1_gateway http [CONNINFO] [options]    MCP at /mcp, OpenAI's API at /v1, a page at /\n\n"
		 "CONNINFO is as for psql: keywords, postgresql://..., or the name of a database.\n");
	for (size_t i = 0; i < N_OPTIONS; i++)
	{
		const option *o = &options_known[i];
		char name[64];

		snprintf(name, sizeof name, "--%s%s%s", o->name, o->argument == NULL ? "" : " ",
				 o->argument == NULL ? "" : o->argument);
		printf("  %-28s %s%s\n", name, o->help, o->http_only ? " (http)" : "");
	}
}

static const option *
find_option(const char *name)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (strcmp(options_known[i].name, name) == 0)
			return &options_known[i];
	return NULL;
}

/* The option at *at, and its value, which may follow behind =. */
static m1_status
read_option(int argc, char **argv, int *at, gw_options *options, m1_error *err)
{
	char name[64];
	const char *equals = strchr(argv[*at], '=');
	const option *o;

	snprintf(name, sizeof name, "%.*s", equals == NULL ? 63 : (int) (equals - argv[*at] - 2), argv[*at] + 2);
	o = find_option(name);
	if (o == NULL || (o->http_only && !options->http))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "unknown option \"%s\"", argv[*at]);
	if (o->argument == NULL)
		return equals == NULL ? o->take(options, NULL, err)
							  : m1_fail(err, M1_E_INVALID_ARGUMENT, "--%s takes no value", o->name);
	if (equals != NULL)
		return o->take(options, equals + 1, err);
	if (*at + 1 == argc)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "--%s needs %s", o->name, o->argument);
	return o->take(options, argv[++*at], err);
}

m1_status
gw_options_read(int argc, char **argv, gw_options *options, bool *help, m1_error *err)
{
	m1_status status = M1_OK;

	*options = (gw_options){.pool = {.conninfo = "", .connections = 64, .login_lifetime = 300},
							.listen = "127.0.0.1:8087",
							.role_claim = "sub",
							.max_rows = 100,
							.max_result_tokens = 20000,
							.clients = 1000};
	*help = argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0);
	if (*help)
		return M1_OK;
	if (argc < 2 || (strcmp(argv[1], "mcp") != 0 && strcmp(argv[1], "http") != 0))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the first argument is mcp or http (see --help)");
	options->http = strcmp(argv[1], "http") == 0;
	for (int at = 2; at < argc && status == M1_OK; at++)
	{
		*help = *help || strcmp(argv[at], "--help") == 0;
		if (*help)
			return M1_OK;
		if (strncmp(argv[at], "--", 2) == 0)
			status = read_option(argc, argv, &at, options, err);
		else if (options->pool.conninfo[0] == '\0')
			options->pool.conninfo = argv[at];
		else
			status = m1_fail(err, M1_E_INVALID_ARGUMENT, "unexpected argument \"%s\"", argv[at]);
	}
	if (status == M1_OK && (options->auth == GW_AUTH_OAUTH) != (options->pool.issuer.url != NULL))
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "--auth oauth and --issuer come together");
	return status;
}
