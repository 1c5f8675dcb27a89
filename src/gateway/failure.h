/*
 * failure.h - why a statement has failed, as PostgreSQL says it.
 *
 * A failure owns nothing: long texts are cut, at a character.
 */
#ifndef M1_GATEWAY_FAILURE_H
#define M1_GATEWAY_FAILURE_H

#include <libpq-fe.h>

#include "base/status.h"

typedef struct gw_failure
{
	char sqlstate[6];
	char message[1024];
	char detail[2048]; /* or "" */
	char hint[1024];   /* or "" */
} gw_failure;

/* detail and hint may be NULL. */
void gw_failure_set(gw_failure *f, const char *sqlstate, const char *message, const char *detail, const char *hint);
/* A value of a request that is at fault, or memory: 22023, 0A000, 53200. */
void gw_failure_of_error(gw_failure *f, const m1_error *err);
void gw_failure_of_result(gw_failure *f, const PGresult *result);
/* A connection that could not be made, or was lost: what the server said, or 08006. */
void gw_failure_of_connection(gw_failure *f, const PGconn *pg);

#endif
