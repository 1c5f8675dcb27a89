/*
 * places.c
 *	  Who gets the engine's places: those of its batch, and those of its tokenizer.
 *	  Roles take turns; a role's own requests go in order of arrival.
 *
 *	  A running request is stopped for nobody: its state, which is large, would
 *	  have to stay. So the batch has some places more, for the first requests of
 *	  roles when all others are taken.
 *
 *	  Requests in the background, which trainings make, take turns among
 *	  themselves, for what nobody else waits for: for all places while there is
 *	  nobody else, for half of them otherwise, and for one at least, so that they
 *	  go on. In the engine they have a share of the time: see engine/share.h.
 *
 *	  Called by the worker's loop, each time that it goes round.
 */
#include "pg/worker/places.h"
#include "pg/settings.h"
#include "pg/usage/turns.h"
#include "pg/worker/relay.h"
#include "pg/worker/relays.h"

#include "utils/timestamp.h"

/* The engine has threads for more, but no processors: it gets no more of that at once than does not slow the rest. */
#define TOKENIZER_PLACES	8

/* Others are about as long as this after their last request: who asks again and again finds the places that he had. */
#define ABOUT_MS			1000

/* Those that wait for places of one kind, and take turns. */
typedef struct Queue
{
	M1Turns		turns;
	int			held;			/* places that they have */
} Queue;

/* Who gets the engine's places: those of its batch, and those of its tokenizer. */
typedef struct Places
{
	int			n;
	int			reserved;		/* beyond them, for roles that hold none */
	Queue		front;
	Queue		background;		/* whose turn comes when nobody waits in front */
	TimestampTz others;			/* when somebody was in front, for the last time */
} Places;

static Places batch_places;
static Places tokenizer_places;

bool		m1pg_places_wanted = false;

void
m1pg_places_init(void)
{
	batch_places.n = m1pg_max_requests;
	batch_places.reserved = m1pg_reserved_requests;
	m1pg_turns_init(&batch_places.front.turns, "minimax_m1 turns in the batch");
	m1pg_turns_init(&batch_places.background.turns, "minimax_m1 turns in the background");
	tokenizer_places.n = TOKENIZER_PLACES;
	m1pg_turns_init(&tokenizer_places.front.turns, "minimax_m1 turns at the tokenizer");
	m1pg_turns_init(&tokenizer_places.background.turns, "minimax_m1 turns behind the tokenizer");
}

static Places *
places_of(const M1Relay *r)
{
	return m1pg_runs_model(r->type) ? &batch_places : &tokenizer_places;
}

static Queue *
queue_of(const M1Relay *r)
{
	return r->background ? &places_of(r)->background : &places_of(r)->front;
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
first_waiting(const Queue *queue, Oid role)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;
	M1Relay	   *first = NULL;

	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
		if (r->state == RELAY_WAITING && r->account.role == role && queue_of(r) == queue &&
			(first == NULL || r->request < first->request))
			first = r;
	return first;
}

static void
recount(Queue *queue)
{
	m1pg_turns_recount(&queue->turns);
	queue->held = 0;
}

/* Counts who holds places and who waits for them. */
static void
count_places(Places *places)
{
	HASH_SEQ_STATUS scan;
	M1Relay	   *r;

	recount(&places->front);
	recount(&places->background);
	hash_seq_init(&scan, m1pg_relays);
	while ((r = hash_seq_search(&scan)) != NULL)
	{
		M1Turn	   *turn;

		if (places_of(r) != places || !(r->state == RELAY_WAITING || holds_a_place(r)))
			continue;
		turn = m1pg_turn_of(&queue_of(r)->turns, r->account.role, r->share);
		if (r->state == RELAY_WAITING)
			turn->waiting++;
		else
		{
			turn->held++;
			queue_of(r)->held++;
		}
	}
}

/* How many places are free; minus how many reserved ones are not. */
static int
free_places(const Places *places)
{
	return places->n - places->front.held - places->background.held;
}

static void
give(Queue *queue, M1Turn *turn)
{
	first_waiting(queue, turn->role)->state = RELAY_READING;
	m1pg_turn_take(&queue->turns, turn);
	queue->held++;
}

static void
admit_front(Places *places)
{
	Queue	   *queue = &places->front;
	M1Turn	   *turn;

	/* who holds none comes before who holds some, so nobody is overlooked when the reserved ones begin */
	while ((turn = m1pg_turns_next(&queue->turns)) != NULL &&
		   free_places(places) > (turn->held == 0 ? -places->reserved : 0))
		give(queue, turn);
}

/* Up to so many places, as far as some are free. */
static void
admit_background(Places *places, int most)
{
	Queue	   *queue = &places->background;
	M1Turn	   *turn;

	while (queue->held < most && free_places(places) > 0 && (turn = m1pg_turns_next(&queue->turns)) != NULL)
		give(queue, turn);
}

static bool
others_are_about(Places *places)
{
	TimestampTz now = GetCurrentTimestamp();

	if (places->front.held > 0 || m1pg_turns_next(&places->front.turns) != NULL)
		places->others = now;
	return !TimestampDifferenceExceeds(places->others, now, ABOUT_MS);
}

static void
admit(Places *places)
{
	count_places(places);
	admit_background(places, 1);
	admit_front(places);
	admit_background(places, others_are_about(places) ? places->n / 2 : places->n);
}

void
m1pg_places_give(void)
{
	admit(&batch_places);
	admit(&tokenizer_places);
	m1pg_places_wanted = m1pg_turns_next(&batch_places.front.turns) != NULL ||
		(free_places(&batch_places) <= 0 && m1pg_turns_next(&batch_places.background.turns) != NULL);
}
