/*
 * texts.h - texts of the server in UTF-8, as the engine has them, and back (texts.c).
 */
#ifndef M1PG_TEXTS_H
#define M1PG_TEXTS_H

#include "pg/m1pg.h"

#include "base/buf.h"

#include "fmgr.h"

/*
 * Converts to UTF-8; the result is palloc'd or the input itself. What cannot be
 * converted becomes something that m1pg_check_utf8 refuses.
 */
extern m1_slice m1pg_to_utf8(const char *s, Size len);
extern m1_slice m1pg_utf8_of_text(const text *t);
/*
 * An argument that is JSON, as its text: in the order that it was given in, unless it is jsonb, as functions of older
 * versions of the extension declare it.
 */
extern text *m1pg_json_argument(FunctionCallInfo fcinfo, int arg);
/* Whether it is UTF-8, before it is sent; `what` it is, for the error. */
extern bool m1pg_check_utf8(m1_slice s, const char *what, m1_error *error);
/* A palloc'd copy. */
extern m1_slice m1pg_keep(m1_slice s);
extern text *m1pg_text_from_utf8(m1_slice s);
/* NULL when the database's encoding does not have all of it. */
extern text *m1pg_try_text_from_utf8(m1_slice s);
/* NULL then only if on_error says so; raised otherwise. */
extern text *m1pg_scalar_text(m1_slice s);

#endif							/* M1PG_TEXTS_H */
