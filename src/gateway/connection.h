/*
 * connection.h - how the gateway connects: parameters for libpq, of the connection string and of who asks.
 */
#ifndef M1_GATEWAY_CONNECTION_H
#define M1_GATEWAY_CONNECTION_H

#include "gateway/database.h"

/* What the connection string says. */
typedef struct gw_target
{
	PQconninfoOption *options;
	char *session_options; /* the server's, for each session */
	gw_issuer issuer;	   /* of what logins have as a password */
} gw_target;

/* A string of libpq's keywords, an address of the form postgresql://, or the name of a database. */
m1_status gw_target_read(const char *conninfo, gw_target *target, m1_error *err);
void gw_target_free(gw_target *target);

/* Begins to connect, as libpq's PQconnectStart does. NULL when memory runs out. */
PGconn *gw_connect_start(const gw_target *target, const gw_login *login);

/*
 * Whether who is connected has shown to be who the login says: a server that lets the gateway in by whom it runs as
 * (peer, trust, a certificate) has not looked at the password. libpq itself sees to it that a token was looked at.
 */
bool gw_is_proven(const gw_target *target, const PGconn *pg, const gw_login *login, gw_failure *failure);

/* Whether the connection was made with this login. */
bool gw_is_of(const PGconn *pg, bool own, const gw_login *login);

#endif
