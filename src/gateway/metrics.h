/*
 * metrics.h - what the gateway counts of its own requests, for GET /metrics.
 *
 * Counters of the process; used in the event loop.
 */
#ifndef M1_GATEWAY_METRICS_H
#define M1_GATEWAY_METRICS_H

#include "base/buf.h"

#define GW_N_BUCKETS 20

/* How many took at most as long as each bound, in seconds, and all together. */
typedef struct gw_histogram
{
	long buckets[GW_N_BUCKETS];
	long count;
	double sum;
} gw_histogram;

typedef struct gw_metrics
{
	gw_histogram first_token, whole;
	long completed, failed, cancelled;
	double prompt_tokens, cached_tokens, generation_tokens;
	long running;
} gw_metrics;

extern gw_metrics gw_counted;

void gw_histogram_add(gw_histogram *h, double seconds);

/* Appends them in the text format of Prometheus. */
void gw_metrics_put(m1_buf *out);

#endif
