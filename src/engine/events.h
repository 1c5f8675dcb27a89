/*
 * events.h - what is told of a request to whoever made it: the events of engine.h, made from the request's state. The
 * step thread's.
 */
#ifndef M1_ENGINE_EVENTS_H
#define M1_ENGINE_EVENTS_H

#include "engine/engine.h"
#include "engine/request.h"

void m1_event_progress(const m1_engine_events *events, m1_request *r);
/* The texts that have grown since the last time; nothing for a request that does not stream. */
void m1_event_deltas(const m1_engine_events *events, m1_request *r);
/* The three ends. That of an answer comes with all that was measured; it is a failure when memory runs out. */
void m1_event_done(const m1_engine_events *events, m1_request *r);
/* logits [vocab] */
void m1_event_vector(const m1_engine_events *events, const m1_request *r, const float *logits, int vocab);
void m1_event_failed(const m1_engine_events *events, const m1_request *r, const m1_error *error);

#endif
