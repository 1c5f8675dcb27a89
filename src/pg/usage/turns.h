/*
 * turns.h - whose turn it is, where several roles want places of which there are few (turns.c).
 *
 * Whoever gives places away counts anew before it does: who holds some, and who
 * waits for some. What is kept in between is how often each was served.
 */
#ifndef M1PG_TURNS_H
#define M1PG_TURNS_H

#include "pg/m1pg.h"

#include "utils/hsearch.h"

/* A role among others that want the same. */
typedef struct M1Turn
{
	Oid			role;			/* hash key */
	int			share;			/* how many places it gets where another gets one */
	int			held;			/* places that it has */
	int			waiting;		/* requests that wait for one */
	double		pass;			/* grows by 1 / share with each place that it gets */
} M1Turn;

typedef struct M1Turns
{
	HTAB	   *roles;
	double		now;			/* the pass of who was served last: who comes new begins there */
} M1Turns;

extern void m1pg_turns_init(M1Turns *turns, const char *name);
/* Forgets who holds and who waits. */
extern void m1pg_turns_recount(M1Turns *turns);
/* The role, to count what it holds and waits for. */
extern M1Turn *m1pg_turn_of(M1Turns *turns, Oid role, int share);
/* Who is next of those that wait; NULL when nobody does. */
extern M1Turn *m1pg_turns_next(M1Turns *turns);
/* It has got a place that it waited for. */
extern void m1pg_turn_take(M1Turns *turns, M1Turn *turn);

#endif							/* M1PG_TURNS_H */
