/*
 * relay.h - the worker's side of requests: from a backend's queue into the
 * engine, and back.
 */
#ifndef M1PG_RELAY_H
#define M1PG_RELAY_H

#include "pg/m1pg.h"

#include "wire/message.h"

extern void m1pg_relays_init(void);
/* Takes up new requests, notices gone and late ones, admits, delivers. */
extern void m1pg_relays_pump(void);
/* NULL, or what is wrong with the frame. */
extern const char *m1pg_relays_frame(const m1w_header *header, const char *payload);
/* Requests in the engine's batch, or on their way there. */
extern int	m1pg_relays_running(void);
/* The engine is gone: what it had fails with this error. */
extern void m1pg_relays_fail_running(const m1_error *error);
/* Milliseconds until the next deadline; -1 = none. */
extern long m1pg_relays_timeout(void);
/* The worker ends: what it had counts as failed. */
extern void m1pg_relays_end(void);

#endif							/* M1PG_RELAY_H */
