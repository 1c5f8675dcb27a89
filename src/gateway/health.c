/* health.c - GET /health: whether the model answers; see http.h. */
#include <string.h>

#include "gateway/http_answer.h"
#include "gateway/jsonform.h"

static void
add_state(m1_buf *out, const PGresult *result, int row)
{
	m1_buf_append(out, PQgetvalue(result, row, 0), (size_t) PQgetlength(result, row, 0));
}

static void
reply_state(gw_http_exchange *x, m1_buf *out, const gw_failure *failure)
{
	m1_buf body = {0};
	const char *state = failure != NULL ? "unreachable" : m1_buf_cstr(out);
	const bool ready = state != NULL && strcmp(state, "ready") == 0;

	gw_json(&body, "{'status':%s}", ready ? "ok" : state);
	gw_http_reply(x, ready ? 200 : 503, "application/json", (m1_slice){body.data, body.len});
	m1_buf_free(&body);
}

/* With the role of the connection string, for it tells nobody's secrets. */
void
gw_health_handle(gw_http_exchange *x)
{
	static const gw_answer answer = {add_state, reply_state};
	const gw_login own = {NULL, NULL};
	gw_statement s = {0};

	gw_sql(&s, "SELECT state FROM minimax_m1.model");
	gw_http_answer(x, &own, &s, &answer);
}
