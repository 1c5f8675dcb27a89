/* metrics.c - see metrics.h; and GET /metrics, which has what the database counts, too. */
#include "gateway/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "gateway/http_answer.h"
#include "gateway/openai.h"

gw_metrics gw_counted;

static M1_PRINTF(2, 3) void put(m1_buf *out, const char *form, ...)
{
	char line[256];
	va_list values;

	va_start(values, form);
	vsnprintf(line, sizeof line, form, values);
	va_end(values);
	m1_buf_puts(out, line);
}

static void
put_histogram(m1_buf *out, const char *name, const char *help, const m1_latency *l)
{
	int64_t n = 0;

	put(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
	for (int i = 0; i < M1_LATENCY_BOUNDS; i++)
	{
		n += l->counts[i];
		put(out, "%s_bucket{le=\"%g\"} %" PRId64 "\n", name, m1_latency_bounds[i], n);
	}
	n += l->counts[M1_LATENCY_BOUNDS];
	put(out, "%s_bucket{le=\"+Inf\"} %" PRId64 "\n%s_sum %.6f\n%s_count %" PRId64 "\n", name, n, name, l->seconds, name,
		n);
}

void
gw_metrics_put(m1_buf *out)
{
	const gw_metrics *m = &gw_counted;

	put_histogram(out, "vllm:time_to_first_token_seconds", "Until the first token, of chats through this gateway.",
				  &m->first_token);
	put_histogram(out, "vllm:e2e_request_latency_seconds", "Whole chats through this gateway.", &m->whole);
	put(out, "# TYPE minimax_m1_gateway_chats_total counter\n");
	put(out, "minimax_m1_gateway_chats_total{end=\"completed\"} %ld\n", m->completed);
	put(out, "minimax_m1_gateway_chats_total{end=\"failed\"} %ld\n", m->failed);
	put(out, "minimax_m1_gateway_chats_total{end=\"cancelled\"} %ld\n", m->cancelled);
	put(out, "# TYPE minimax_m1_gateway_chats_running gauge\nminimax_m1_gateway_chats_running %ld\n", m->running);
}

/* ---- GET /metrics ---- */

/* Name, type, value. */
static void
add_counter(m1_buf *out, const PGresult *result, int row)
{
	const char *name = PQgetvalue(result, row, 0);

	put(out, "# TYPE %s %s\n%s %s\n", name, PQgetvalue(result, row, 1), name, PQgetvalue(result, row, 2));
}

static void
put_pool(m1_buf *out, const gw_gateway *gateway)
{
	const gw_pool_counts pool = gw_pool_count(gateway->pool);

	put(out, "# TYPE minimax_m1_gateway_connections gauge\nminimax_m1_gateway_connections{state=\"busy\"} %d\n",
		pool.busy);
	put(out, "minimax_m1_gateway_connections{state=\"idle\"} %d\n", pool.connections - pool.busy);
	put(out, "# TYPE minimax_m1_gateway_waiting gauge\nminimax_m1_gateway_waiting %d\n", pool.waiting);
	put(out, "# TYPE minimax_m1_gateway_clients gauge\nminimax_m1_gateway_clients %d\n",
		gw_http_clients(gateway->http));
}

static void
reply_metrics(gw_http_exchange *x, m1_buf *out, const gw_failure *failure)
{
	if (failure != NULL)
	{
		gw_http_fail_with(x, failure, NULL);
		return;
	}
	gw_metrics_put(out);
	put_pool(out, x->gateway);
	gw_http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", (m1_slice){out->data, out->len});
}

/* Names that dashboards exist for. */
static const char counters[] =
	"SELECT v.name, v.type, v.value FROM minimax_m1.stats s CROSS JOIN (SELECT"
	" pg_catalog.count(*) FILTER (WHERE state = 'queued') AS waiting,"
	" pg_catalog.count(*) FILTER (WHERE state <> 'queued') AS running FROM minimax_m1.activity) a"
	" CROSS JOIN LATERAL (VALUES"
	" ('vllm:num_requests_running', 'gauge', a.running::text),"
	" ('vllm:num_requests_waiting', 'gauge', a.waiting::text),"
	" ('vllm:prompt_tokens_total', 'counter', s.prompt_tokens::text),"
	" ('vllm:generation_tokens_total', 'counter', s.completion_tokens::text),"
	" ('vllm:prefix_cache_queries_total', 'counter', s.prompt_tokens::text),"
	" ('vllm:prefix_cache_hits_total', 'counter', s.cached_tokens::text),"
	" ('minimax_m1_requests_completed_total', 'counter', s.completed::text),"
	" ('minimax_m1_requests_failed_total', 'counter', s.failed::text),"
	" ('minimax_m1_requests_cancelled_total', 'counter', s.cancelled::text),"
	" ('minimax_m1_requests_rejected_total', 'counter', s.rejected::text),"
	" ('minimax_m1_snapshot_bytes', 'gauge', s.snapshot_bytes::text)) v(name, type, value)";

void
gw_metrics_handle(gw_http_exchange *x)
{
	static const gw_answer answer = {add_counter, reply_metrics};
	gw_statement statement = {0};

	gw_sql(&statement, counters);
	gw_http_answer(x, &x->login, &statement, &answer);
}
