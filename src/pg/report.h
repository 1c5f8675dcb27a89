/*
 * report.h - an m1_error as a PostgreSQL error (report.c), and as it comes from the engine.
 */
#ifndef M1PG_REPORT_H
#define M1PG_REPORT_H

#include "pg/m1pg.h"

/* Raises that an argument of an SQL function is not what it must be. */
pg_noreturn extern void m1pg_bad_argument(const char *message, const char *detail);
pg_noreturn extern void m1pg_report(const m1_error *error);
/* What a message of the extension's own says behind its name; NULL = it is another's. */
extern const char *m1pg_own_message(const char *message);
/* Raises it, unless on_error says that the result of a scalar function is NULL then. A cancel is always raised. */
extern void m1pg_report_or_null(const m1_error *error);
/* The error that a M1W_ERROR tells: from here on its hint has the settings by their SQL names. */
extern void m1pg_read_failure(const char *payload, Size len, m1_error *error);
/* A text of the engine's, or one that quotes a file, in the encoding of the database; ? for what that does not have. */
extern char *m1pg_displayable(const char *s);
/* Message and detail as a column shows them. */
extern text *m1pg_error_text(const m1_error *error);

#endif							/* M1PG_REPORT_H */
