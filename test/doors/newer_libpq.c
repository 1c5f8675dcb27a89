/*
 * newer_libpq.c - what libpq has from version 18 on, in front of an older one, for test/t/064_gateway_oauth.pl.
 *
 * It asks for a token as libpq 18 does, and gives it to the server as a password. A connection that libpq 18 would not
 * have made as the test wants it ends the process.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef LIBPQ_HAS_PROMPT_OAUTH_DEVICE
#define BEARER_TOKEN PQAUTHDATA_OAUTH_BEARER_TOKEN
typedef PGoauthBearerRequest token_request;
typedef PQauthDataHook_type auth_data_hook;
#else
/* As version 18 declares them. */
#define BEARER_TOKEN 1
typedef struct token_request
{
	const char *openid_configuration, *scope;
	PostgresPollingStatusType (*async)(PGconn *pg, struct token_request *request, int *socket);
	void (*cleanup)(PGconn *pg, struct token_request *request);
	char *token;
	void *user;
} token_request;
typedef int (*auth_data_hook)(int type, PGconn *pg, void *data);

void PQsetAuthDataHook(auth_data_hook given);
#endif

static auth_data_hook hook;

void
PQsetAuthDataHook(auth_data_hook given)
{
	hook = given;
}

static void
demand(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "libpq: %s\n", what);
	_exit(66);
}

static const char *
value_of(const char *keyword, const char *const *keywords, const char *const *values)
{
	for (int i = 0; keywords[i] != NULL; i++)
		if (strcmp(keywords[i], keyword) == 0)
			return values[i];
	return NULL;
}

static int
is(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* As libpq does once the server has asked for a token. */
static void
ask_for_token(PGconn *pg, const char *password)
{
	token_request request = {0};
	const int other = 7;

	demand(hook(other, pg, NULL) == 0, "a question that is not known was answered");
	demand(hook(BEARER_TOKEN, pg, &request) == 1, "there is no token");
	demand(is(request.token, password), "the token is another one");
	demand(request.async == NULL && request.cleanup != NULL, "the token is not given at once");
	request.cleanup(pg, &request);
	demand(request.token == NULL, "the token is not forgotten");
}

/* A connection to a server that asks for a password. */
static const PGconn *refused;

char *
PQerrorMessage(const PGconn *pg)
{
	char *(*message)(const PGconn *);

	*(void **) &message = dlsym(RTLD_NEXT, "PQerrorMessage");
	return pg != NULL && pg == refused
			   ? (char *) "connection to server at \"db\", port 5432 failed: authentication method requirement "
						  "\"oauth\" failed: server requested SCRAM-SHA-256 authentication\n"
			   : message(pg);
}

PGconn *
PQconnectStartParams(const char *const *keywords, const char *const *values, int expand)
{
	PGconn *(*connect)(const char *const *, const char *const *, int);
	const char *known[64], *given[64];
	const char *required = value_of("require_auth", keywords, values);
	int n = 0;
	PGconn *pg;

	*(void **) &connect = dlsym(RTLD_NEXT, "PQconnectStartParams");
	for (int i = 0; keywords[i] != NULL; i++)
	{
		if (strncmp(keywords[i], "oauth_", 6) == 0 || strcmp(keywords[i], "require_auth") == 0)
			continue;
		known[n] = keywords[i];
		given[n++] = values[i];
	}
	known[n] = given[n] = NULL;
	pg = connect(known, given, expand);
	if (is(value_of("user", keywords, values), "cy"))
	{
		PQfinish(pg);
		refused = pg = connect((const char *const[]){"sslmode", NULL}, (const char *const[]){"none", NULL}, 0);
		return pg;
	}
	/* /health has no login */
	if (required == NULL)
		return pg;
	demand(is(required, "oauth"), "something else than OAuth would do");
	demand(is(value_of("oauth_issuer", keywords, values), getenv("ISSUER")), "the issuer is another one");
	demand(is(value_of("oauth_scope", keywords, values), getenv("SCOPE")), "the scope is another one");
	demand(value_of("oauth_client_id", keywords, values) != NULL, "there is no client id");
	ask_for_token(pg, value_of("password", keywords, values));
	return pg;
}
