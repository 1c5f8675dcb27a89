/* connection.c - see connection.h. */
#define _GNU_SOURCE /* asprintf */
#include "gateway/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A session whose client is gone ends within that time, whatever it is doing. */
#define SESSION_OPTIONS "-c client_connection_check_interval=500"
#define CONNECT_SECONDS "10"

static const char *
value_of(const PQconninfoOption *options, const char *keyword)
{
	for (; options != NULL && options->keyword != NULL; options++)
		if (strcmp(options->keyword, keyword) == 0)
			return options->val;
	return NULL;
}

static void
join_session_options(gw_target *target)
{
	PQconninfoOption *defaults = PQconndefaults();
	const char *given = value_of(target->options, "options");

	if (given == NULL)
		given = value_of(defaults, "options");
	if (asprintf(&target->session_options, "%s %s", given == NULL ? "" : given, SESSION_OPTIONS) < 0)
		target->session_options = NULL;
	PQconninfoFree(defaults);
}

/* What has no sign of a list of keywords or of an address names a database. */
static char *
full_string(const char *conninfo)
{
	char *full;
	const int n = strchr(conninfo, '=') != NULL || strstr(conninfo, "://") != NULL || conninfo[0] == '\0'
					  ? asprintf(&full, "%s", conninfo)
					  : asprintf(&full, "dbname='%s'", conninfo);

	return n < 0 ? NULL : full;
}

m1_status
gw_target_read(const char *conninfo, gw_target *target, m1_error *err)
{
	char *full = full_string(conninfo);
	char *why = NULL;
	m1_status status = M1_OK;

	memset(target, 0, sizeof *target);
	if (full == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	target->options = PQconninfoParse(full, &why);
	free(full);
	if (target->options == NULL)
	{
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "the connection string is not understood");
		m1_error_detail(err, "%s", why == NULL ? "" : why);
	}
	else
		join_session_options(target);
	PQfreemem(why);
	if (status == M1_OK && target->session_options == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	return status;
}

void
gw_target_free(gw_target *target)
{
	PQconninfoFree(target->options);
	free(target->session_options);
	memset(target, 0, sizeof *target);
}

typedef struct parameters
{
	const char *keywords[64];
	const char *values[64];
	int n;
} parameters;

/* The first value of a keyword counts. */
static void
set(parameters *p, const char *keyword, const char *value)
{
	for (int i = 0; i < p->n; i++)
		if (strcmp(p->keywords[i], keyword) == 0)
			return;
	if (value == NULL || p->n == 63)
		return;
	p->keywords[p->n] = keyword;
	p->values[p->n++] = value;
}

/* A server that asks for a password, or for nothing, is not told the token, and does not do. */
static void
set_issuer(parameters *p, const gw_issuer *issuer)
{
	set(p, "require_auth", "oauth");
	set(p, "oauth_issuer", issuer->url);
	set(p, "oauth_scope", issuer->scope);
}

PGconn *
gw_connect_start(const gw_target *target, const gw_login *login)
{
	parameters p = {.n = 0};
	PGconn *pg;

	if (login->user != NULL)
	{
		set(&p, "user", login->user);
		set(&p, "password", login->password);
		if (target->issuer.url != NULL)
			set_issuer(&p, &target->issuer);
	}
	set(&p, "client_encoding", "UTF8");
	set(&p, "options", target->session_options);
	for (const PQconninfoOption *o = target->options; o->keyword != NULL; o++)
		set(&p, o->keyword, o->val);
	if (target->issuer.url != NULL)
		set(&p, "oauth_client_id", "minimax_m1_gateway");
	set(&p, "connect_timeout", CONNECT_SECONDS);
	set(&p, "fallback_application_name", "minimax_m1_gateway");
	pg = PQconnectStartParams(p.keywords, p.values, 0);
	if (pg != NULL)
		PQsetErrorVerbosity(pg, PQERRORS_VERBOSE);
	return pg;
}

bool
gw_is_proven(const gw_target *target, const PGconn *pg, const gw_login *login, gw_failure *failure)
{
	if (login->user == NULL || target->issuer.url != NULL || PQconnectionUsedPassword(pg))
		return true;
	gw_failure_set(failure, "28000", "the server did not ask for a password",
				   "It lets the gateway in by other means, whoever it says it is.",
				   "Have pg_hba.conf ask for scram-sha-256 where the gateway connects from.");
	return false;
}

/* Takes as long wherever two texts differ. */
static bool
same_secret(const char *a, const char *b)
{
	const size_t n = strlen(a);
	unsigned char differs = n != strlen(b);

	for (size_t i = 0; i < n && b[i] != '\0'; i++)
		differs |= (unsigned char) (a[i] ^ b[i]);
	return differs == 0;
}

bool
gw_is_of(const PGconn *pg, bool own, const gw_login *login)
{
	if (own || login->user == NULL)
		return own && login->user == NULL;
	return strcmp(PQuser(pg), login->user) == 0 && same_secret(PQpass(pg), login->password);
}
