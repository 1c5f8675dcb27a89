/* http_answer.c - see http_answer.h. */
#include "gateway/http_answer.h"

#include <stdlib.h>

typedef struct asking
{
	gw_http_exchange *http;
	const gw_answer *answer;
	gw_query *query;
	m1_buf out;
} asking;

static void
free_asking(asking *a)
{
	m1_buf_free(&a->out);
	free(a);
}

static void
on_row(void *context, const PGresult *result, int row)
{
	asking *a = context;

	a->answer->row(&a->out, result, row);
}

static void
on_end(void *context, const gw_failure *failure)
{
	asking *a = context;

	a->answer->reply(a->http, &a->out, failure);
	free_asking(a);
}

static void
on_closed(void *context)
{
	asking *a = context;

	gw_query_cancel(a->query);
	free_asking(a);
}

void
gw_http_answer(gw_http_exchange *x, const gw_login *login, gw_statement *statement, const gw_answer *answer)
{
	static const gw_reader reader = {.row = on_row, .end = on_end};
	asking *a = calloc(1, sizeof *a);

	if (a != NULL)
	{
		a->http = x;
		a->answer = answer;
		a->query = gw_query_start(x->gateway->pool, login, statement, &reader, a);
	}
	if (a == NULL || a->query == NULL)
	{
		gw_statement_free(statement);
		free(a);
		gw_http_fail(x, 503, "server_error", NULL, "the request is too large, or memory ran out");
		return;
	}
	x->context = a;
	x->closed = on_closed;
}
