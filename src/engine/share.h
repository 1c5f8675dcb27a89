/*
 * share.h - how much of the step thread's time trainings take while it serves requests that others wait for: a ledger.
 *
 * Trainings want two things of it, answers and lessons, which take turns where both are wanted. What one turn takes is
 * saved up first, so that a short request meets none. The time that nobody else wanted is free, and counts for nothing.
 * All times are in ms. A ledger belongs to one engine.
 */
#ifndef M1_ENGINE_SHARE_H
#define M1_ENGINE_SHARE_H

#include <stdbool.h>

typedef enum m1_share_user
{
	M1_SHARE_REQUESTS, /* of trainings, which take part in a step */
	M1_SHARE_LESSONS,  /* a piece of one, between two steps */
	M1_SHARE_USERS
} m1_share_user;

typedef struct m1_share
{
	double share;				 /* of the time, in [0, 1) */
	double credit;				 /* that trainings may take now; below 0: they have taken more */
	double cost[M1_SHARE_USERS]; /* that a turn takes, about */
	bool wants[M1_SHARE_USERS];
	m1_share_user last; /* whose turn was the last */
	bool alone;			/* the step before had tokens of others only */
	int others;			/* as the last such one had so many, */
	double others_ms;	/* one of them takes so long */
} m1_share;

/* Whether there is work for a user of the ledger now. */
void m1_share_want(m1_share *s, m1_share_user user, bool wants);
bool m1_share_is_wanted(const m1_share *s);
/* Whether it may take its turn beside others. Answers never do in two steps running: the one between is measured. */
bool m1_share_has_turn(const m1_share *s, m1_share_user user);

/* A step beside which nobody but trainings wanted anything; background: tokens of theirs. */
void m1_share_free_step(m1_share *s, int background, double ms);
/* A step of so many tokens of others, and of trainings beside them. */
void m1_share_step(m1_share *s, int others, int background, double ms);
/* A piece of a lesson; beside: others are served. */
void m1_share_piece(m1_share *s, bool beside, double ms);

#endif
