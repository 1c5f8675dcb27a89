/*
 * places.c
 *	  Who gets the engine's places: those of its batch, and those of its tokenizer.
 *	  Roles take turns; a role's own requests go in order of arrival.
 *
 *	  A running request is stopped for nobody: its state, which is large, would
 *	  have to stay. So the batch has some places more, for the first requests of
 *	  roles when all others are taken.
 *
 *	  Called by the worker's loop, each time that it goes round.
 */
#include "pg/worker/places.h"
#include "pg/settings.h"
#include "pg/usage/turns.h"
#include "pg/worker/relay.h"
#include "pg/worker/relays.h"

/* The engine has threads for more, but no processors: it gets no more of that at once than does not slow the rest. */
#define TOKENIZER_PLACES	8

/* Who gets the engine's places: those of its batch, and those of its tokenizer. */
typedef struct Places
{
	int			n;
	int			reserved;		/* beyond them, for roles that hold none */
	M1Turns		turns;
} Places;

static Places batch_places;
static Places tokenizer_places;

bool		m1pg_places_wanted = false;

void
m1pg_places_init(void)
{
	batch_places.n = m1pg_max_requests;
	batch_places.reserved = m1pg_reserved_requests;
	m1pg_turns_init(&batch_places.turns, "minimax_m1 turns in the batch");
	tokenizer_places.n = TOKENIZER_PLACES;
	m1pg_turns_init(&tokenizer_places.turns, "minimax_m1 turns at the tokenizer");
}

static Places *
places_of(const M1Relay *r)
{
	return m1pg_runs_model(r->type) ? &batch_places : &tokenizer_places;
}

static bool
holds_a_place(const M1Relay *r)
{
	return r->in_engine || r->state == RELAY_READING;
}

int
m1pg_relays_running(void)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	int			n = 0;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		n += holds_a_place(r);
	return n;
}

static M1Relay *
first_waiting(const Places *places, Oid role)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	M1Relay	   *first = NULL;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		if (r->state == RELAY_WAITING && r->account.role == role && places_of(r) == places &&
			(first == NULL || r->request < first->request))
			first = r;
	return first;
}

/* Counts who holds places and who waits for them. Returns how many are free; minus how many reserved ones are not. */
static int
count_places(Places *places)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	int			free = places->n;

	m1pg_turns_recount(&places->turns);
	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
	{
		if (places_of(r) != places || !(r->state == RELAY_WAITING || holds_a_place(r)))
			continue;
		if (r->state == RELAY_WAITING)
			m1pg_turn_of(&places->turns, r->account.role, r->share)->waiting++;
		else
		{
			m1pg_turn_of(&places->turns, r->account.role, r->share)->held++;
			free--;
		}
	}
	return free;
}

static void
admit(Places *places)
{
	int			free = count_places(places);
	M1Turn	   *turn;

	/* who holds none comes before who holds some, so nobody is overlooked when the reserved ones begin */
	while ((turn = m1pg_turns_next(&places->turns)) != NULL && free > (turn->held == 0 ? -places->reserved : 0))
	{
		first_waiting(places, turn->role)->state = RELAY_READING;
		m1pg_turn_take(&places->turns, turn);
		free--;
	}
}

void
m1pg_places_give(void)
{
	admit(&batch_places);
	admit(&tokenizer_places);
	m1pg_places_wanted = m1pg_turns_next(&batch_places.turns) != NULL;
}
