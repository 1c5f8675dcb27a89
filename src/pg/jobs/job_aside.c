/*
 * job_aside.c
 *	  Whose jobs a runner does not take for a while, so that others go on: owners of
 *	  jobs, annotators, and owners of annotated tables. It is known to this process
 *	  alone: the next one learns it anew. Only who has ended a runner is remembered
 *	  for all of them.
 */
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_shared.h"
#include "pg/settings.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Beyond this a row is slow, and to take jobs. */
#define SLOW_MS				250
#define SLOW_CLAIM_MS		50
#define CLAIM_FACTOR		10
/* How many times as long its annotator waits, which so keeps that share of time, and its table's owner. */
#define ANNOTATOR_FACTOR	10
/* How many times as long it then comes behind all that are not slow. */
#define SLOW_FACTOR			100
#define OWNER_FACTOR		1
/* However often an annotator's rows have ended the runner, it waits no longer. */
#define MOST_ASIDE_MS		3600000

typedef struct Aside
{
	uint32		id;				/* of a role or an annotator */
	TimestampTz until;
} Aside;

typedef struct AsideList
{
	Aside	   *members;
	int			n;
} AsideList;

static AsideList owners = {NULL, 0};
static AsideList slow_queues = {NULL, 0};
static AsideList annotators = {NULL, 0};
static AsideList table_owners = {NULL, 0};
static AsideList slow = {NULL, 0};

static void
admit(AsideList *list, uint32 id)
{
	for (int i = 0; i < list->n; i++)
		if (list->members[i].id == id)
			list->members[i--] = list->members[--list->n];
}

/* 0 = not at all. */
static TimestampTz
aside_until(const AsideList *list, uint32 id)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < list->n; i++)
		if (list->members[i].id == id && now < list->members[i].until)
			return list->members[i].until;
	return 0;
}

/* For so long, or as long as it is already. */
static void
put_aside(AsideList *list, uint32 id, TimestampTz from, int64 ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(from, ms);
	Size		size = (list->n + 1) * sizeof *list->members;

	until = Max(until, aside_until(list, id));
	admit(list, id);
	list->members = list->members == NULL ? MemoryContextAlloc(TopMemoryContext, size) : repalloc(list->members, size);
	list->members[list->n].id = id;
	list->members[list->n++].until = until;
}

/* Forgets those whose time is over. */
static Datum
ids_of(AsideList *list, Oid type)
{
	Datum	   *ids = palloc(Max(list->n, 1) * sizeof *ids);
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	for (int i = 0; i < list->n; i++)
		if (now < list->members[i].until)
		{
			ids[n] = UInt32GetDatum(list->members[i].id);
			list->members[n++] = list->members[i];
		}
	list->n = n;
	return PointerGetDatum(construct_array(ids, n, type, sizeof(uint32), true, TYPALIGN_INT));
}

void
m1pg_refuse_owner(Oid owner)
{
	put_aside(&owners, owner, GetCurrentTimestamp(), m1pg_job_retry_delay);
}

void
m1pg_admit_owner(Oid owner)
{
	admit(&owners, owner);
}

bool
m1pg_owner_is_refused(Oid owner)
{
	return aside_until(&owners, owner) != 0;
}

void
m1pg_charge_claim(Oid owner, int64 ms)
{
	if (ms > SLOW_CLAIM_MS)
		put_aside(&slow_queues, owner, GetCurrentTimestamp(), CLAIM_FACTOR * ms);
}

bool
m1pg_queue_is_slow(Oid owner)
{
	return aside_until(&slow_queues, owner) != 0;
}

bool
m1pg_any_queue_is_slow(void)
{
	for (int i = 0; i < slow_queues.n; i++)
		if (m1pg_queue_is_slow(slow_queues.members[i].id))
			return true;
	return false;
}

static void
charge_at(TimestampTz when, int annotator, Oid table_owner, int64 ms, int64 owner_ms)
{
	put_aside(&annotators, (uint32) annotator, when, ANNOTATOR_FACTOR * ms);
	put_aside(&slow, (uint32) annotator, when, SLOW_FACTOR * ms);
	if (OidIsValid(table_owner))
		put_aside(&table_owners, table_owner, when, OWNER_FACTOR * owner_ms);
}

void
m1pg_charge_time(int annotator, Oid table_owner, int64 ms)
{
	if (ms > SLOW_MS)
		charge_at(GetCurrentTimestamp(), annotator, table_owner, ms, ms);
}

/* As how much time an end counts. */
static int64
time_of_end(int times)
{
	int64		ms = 2 * m1pg_job_write_timeout;

	for (int i = 1; i < times && ms < MOST_ASIDE_MS / ANNOTATOR_FACTOR; i++)
		ms *= 2;
	return Min(ms, MOST_ASIDE_MS / ANNOTATOR_FACTOR);
}

void
m1pg_charge_end(int annotator, Oid table_owner)
{
	M1Ender		known[M1PG_ENDERS];
	const int	n = m1pg_runner_enders(known);
	M1Ender		ender = {.annotator = annotator, .table_owner = table_owner, .last = GetCurrentTimestamp()};

	/* who has behaved for as long as it had to wait begins anew */
	for (int i = 0; i < n; i++)
		if (known[i].annotator == annotator &&
			!TimestampDifferenceExceeds(known[i].last, ender.last,
										2 * ANNOTATOR_FACTOR * (int) time_of_end(known[i].times)))
			ender.times = known[i].times;
	ender.times++;
	m1pg_runner_remember_ender(&ender);
	m1pg_recall_ends();
}

void
m1pg_recall_ends(void)
{
	M1Ender		enders[M1PG_ENDERS];
	const int	n = m1pg_runner_enders(enders);

	for (int i = 0; i < n; i++)
		charge_at(enders[i].last, enders[i].annotator, enders[i].table_owner, time_of_end(enders[i].times),
				  time_of_end(1));
}

TimestampTz
m1pg_aside_until(int annotator, Oid table_owner)
{
	return Max(aside_until(&annotators, (uint32) annotator), aside_until(&table_owners, table_owner));
}

Datum
m1pg_annotators_aside(void)
{
	return ids_of(&annotators, INT4OID);
}

Datum
m1pg_slow_annotators(void)
{
	return ids_of(&slow, INT4OID);
}

bool
m1pg_has_slow_annotators(void)
{
	return slow.n > 0;
}

Datum
m1pg_table_owners_aside(void)
{
	return ids_of(&table_owners, OIDOID);
}
