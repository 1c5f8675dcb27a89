/*
 * metrics.h - what the gateway counts of its own requests, for GET /metrics.
 *
 * Counters of the process; used in the event loop.
 */
#ifndef M1_GATEWAY_METRICS_H
#define M1_GATEWAY_METRICS_H

#include "base/buf.h"
#include "base/latency.h"

typedef struct gw_metrics
{
	m1_latency first_token, whole;
	long completed, failed, cancelled;
	double prompt_tokens, cached_tokens, generation_tokens;
	long running;
} gw_metrics;

extern gw_metrics gw_counted;

/* Appends them in the text format of Prometheus. */
void gw_metrics_put(m1_buf *out);

#endif
