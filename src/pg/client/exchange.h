/*
 * exchange.h - one request, as the backend that makes it sees it (exchange.c).
 */
#ifndef M1PG_EXCHANGE_H
#define M1PG_EXCHANGE_H

#include "pg/m1pg.h"

#include "wire/message.h"

typedef struct M1Exchange M1Exchange;

/* A request to be made, and what others see of it. */
typedef struct M1Request
{
	m1w_type	type;
	union
	{
		const m1w_generate *generate;	/* M1W_GENERATE */
		const m1w_words *words; /* M1W_TOKENIZE */
		const m1w_tokens *tokens;	/* M1W_DETOKENIZE, M1W_LOGITS */
		const m1w_bytes *bytes; /* M1W_PUT, M1W_FETCH */
		const m1w_serve *serve; /* M1W_SERVE */
		const m1w_training *training;	/* M1W_TRAINING */
		const m1w_lesson *lesson;	/* M1W_LESSON */
		const m1w_forget *forget;	/* M1W_FORGET */
	}			message;
	const char *function;		/* that makes it */
	const char *excerpt;		/* of its prompt, in the server's encoding */
} M1Request;

/*
 * Claims a slot and begins to send the request. The exchange belongs to the
 * current resource owner: leaving in any way frees the slot and cancels the
 * request. A backend may have several. NULL: refused, and *error says why.
 */
extern M1Exchange *m1pg_exchange_try_open(const M1Request *request, m1_error *error);

#define M1PG_NO_EVENT	((m1w_type) 0)

/*
 * What has come, without waiting, or M1PG_NO_EVENT; sends on what was left of
 * the request. M1W_ERROR: the request has failed or the worker is lost, and
 * *error says why. *payload lives until the next call.
 */
extern m1w_type m1pg_exchange_poll(M1Exchange *exchange, const char **payload, Size *len, m1_error *error);
/* Sleeps until something may have come on any exchange of this backend. Raises interrupts. */
extern void m1pg_exchange_wait(void);
/* Waits for the next event but progress; M1W_ERROR: *error. */
extern m1w_type m1pg_exchange_try_receive(M1Exchange *exchange, const char **payload, Size *len, m1_error *error);
/* The same, where a failure is raised. */
extern m1w_type m1pg_exchange_receive(M1Exchange *exchange, const char **payload, Size *len);
extern void m1pg_exchange_close(M1Exchange *exchange);
/* Makes the exchange outlive its resource owner: until it is closed, or the process ends. */
extern void m1pg_exchange_pin(M1Exchange *exchange);
/* Whether the request was in the engine when its last event came. */
extern bool m1pg_exchange_reached_engine(const M1Exchange *exchange);
/* Milliseconds that the request waited in the worker's queue. */
extern double m1pg_exchange_queue_ms(const M1Exchange *exchange);

#endif							/* M1PG_EXCHANGE_H */
