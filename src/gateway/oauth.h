/*
 * oauth.h - OAuth's tokens as credentials: PostgreSQL 18 judges them, libpq passes them on, and clients are told where
 * to get one (RFC 9728).
 */
#ifndef M1_GATEWAY_OAUTH_H
#define M1_GATEWAY_OAUTH_H

#include "gateway/http.h"

#define GW_OAUTH_PATH "/.well-known/oauth-protected-resource"

/*
 * Has libpq take tokens from logins, whose passwords they are, once and for all. M1_E_UNSUPPORTED where the libpq that
 * the program runs with has no OAuth, which came with version 18.
 */
m1_status gw_oauth_begin(m1_error *err);

/*
 * Appends the role that a token is of: the claim of that name in it, which is a JWT. Nothing is verified here; the
 * server lets nobody in whose token is not of the role. M1_E_INVALID_ARGUMENT says why there is none, or that the token
 * has expired.
 */
m1_status gw_oauth_role(m1_slice token, const char *claim, m1_buf *role, m1_error *err);

/* Whether it is a JWT that says so. What is none, only the server can tell. */
bool gw_oauth_has_expired(m1_slice token);

/* What WWW-Authenticate says: where the metadata are, and whether a token was refused. */
void gw_oauth_put_challenge(m1_buf *out, const gw_http_exchange *x, bool refused);

#endif
