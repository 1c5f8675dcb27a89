/*
 * views.c
 *	  What the activity and model views read, and cancel().
 */
#include "pg/report.h"
#include "pg/rows.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"

#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(m1pg_activity);
PG_FUNCTION_INFO_V1(m1pg_model_info);
PG_FUNCTION_INFO_V1(m1pg_cancel);

static Datum
timestamp_or_null(TimestampTz t, bool *isnull)
{
	*isnull = t == 0;
	return TimestampTzGetDatum(t);
}

/* A copy of the table, so that rows are made without the lock. */
static M1Slot *
copy_slots(int *n)
{
	M1Slot	   *slots;

	*n = m1pg_shared->n_slots;
	slots = palloc_extended(*n * sizeof *slots, MCXT_ALLOC_HUGE);
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	memcpy(slots, m1pg_shared->slots, *n * sizeof *slots);
	LWLockRelease(m1pg_shared->lock);
	return slots;
}

static bool
is_waiting(const M1Slot *slot)
{
	return slot->state == M1_SLOT_CLAIMED || slot->state == M1_SLOT_SUBMITTED || slot->state == M1_SLOT_QUEUED;
}

static const char *
state_name(const M1Slot *slot)
{
	if (is_waiting(slot) || slot->phase == M1W_PHASE_QUEUED)
		return "queued";
	return slot->phase == M1W_PHASE_PREFILL ? "prefill" : "decode";
}

/* ---- positions in the queue ---- */

/* What requests wait for: see worker/places.c. */
typedef enum Queue
{
	QUEUE_OF_TOKENIZER,
	QUEUE_OF_BATCH,
	QUEUE_BEHIND				/* the batch, too, when nobody else waits for it */
} Queue;

/* A request that waits. */
typedef struct Waiting
{
	const M1Slot *slot;
	Queue		queue;
	double		turn;			/* how many places its role has by then, for its share: see turns.c */
} Waiting;

static Queue
queue_of(const M1Slot *slot)
{
	if (!m1pg_runs_model(slot->type))
		return QUEUE_OF_TOKENIZER;
	return slot->background ? QUEUE_BEHIND : QUEUE_OF_BATCH;
}

static int
compare(double a, double b)
{
	return (a > b) - (a < b);
}

/* Role by role, and each role's own in order of arrival. */
static int
by_role(const void *a, const void *b)
{
	const Waiting *wa = a;
	const Waiting *wb = b;

	if (wa->queue != wb->queue)
		return compare(wa->queue, wb->queue);
	if (wa->slot->userid != wb->slot->userid)
		return compare(wa->slot->userid, wb->slot->userid);
	return (wa->slot->request > wb->slot->request) - (wa->slot->request < wb->slot->request);
}

static int
by_turn(const void *a, const void *b)
{
	const Waiting *wa = a;
	const Waiting *wb = b;

	if (wa->queue != wb->queue)
		return compare(wa->queue, wb->queue);
	if (wa->turn != wb->turn)
		return compare(wa->turn, wb->turn);
	return (wa->slot->request > wb->slot->request) - (wa->slot->request < wb->slot->request);
}

static int
places_held(const M1Slot *slots, int n, const Waiting *w)
{
	int			held = 0;

	for (int i = 0; i < n; i++)
		held += slots[i].state == M1_SLOT_RUNNING && slots[i].userid == w->slot->userid &&
			queue_of(&slots[i]) == w->queue;
	return held;
}

/* Whether they want places of the same kind. */
static bool
same_places(const Waiting *a, const Waiting *b)
{
	return (a->queue == QUEUE_OF_TOKENIZER) == (b->queue == QUEUE_OF_TOKENIZER);
}

/* For each slot that waits: 1 for the next to be admitted, as far as that can be told. Others may come before it. */
static int *
queue_positions(const M1Slot *slots, int n)
{
	int		   *positions = palloc0(n * sizeof *positions);
	Waiting    *waiting = palloc(n * sizeof *waiting);
	int			n_waiting = 0;

	for (int i = 0; i < n; i++)
		if (is_waiting(&slots[i]))
			waiting[n_waiting++] = (Waiting) {&slots[i], queue_of(&slots[i])};
	qsort(waiting, n_waiting, sizeof *waiting, by_role);
	for (int i = 0, taken = 0; i < n_waiting; i++, taken++)
	{
		Waiting    *w = &waiting[i];

		if (i == 0 || w->queue != w[-1].queue || w->slot->userid != w[-1].slot->userid)
			taken = places_held(slots, n, w);
		w->turn = (double) taken / w->slot->share;
	}
	qsort(waiting, n_waiting, sizeof *waiting, by_turn);
	for (int i = 0; i < n_waiting; i++)
		positions[waiting[i].slot - slots] =
			i > 0 && same_places(&waiting[i], &waiting[i - 1]) ? positions[waiting[i - 1].slot - slots] + 1 : 1;
	return positions;
}

/* ---- the views ---- */

Datum
m1pg_activity(PG_FUNCTION_ARGS)
{
	enum
	{
		REQUEST, PID, USESYSID, DATID, FUNCTION, STATE, POSITION, PROMPT_TOKENS, PREFILLED, GENERATED,
		SUBMITTED_AT, STATE_SINCE, PROMPT, N_COLUMNS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	M1Slot	   *slots;
	int		   *positions;
	int			n;

	m1pg_start_rows(fcinfo);
	slots = copy_slots(&n);
	positions = queue_positions(slots, n);
	for (int i = 0; i < n; i++)
	{
		const M1Slot *slot = &slots[i];
		Datum		values[N_COLUMNS];
		bool		nulls[N_COLUMNS] = {false};

		if (slot->state == M1_SLOT_FREE)
			continue;
		values[REQUEST] = Int64GetDatum((int64) slot->request);
		values[PID] = Int32GetDatum(slot->pid);
		values[USESYSID] = ObjectIdGetDatum(slot->userid);
		values[DATID] = ObjectIdGetDatum(slot->databaseid);
		values[FUNCTION] = CStringGetTextDatum(slot->function);
		values[STATE] = CStringGetTextDatum(state_name(slot));
		nulls[POSITION] = !is_waiting(slot);
		values[POSITION] = Int32GetDatum(positions[i]);
		nulls[PROMPT_TOKENS] = slot->prompt_tokens == 0;
		values[PROMPT_TOKENS] = Int32GetDatum(slot->prompt_tokens);
		values[PREFILLED] = Int32GetDatum(slot->prefilled);
		values[GENERATED] = Int32GetDatum(slot->generated);
		values[SUBMITTED_AT] = timestamp_or_null(slot->submitted_at, &nulls[SUBMITTED_AT]);
		values[STATE_SINCE] = timestamp_or_null(slot->state_since, &nulls[STATE_SINCE]);
		/* the excerpt is in the encoding of the database it came from */
		nulls[PROMPT] = slot->excerpt[0] == '\0' || !m1pg_may_see(slot->userid) || slot->databaseid != MyDatabaseId;
		values[PROMPT] = CStringGetTextDatum(nulls[PROMPT] ? "" : slot->excerpt);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static const char *
engine_state_name(M1EngineState state)
{
	switch (state)
	{
		case M1_ENGINE_READY:
			return "ready";
		case M1_ENGINE_DRAINING:
			return "draining";
		case M1_ENGINE_FAILED:
			return "failed";
		default:
			return "loading";
	}
}

Datum
m1pg_model_info(PG_FUNCTION_ARGS)
{
	enum
	{
		NAME, ARCHITECTURE, PARAMETERS, LAYERS, EXPERTS, DEVICE, CONTEXT, BYTES, STATE, ENGINE_RESTARTS,
		ENGINE_PID, LAST_ERROR, NEXT_TRY, N_COLUMNS
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS] = {false};
	M1ModelInfo info;
	bool		known;

	m1pg_start_rows(fcinfo);
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	info = m1pg_shared->model;
	if (m1pg_shared->worker == NULL)
		info.readiness.state = M1_ENGINE_STARTING;
	LWLockRelease(m1pg_shared->lock);
	/* facts of a model are facts only while it is there */
	known = m1pg_engine_serves(info.readiness.state);
	for (int i = NAME; i <= BYTES; i++)
		nulls[i] = !known;
	values[NAME] = CStringGetTextDatum(m1pg_displayable(info.name));
	values[ARCHITECTURE] = CStringGetTextDatum(m1pg_displayable(info.architecture));
	values[PARAMETERS] = Int64GetDatum((int64) info.parameters);
	values[LAYERS] = Int32GetDatum(info.layers);
	values[EXPERTS] = Int32GetDatum(info.experts);
	values[DEVICE] = CStringGetTextDatum(m1pg_displayable(info.device));
	values[CONTEXT] = Int32GetDatum(info.context);
	values[BYTES] = Int64GetDatum((int64) info.bytes);
	values[STATE] = CStringGetTextDatum(engine_state_name(info.readiness.state));
	values[ENGINE_RESTARTS] = Int64GetDatum(info.restarts);
	nulls[ENGINE_PID] = info.readiness.pid == 0;
	values[ENGINE_PID] = Int32GetDatum(info.readiness.pid);
	nulls[LAST_ERROR] = info.readiness.error.code == M1_OK;
	values[LAST_ERROR] = CStringGetTextDatum(m1pg_displayable(info.readiness.error.message));
	values[NEXT_TRY] = timestamp_or_null(info.readiness.next_try, &nulls[NEXT_TRY]);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

static M1Slot *
find_slot(int64 request)
{
	for (int i = 0; i < m1pg_shared->n_slots; i++)
		if (m1pg_shared->slots[i].state != M1_SLOT_FREE && m1pg_shared->slots[i].request == (uint64) request)
			return &m1pg_shared->slots[i];
	return NULL;
}

/* Who may cancel a request is who may cancel its session's query. */
static bool
may_cancel(Oid owner)
{
	if (superuser_arg(owner) && !superuser())
		return false;
	return has_privs_of_role(GetUserId(), owner) || has_privs_of_role(GetUserId(), ROLE_PG_SIGNAL_BACKEND);
}

Datum
m1pg_cancel(PG_FUNCTION_ARGS)
{
	int64		request = PG_GETARG_INT64(0);
	M1Slot	   *slot;
	Oid			owner = InvalidOid;
	bool		found = false;

	m1pg_require_shared();
	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	if ((slot = find_slot(request)) != NULL)
		owner = slot->userid;
	LWLockRelease(m1pg_shared->lock);
	if (slot == NULL)
		PG_RETURN_BOOL(false);
	if (!may_cancel(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("minimax_m1: must be the owner of the request or a member of pg_signal_backend to cancel it")));
	LWLockAcquire(m1pg_shared->lock, LW_EXCLUSIVE);
	/* requests are never numbered twice, so this is still the one that was checked, or none */
	if ((slot = find_slot(request)) != NULL)
	{
		slot->cancel = true;
		found = true;
	}
	LWLockRelease(m1pg_shared->lock);
	m1pg_wake_worker();
	PG_RETURN_BOOL(found);
}
