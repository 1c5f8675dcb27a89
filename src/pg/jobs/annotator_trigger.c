/*
 * annotator_trigger.c
 *	  The triggers of annotators. AFTER, of an asynchronous one: queues the row,
 *	  in the same transaction. BEFORE: a synchronous one fills the row; one with a
 *	  status column marks it as pending; that of a partitioned table queues what is
 *	  updated, because an update that moves a row is no update to AFTER triggers.
 *
 *	  They run as whoever changes the row, who needs no right on the queue.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/client/template.h"
#include "pg/client/texts.h"
#include "pg/jobs/annotator.h"
#include "pg/jobs/annotator_rows.h"
#include "pg/jobs/corrections.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/job_shared.h"
#include "pg/jobs/partition_rows.h"
#include "pg/report.h"

#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(m1pg_enqueue_annotation);
PG_FUNCTION_INFO_V1(m1pg_annotate_row);

/* What one trigger on one relation needs, made once a statement. */
typedef struct TriggerState
{
	M1Annotator *annotator;		/* NULL: there is none of that name */
	M1BoundTemplate template;
	int			target;
	int			reasoning;		/* 0 = none, as the next */
	int			status;
	int			keys[INDEX_MAX_KEYS];
	bool		partition;		/* the relation is a partition of the annotated table */
	M1PartitionCheck *check;	/* of the annotated table; NULL = it is no partition */
	HeapTuple	proposed;		/* filled last for an INSERT, which may become an UPDATE; NULL = none */
} TriggerState;

/* ---- set-up ---- */

static void
check_call(FunctionCallInfo fcinfo, bool before)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!(before ? TRIGGER_FIRED_BEFORE(data->tg_event) : TRIGGER_FIRED_AFTER(data->tg_event)) ||
		!(TRIGGER_FIRED_BY_INSERT(data->tg_event) || TRIGGER_FIRED_BY_UPDATE(data->tg_event)) ||
		data->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("minimax_m1: this function is a trigger that minimax_m1.create_annotator() makes"),
				 errhint("Call minimax_m1.create_annotator(name, table, column, template).")));
}

/* A trigger that somebody made by hand must not queue rows of another table. */
static void
check_source(const M1Annotator *a, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	if (a->source == relid ||
		(rel->rd_rel->relispartition && list_member_oid(get_partition_ancestors(relid), a->source)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("minimax_m1: annotator \"%s\" is not for table \"%s\"", a->name, RelationGetRelationName(rel))));
}

static void
bind_columns(TriggerState *s, Relation rel)
{
	const M1Annotator *a = s->annotator;

	s->partition = a->source != RelationGetRelid(rel);
	s->check = m1pg_partition_check(a->source, rel, CurrentMemoryContext);
	m1pg_template_bind(&s->template, a->template, rel);
	s->target = m1pg_column_number(rel, a->target_column);
	s->reasoning = a->reasoning_column != NULL ? m1pg_column_number(rel, a->reasoning_column) : 0;
	s->status = a->status_column != NULL ? m1pg_column_number(rel, a->status_column) : 0;
	for (int i = 0; i < a->n_keys; i++)
		s->keys[i] = m1pg_column_number(rel, a->key_columns[i]);
}

/* The state that this trigger keeps for the statement. SPI is connected. */
static TriggerState *
trigger_state(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TriggerState *s = fcinfo->flinfo->fn_extra;
	const char *name = data->tg_trigger->tgargs[0];
	MemoryContext old;

	if (s != NULL)
		return s;
	s = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof *s);
	s->annotator = m1pg_annotator_load(name, 0, fcinfo->flinfo->fn_mcxt);
	if (s->annotator == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("minimax_m1: annotator \"%s\" does not exist", name),
				 errdetail("Rows of table \"%s\" are not annotated.", RelationGetRelationName(data->tg_relation)),
				 errhint("Create it, or drop the trigger \"%s\".", data->tg_trigger->tgname)));
	else
	{
		check_source(s->annotator, data->tg_relation);
		old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		bind_columns(s, data->tg_relation);
		MemoryContextSwitchTo(old);
	}
	fcinfo->flinfo->fn_extra = s;
	return s;
}

/* ---- which rows ---- */

static bool
is_null(HeapTuple row, TupleDesc tupdesc, int number)
{
	bool		isnull;

	(void) heap_getattr(row, number, tupdesc, &isnull);
	return isnull;
}

static bool
has_inputs(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	for (int i = 0; i < s->template.text.n; i++)
		if (is_null(row, tupdesc, s->template.number[i]))
			return false;
	return true;
}

static bool
same_key(const TriggerState *s, HeapTuple old, HeapTuple new, TupleDesc tupdesc)
{
	for (int i = 0; i < s->annotator->n_keys; i++)
		if (!m1pg_same_value(old, new, tupdesc, s->keys[i]))
			return false;
	return true;
}

/* An update: whether it writes something into the target itself. */
static bool
writes_target(const TriggerState *s, HeapTuple old, HeapTuple new, TupleDesc tupdesc)
{
	return !is_null(new, tupdesc, s->target) && !m1pg_same_value(old, new, tupdesc, s->target);
}

/*
 * Whether the row is to be annotated. What a statement itself writes into the
 * target is kept, so that a reload of annotated rows runs no model.
 */
static bool
needs_annotation(const TriggerState *s, TriggerData *data)
{
	TupleDesc	tupdesc = RelationGetDescr(data->tg_relation);
	HeapTuple	old = data->tg_trigtuple;
	HeapTuple	new = data->tg_newtuple;

	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return is_null(old, tupdesc, s->target) && has_inputs(s, old, tupdesc);
	/* a job that waits under the old key will not find the row */
	return !writes_target(s, old, new, tupdesc) &&
		(!same_key(s, old, new, tupdesc) || !m1pg_template_same_inputs(&s->template, old, new, tupdesc));
}

/* ---- keys, and what was changed by hand ---- */

static ArrayType *
row_key(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	Datum		values[INDEX_MAX_KEYS];

	for (int i = 0; i < s->annotator->n_keys; i++)
	{
		char	   *value = SPI_getvalue(row, tupdesc, s->keys[i]);

		values[i] = CStringGetTextDatum(value);
	}
	return construct_array(values, s->annotator->n_keys, TEXTOID, -1, false, TYPALIGN_INT);
}

static bool
has_key(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	for (int i = 0; i < s->annotator->n_keys; i++)
		if (is_null(row, tupdesc, s->keys[i]))
			return false;
	return true;
}

/* With keys as the job runner has them, whatever the session has set. */
static void
forget_correction(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);

	m1pg_forget_correction(s->annotator->id, row_key(s, row, tupdesc));
	m1pg_unbecome(&guard);
}

/*
 * INSERT ... ON CONFLICT DO UPDATE shows this trigger a row twice: as it was to be inserted, for which the model was
 * asked, and as it is to be updated, which may take over what the model answered.
 */
static void
keep_proposed(TriggerState *s, HeapTuple row, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	if (s->proposed != NULL)
		heap_freetuple(s->proposed);
	s->proposed = heap_copytuple(row);
	MemoryContextSwitchTo(old);
}

/*
 * Whether this is that update. No other statement inserts and updates one key; and where the conflict is about other
 * columns, the row has what the model answered to the same. Of one key, triggers may have changed it since.
 */
static bool
is_proposed(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	return s->proposed != NULL &&
		(same_key(s, s->proposed, row, tupdesc) ||
		 (m1pg_same_value(s->proposed, row, tupdesc, s->target) &&
		  m1pg_template_same_inputs(&s->template, s->proposed, row, tupdesc)));
}

/* What is applied from another server was written there, by whom nobody knows here. */
static bool
is_from_elsewhere(void)
{
	return SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA;
}

/* An update of the target by somebody, where the same is asked as before, corrects what was there. */
static void
follow_change(const TriggerState *s, TriggerData *data)
{
	TupleDesc	tupdesc = RelationGetDescr(data->tg_relation);
	HeapTuple	old = data->tg_trigtuple;
	HeapTuple	new = data->tg_newtuple;
	bool		same = m1pg_template_same_inputs(&s->template, old, new, tupdesc) && same_key(s, old, new, tupdesc);
	M1Guard		guard;
	char	   *prompt;

	if (m1pg_row_is_being_written() || is_null(old, tupdesc, s->target) || !has_key(s, old, tupdesc) ||
		(same && m1pg_same_value(old, new, tupdesc, s->target)))
		return;
	/* texts as the job runner has them, whatever the session has set */
	guard = m1pg_become(m1pg_extension_owner(), false);
	if (!same || is_null(new, tupdesc, s->target) || is_proposed(s, new, tupdesc) || is_from_elsewhere())
		m1pg_forget_correction(s->annotator->id, row_key(s, old, tupdesc));
	else if ((prompt = m1pg_template_render_row(&s->template, new, tupdesc)) != NULL)
		m1pg_note_correction(s->annotator->id, row_key(s, new, tupdesc), prompt,
							 SPI_getvalue(old, tupdesc, s->target));
	m1pg_unbecome(&guard);
}

/* ---- AFTER ---- */

static void
enqueue(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	static SPIPlanPtr plan = NULL;
	const M1Annotator *a = s->annotator;
	Oid			types[6] = {OIDOID, INT4OID, TEXTARRAYOID, TEXTOID, INT4OID, BYTEAOID};
	Datum		values[6];
	M1Guard		guard;

	/* seen before it is written: the primary key will refuse it */
	if (!has_key(s, row, tupdesc))
		return;
	guard = m1pg_become(m1pg_extension_owner(), false);
	if (plan == NULL)
	{
		plan = SPI_prepare("INSERT INTO minimax_m1.job (owner, annotator_id, key, state, max_attempts, target_hash) "
						   "VALUES ($1, $2, $3, $4, $5, $6)", 6, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "minimax_m1: could not prepare the queue's INSERT");
	}
	values[0] = ObjectIdGetDatum(a->owner);
	values[1] = Int32GetDatum(a->id);
	values[2] = PointerGetDatum(row_key(s, row, tupdesc));
	values[3] = CStringGetTextDatum(a->enabled ? "pending" : "held");
	values[4] = Int32GetDatum(a->max_attempts);
	values[5] = PointerGetDatum(m1pg_hash_target(SPI_getvalue(row, tupdesc, s->target)));
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "minimax_m1: could not queue a row");
	m1pg_unbecome(&guard);
	m1pg_queue_note();
}

Datum
m1pg_enqueue_annotation(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TriggerState *s;
	bool		update;

	check_call(fcinfo, false);
	update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	SPI_connect();
	s = trigger_state(fcinfo);
	/* a partition's updates were seen by the BEFORE trigger */
	if (s->annotator != NULL && update && !s->partition)
		follow_change(s, data);
	if (s->annotator != NULL && !(update && s->partition) && needs_annotation(s, data))
		enqueue(s, update ? data->tg_newtuple : data->tg_trigtuple, RelationGetDescr(data->tg_relation));
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* ---- the model, for a synchronous one ---- */

/* The right to use it is that of the annotator's owner. */
static m1_slice
adapter_of(const M1Annotator *a)
{
	m1_slice	found = {NULL, 0};
	M1Guard		guard;
	int			unused;

	if (a->adapter == NULL)
		return found;
	guard = m1pg_become(a->owner, false);
	found = m1pg_adapters->find(a->adapter, &unused);
	m1pg_unbecome(&guard);
	return found;
}

static HeapTuple
annotate_now(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	char	   *prompt = m1pg_template_render_row(&s->template, row, tupdesc);
	m1w_generate g = s->annotator->request;
	M1Result	result;
	m1_error	error;
	char	   *content = NULL;
	char	   *reasoning = NULL;

	g.seed = m1pg_new_seed();
	g.cache_owner = m1pg_cache_owner();
	if (prompt != NULL)
	{
		g.adapter = adapter_of(s->annotator);
		g.prompt = m1pg_to_utf8(prompt, strlen(prompt));
		m1pg_run(&g, "annotate", &result);
		if (g.constraint != M1W_CONSTRAINT_NONE && !m1pg_check_complete(&result.done, &error))
			m1pg_report(&error);
		content = text_to_cstring(m1pg_text_from_utf8(result.done.content));
		if (result.done.reasoning.len > 0)
			reasoning = text_to_cstring(m1pg_text_from_utf8(result.done.reasoning));
	}
	row = m1pg_set_column(row, tupdesc, s->target, content);
	if (s->reasoning != 0)
		row = m1pg_set_column(row, tupdesc, s->reasoning, reasoning);
	if (s->status != 0)
		row = m1pg_set_column(row, tupdesc, s->status, "done");
	return row;
}

/* ---- rows that wait ---- */

static bool
is_pending(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	char	   *status = s->status != 0 ? SPI_getvalue(row, tupdesc, s->status) : NULL;

	return status != NULL && strcmp(status, "pending") == 0;
}

/* Where there is no status column, nothing else tells that the row waits. */
static bool
is_queued(const TriggerState *s, HeapTuple row, TupleDesc tupdesc)
{
	Oid			types[2] = {INT4OID, TEXTARRAYOID};
	Datum		values[2];
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	bool		queued;

	values[0] = Int32GetDatum(s->annotator->id);
	values[1] = PointerGetDatum(row_key(s, row, tupdesc));
	queued = m1pg_query("SELECT FROM minimax_m1.job WHERE annotator_id = $1 AND key = $2 "
						"AND state IN ('pending', 'held', 'running') LIMIT 1", 2, types, values, NULL, false) > 0;
	m1pg_unbecome(&guard);
	return queued;
}

/* Whether an update leaves the row without an annotation of what it says. */
static bool
is_unanswered(const TriggerState *s, HeapTuple old, HeapTuple new, TupleDesc tupdesc)
{
	return !writes_target(s, old, new, tupdesc) &&
		(is_pending(s, new, tupdesc) || !m1pg_template_same_inputs(&s->template, old, new, tupdesc) ||
		 is_queued(s, old, tupdesc));
}

/* Whether a statement, not the runner, answers a row that waits: nobody else will write that it waits no longer. */
static bool
fills_waiting(const TriggerState *s, HeapTuple old, HeapTuple new, TupleDesc tupdesc)
{
	return !m1pg_row_is_being_written() && is_pending(s, new, tupdesc) && writes_target(s, old, new, tupdesc);
}

/* ---- BEFORE ---- */

/* What becomes of a row that is written. */
typedef enum Fate
{
	KEPT,						/* it is as the statement has it */
	ANNOTATED,					/* now, or by the runner */
	FILLED,						/* by the statement, while it waited */
	LEFT,						/* waiting, the partition that the annotator is for */
	LEFT_TO_ANOTHER				/* of those annotators that fill the target */
} Fate;

static Fate
fate_of(const TriggerState *s, TriggerData *data)
{
	Relation	rel = data->tg_relation;
	HeapTuple	old = data->tg_trigtuple;
	HeapTuple	new = data->tg_newtuple;
	bool		update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);

	if (s->annotator == NULL)
		return KEPT;
	if (update && fills_waiting(s, old, new, RelationGetDescr(rel)))
		return FILLED;
	if (!update || m1pg_row_fits(s->check, new))
		return needs_annotation(s, data) ? ANNOTATED : KEPT;
	if (!is_unanswered(s, old, new, RelationGetDescr(rel)))
		return KEPT;
	return m1pg_row_meets_another(s->annotator, rel, new) ? LEFT_TO_ANOTHER : LEFT;
}

/* What has to be known elsewhere. */
static void
tell(const TriggerState *s, TriggerData *data, HeapTuple row, Fate fate)
{
	const TupleDesc tupdesc = RelationGetDescr(data->tg_relation);
	bool		update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	bool		sync = s->annotator->sync;

	if (update && (sync || s->partition))
		follow_change(s, data);
	if (fate == ANNOTATED && !sync && s->partition && update)
		enqueue(s, row, tupdesc);
	/* an INSERT that then finds the row there loses a correction: better than a wrong one */
	if (fate == ANNOTATED && sync && s->annotator->enabled && has_key(s, row, tupdesc))
		forget_correction(s, row, tupdesc);
}

static HeapTuple
with_status(const TriggerState *s, HeapTuple row, TupleDesc tupdesc, char *status)
{
	return s->status != 0 ? m1pg_set_column(row, tupdesc, s->status, status) : row;
}

/*
 * One that leaves is nobody's where it goes, or another annotator's, to whom it
 * comes as one that is inserted: without a target, it is annotated there.
 */
static HeapTuple
meet_fate(const TriggerState *s, HeapTuple row, TupleDesc tupdesc, Fate fate)
{
	switch (fate)
	{
		case ANNOTATED:
			return s->annotator->sync ? row : with_status(s, row, tupdesc, "pending");
		case FILLED:
			return with_status(s, row, tupdesc, "done");
		case LEFT_TO_ANOTHER:
			row = m1pg_set_column(row, tupdesc, s->target, NULL);
			return with_status(s, row, tupdesc, "failed");
		case LEFT:
			return with_status(s, row, tupdesc, "failed");
		default:
			return row;
	}
}

Datum
m1pg_annotate_row(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	MemoryContext caller = CurrentMemoryContext;
	TupleDesc	tupdesc;
	TriggerState *s;
	HeapTuple	row;
	Fate		fate;

	check_call(fcinfo, true);
	tupdesc = RelationGetDescr(data->tg_relation);
	row = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
	SPI_connect();
	s = trigger_state(fcinfo);
	fate = fate_of(s, data);
	if (s->annotator != NULL)
		tell(s, data, row, fate);
	SPI_finish();
	MemoryContextSwitchTo(caller);
	row = meet_fate(s, row, tupdesc, fate);
	if (fate == ANNOTATED && s->annotator->sync && s->annotator->enabled)
	{
		row = annotate_now(s, row, tupdesc);
		if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
			keep_proposed(s, row, fcinfo->flinfo->fn_mcxt);
	}
	return PointerGetDatum(row);
}
