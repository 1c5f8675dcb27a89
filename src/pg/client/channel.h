/*
 * channel.h - one request, as the backend that makes it sees it (channel.c).
 */
#ifndef M1PG_CHANNEL_H
#define M1PG_CHANNEL_H

#include "pg/m1pg.h"

#include "wire/message.h"

typedef struct M1Channel M1Channel;

/*
 * Claims a slot and begins to send the request. The channel belongs to the
 * current resource owner: leaving in any way frees the slot and cancels the
 * request. A backend may have several. NULL: refused, and *error says why.
 */
extern M1Channel *m1pg_channel_try_open(m1w_type type, const char *payload, Size len,
										const char *function, const char *excerpt, m1_error *error);

#define M1PG_NO_EVENT	((m1w_type) 0)

/*
 * What has come, without waiting, or M1PG_NO_EVENT; sends on what was left of
 * the request. M1W_ERROR: the request has failed or the worker is lost, and
 * *error says why. *payload lives until the next call.
 */
extern m1w_type m1pg_channel_poll(M1Channel *channel, const char **payload, Size *len, m1_error *error);
/* Sleeps until something may have come on any channel of this backend. Raises interrupts. */
extern void m1pg_channel_wait(void);
/* Waits for the next event but progress; M1W_ERROR: *error. */
extern m1w_type m1pg_channel_try_receive(M1Channel *channel, const char **payload, Size *len, m1_error *error);
/* The same, where a failure is raised. */
extern m1w_type m1pg_channel_receive(M1Channel *channel, const char **payload, Size *len);
extern void m1pg_channel_close(M1Channel *channel);
/* Makes the channel outlive its resource owner: until it is closed, or the process ends. */
extern void m1pg_channel_pin(M1Channel *channel);
/* Whether the request was in the engine when its last event came. */
extern bool m1pg_channel_reached_engine(const M1Channel *channel);
/* Milliseconds that the request waited in the worker's queue. */
extern double m1pg_channel_queue_ms(const M1Channel *channel);

#endif							/* M1PG_CHANNEL_H */
