/*
 * report.h - what is told of a request to whoever made it: the events of engine.h,
 * made from the request's state. The step thread's.
 */
#ifndef M1_ENGINE_REPORT_H
#define M1_ENGINE_REPORT_H

#include "engine/engine.h"
#include "engine/request.h"

void m1_report_progress(const m1_engine_events *events, m1_request *r);
/* The texts that have grown since the last time; nothing for a request that does not stream. */
void m1_report_deltas(const m1_engine_events *events, m1_request *r);
void m1_report_failure(const m1_engine_events *events, const m1_request *r, m1_status code, const char *why);
/* The end of an answer, with all that was measured; ends with a failure when memory runs out. */
void m1_report_done(const m1_engine_events *events, m1_request *r);

#endif
