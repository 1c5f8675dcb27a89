/*
 * http_answer.h - paths that one statement answers: its rows are gathered as a text, and then it is replied.
 */
#ifndef M1_GATEWAY_HTTP_ANSWER_H
#define M1_GATEWAY_HTTP_ANSWER_H

#include <libpq-fe.h>

#include "gateway/database.h"
#include "gateway/http.h"

typedef struct gw_answer
{
	/* Adds a row. */
	void (*row)(m1_buf *out, const PGresult *result, int row);
	/* Replies, once, by what was gathered or by what went wrong. */
	void (*reply)(gw_http_exchange *x, m1_buf *out, const gw_failure *failure);
} gw_answer;

/* Runs the statement, which it takes, as that role. A client that goes meanwhile cancels it. */
void gw_http_answer(gw_http_exchange *x, const gw_login *login, gw_statement *statement, const gw_answer *answer);

#endif
