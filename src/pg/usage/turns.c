/*
 * turns.c
 *	  Whose turn it is, where several roles want places of which there are few:
 *	  requests in the engine, jobs in flight.
 *
 *	  A place goes to the role that holds the fewest for its share, so that a role
 *	  with long requests does not end up with all of them. Among equals it goes to
 *	  who was served least, also for its share: with one place, roles alternate.
 *	  A role that comes new begins where the others are. It has no claim to what
 *	  was served while it did not ask, and it is not remembered for longer than it
 *	  is ahead of the others.
 *
 *	  Memory of one process: the worker has some, and each job runner.
 */
#include "pg/usage/turns.h"

#include "utils/memutils.h"

void
m1pg_turns_init(M1Turns *turns, const char *name)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(M1Turn), .hcxt = TopMemoryContext};

	turns->roles = hash_create(name, 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	turns->now = 0;
}

void
m1pg_turns_recount(M1Turns *turns)
{
	HASH_SEQ_STATUS scan;
	M1Turn	   *t;

	hash_seq_init(&scan, turns->roles);
	while ((t = hash_seq_search(&scan)) != NULL)
	{
		bool		idle = t->held == 0 && t->waiting == 0;

		t->held = t->waiting = 0;
		if (idle && t->pass <= turns->now)
			hash_search(turns->roles, &t->role, HASH_REMOVE, NULL);
	}
}

M1Turn *
m1pg_turn_of(M1Turns *turns, Oid role, int share)
{
	bool		found;
	M1Turn	   *t = hash_search(turns->roles, &role, HASH_ENTER, &found);

	if (!found)
	{
		t->held = t->waiting = 0;
		t->pass = turns->now;
	}
	t->share = Max(share, 1);
	return t;
}

static bool
comes_before(const M1Turn *a, const M1Turn *b)
{
	double		held_a = (double) a->held / a->share;
	double		held_b = (double) b->held / b->share;

	if (held_a != held_b)
		return held_a < held_b;
	return a->pass < b->pass;
}

M1Turn *
m1pg_turns_next(M1Turns *turns)
{
	HASH_SEQ_STATUS scan;
	M1Turn	   *t;
	M1Turn	   *next = NULL;

	hash_seq_init(&scan, turns->roles);
	while ((t = hash_seq_search(&scan)) != NULL)
		if (t->waiting > 0 && (next == NULL || comes_before(t, next)))
			next = t;
	return next;
}

void
m1pg_turn_take(M1Turns *turns, M1Turn *turn)
{
	turn->waiting--;
	turn->held++;
	/* it may not have waited while others were served */
	turn->pass = Max(turn->pass, turns->now);
	turns->now = turn->pass;
	turn->pass += 1.0 / turn->share;
}
