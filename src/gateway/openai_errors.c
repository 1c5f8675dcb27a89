/* openai_errors.c - errors of PostgreSQL as OpenAI's clients know errors; see openai.h. */
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/openai.h"

typedef struct known_error
{
	const char *sqlstate; /* or the beginning of some */
	int status;
	const char *type, *code;
	const char *retry_after; /* seconds */
} known_error;

static const known_error known[] = {
	{"54000", 400, "invalid_request_error", "context_length_exceeded", NULL},
	{"42P0M", 404, "invalid_request_error", "model_not_found", NULL}, /* our own: no such model */
	{"42501", 403, "permission_error", "insufficient_permissions", NULL},
	{"53400", 429, "rate_limit_error", "rate_limit_exceeded", "5"},
	{"57P03", 503, "server_error", "unavailable", "2"},
	{"57014", 504, "server_error", "cancelled", NULL},
	{"0A", 400, "invalid_request_error", "unsupported", NULL},
	{"22", 400, "invalid_request_error", "invalid_value", NULL},
	{"28", 401, "authentication_error", "invalid_api_key", NULL},
	{"53", 503, "server_error", "overloaded", "5"},
	{"57", 503, "server_error", "unavailable", "2"},
	{"08", 503, "server_error", "unavailable", "2"},
	{"", 500, "server_error", "internal_error", NULL},
};

static const known_error *
find(const char *sqlstate)
{
	const known_error *e = known;

	while (strncmp(e->sqlstate, sqlstate, strlen(e->sqlstate)) != 0)
		e++;
	return e;
}

int
gw_status_of(const char *sqlstate)
{
	return find(sqlstate)->status;
}

void
gw_put_error(m1_buf *out, const gw_failure *f, const char *param)
{
	const known_error *e = find(f->sqlstate);
	m1_buf message = {0};

	m1_buf_puts(&message, f->message);
	if (f->detail[0] != '\0')
	{
		m1_buf_puts(&message, ": ");
		m1_buf_puts(&message, f->detail);
	}
	if (f->hint[0] != '\0')
	{
		m1_buf_puts(&message, f->detail[0] != '\0' ? " " : ": ");
		m1_buf_puts(&message, f->hint);
	}
	gw_json(out, "{'error':{'message':%t,'type':%s,'param':%s,'code':%s,'sqlstate':%s}}",
			(m1_slice){message.data, message.len}, e->type, param, e->code, f->sqlstate);
	out->failed |= message.failed;
	m1_buf_free(&message);
}

void
gw_http_fail_with(gw_http_exchange *x, const gw_failure *f, const char *param)
{
	const known_error *e = find(f->sqlstate);
	m1_buf out = {0};

	if (e->status == 401)
		gw_http_ask_login(x);
	if (e->retry_after != NULL)
		gw_http_add_field(x, "Retry-After", e->retry_after);
	gw_put_error(&out, f, param);
	gw_http_reply(x, e->status, "application/json", (m1_slice){out.data, out.len});
	m1_buf_free(&out);
}
