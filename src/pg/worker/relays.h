/*
 * relays.h - a request in the worker's memory, for those who look after it: relay.c, which has the table, and places.c.
 */
#ifndef M1PG_RELAYS_H
#define M1PG_RELAYS_H

#include "pg/shared.h"
#include "pg/usage/usage.h"
#include "pg/worker/answer.h"

#include "storage/dsm.h"
#include "storage/shm_mq.h"
#include "utils/hsearch.h"

typedef enum M1RelayState
{
	RELAY_WAITING,				/* for a place in the engine's batch */
	RELAY_READING,				/* admitted; its message is being received and passed on */
	RELAY_RUNNING,				/* in the engine */
	RELAY_ENDING,				/* the last event is being delivered */
	RELAY_ABANDONED,			/* the client is gone; the engine has not confirmed yet */
} M1RelayState;

typedef struct M1Relay
{
	uint64		request;		/* hash key, and the id the engine knows */
	M1Slot	   *slot;			/* the request's, as long as it has the same number */
	m1w_type	type;
	int			share;			/* of its role, when places are given away */
	bool		background;		/* others come first then: it is a training's */
	M1RelayState state;
	bool		in_engine;		/* it was forwarded and has not ended there */
	bool		cancelled;		/* CANCEL was sent to the engine */
	TimestampTz paused_since;	/* 0 = it is not paused */
	TimestampTz submitted_at;
	TimestampTz forwarded_at;
	TimestampTz deadline;
	dsm_segment *segment;		/* NULL once the client is gone */
	shm_mq_handle *requests;
	shm_mq_handle *events;
	M1Slot	   *last;			/* in the segment: what the slot was, for when it is freed here */
	m1_buf		pending;		/* undelivered messages, each behind its length */
	m1w_assembly question;		/* how much of it has gone to the engine; nothing of it is kept */
	m1w_assembly answer;		/* what has come of a message that is not complete, if that is kept here */
	M1Asked		asked;			/* what its answers are judged by */
	M1Account	account;		/* what it uses, and how it ends */
} M1Relay;

/* By request. */
extern HTAB *m1pg_relays;

#endif							/* M1PG_RELAYS_H */
