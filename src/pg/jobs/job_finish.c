/*
 * job_finish.c
 *	  The runner writes what came of a job: the answer, a failure, or that it is
 *	  to be done again. Called within a transaction, with SPI connected.
 *
 *	  A row is written as the table's owner, only while this process holds the
 *	  job's lease, and only if the row still gives the prompt that was answered.
 *	  Answer and end of the job are one transaction: neither is there without the
 *	  other.
 */
#include "pg/jobs/job_finish.h"
#include "pg/client/texts.h"
#include "pg/jobs/annotator_rows.h"
#include "pg/jobs/corrections.h"
#include "pg/jobs/guard.h"
#include "pg/jobs/job.h"
#include "pg/jobs/job_aside.h"
#include "pg/jobs/job_definition.h"
#include "pg/jobs/job_lease.h"
#include "pg/jobs/job_step.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* A row that somebody else has locked is tried this often, at these intervals; then the answer is put by. */
#define LOCKED_TRIES	20
#define LOCKED_MS		250

/* ---- failures ---- */

static Datum
text_or_null(const char *s, char *null)
{
	*null = s == NULL || s[0] == '\0' ? 'n' : ' ';
	return *null == 'n' ? (Datum) 0 : CStringGetTextDatum(s);
}

/* Of what an error says, which may be as long as its code likes. */
#define MOST_OF_ERROR	8000

static Datum
error_text(const char *s, char *null)
{
	return text_or_null(s == NULL ? NULL : pnstrdup(s, pg_mbcliplen(s, strlen(s), MOST_OF_ERROR)), null);
}

/* A step: the row's status column says that there will be no annotation. */
static void
mark_row_failed(M1Job *job, void *arg)
{
	const M1Definition *d = m1pg_definition(job->annotator_id);

	if (d->annotator != NULL)
		m1pg_row_write_status(d->rows, job->key, "failed");
}

void
m1pg_fail_job(M1Job *job, const ErrorData *error, M1Failure failure)
{
	bool		dead = failure == M1_FAILED_FOR_GOOD ||
		(failure == M1_FAILED_ONCE && job->attempts + 1 >= job->max_attempts);
	Oid			types[8] = {INT8OID, INT4OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[8];
	char		nulls[8] = "        ";

	if (!m1pg_lock_lease(job))
		return;
	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(m1pg_job_retry_delay);
	values[2] = Int32GetDatum(dead ? 1 : 0);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = text_or_null(unpack_sql_state(error->sqlerrcode), &nulls[4]);
	values[5] = error_text(error->message, &nulls[5]);
	values[6] = error_text(error->detail, &nulls[6]);
	values[7] = error_text(error->hint, &nulls[7]);
	(void) m1pg_query("UPDATE minimax_m1.job SET attempts = attempts + 1, run_at = " M1PG_BACKOFF("$2", "attempts") ", "
					  "state = CASE $3 WHEN 1 THEN 'failed' ELSE 'pending' END, "
					  "finished_at = CASE $3 WHEN 1 THEN $4 END, failed_at = $4, sqlstate = $5, error = $6, "
					  "detail = $7, hint = $8, " M1PG_NO_LEASE " WHERE id = $1",
					  8, types, values, nulls, false);
	if (dead && job->annotator_id != 0)
		(void) m1pg_try(job, mark_row_failed, NULL);
}

/* ---- results ---- */

static char *
text_of(m1_slice utf8)
{
	return utf8.len == 0 ? NULL : text_to_cstring(m1pg_text_from_utf8(utf8));
}

static void
write_submitted(M1Job *job)
{
	const m1w_done *done = &job->done;
	Oid			types[6] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID};
	Datum		values[6];
	char		nulls[6] = "      ";

	values[0] = Int64GetDatum(job->id);
	values[1] = PointerGetDatum(m1pg_text_from_utf8(done->content));
	values[2] = text_or_null(text_of(done->reasoning), &nulls[2]);
	values[3] = CStringGetTextDatum(m1w_finish_name(done->finish));
	values[4] = Int32GetDatum(done->prompt_tokens);
	values[5] = Int32GetDatum(done->completion_tokens);
	(void) m1pg_query("UPDATE minimax_m1.job SET state = 'done', content = $2, reasoning = $3, finish_reason = $4, "
					  "prompt_tokens = $5, completion_tokens = $6, finished_at = clock_timestamp(), "
					  "sqlstate = NULL, error = NULL, detail = NULL, hint = NULL, failed_at = NULL, "
					  M1PG_NO_LEASE " WHERE id = $1",
					  6, types, values, nulls, false);
}

/* The row is annotated, or gone: its job is over, and so are earlier failures of the same row. */
static void
end_row_job(const M1Job *job, bool annotated)
{
	Oid			types[3] = {INT8OID, INT4OID, TEXTARRAYOID};
	Datum		values[3];

	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(job->annotator_id);
	values[2] = PointerGetDatum(m1pg_array_of_texts(job->key, job->n_keys));
	(void) m1pg_query("DELETE FROM minimax_m1.job WHERE id = $1 OR annotator_id = $2 AND key = $3 AND state = 'failed'",
					  3, types, values, NULL, false);
	if (!annotated)
		return;
	/* what somebody had corrected there was another answer */
	m1pg_forget_correction(job->annotator_id, DatumGetArrayTypeP(values[2]));
	/* the rate decays with a time constant of a minute */
	(void) m1pg_query("INSERT INTO minimax_m1.annotator_progress AS p (annotator_id, done, rate) "
					  "VALUES ($2, 1, 1 / 60.0) "
					  "ON CONFLICT (annotator_id) DO UPDATE SET done = p.done + 1, last_done = excluded.last_done, "
					  "rate = 1 / 60.0 + p.rate * "
					  "exp(- greatest(extract(epoch FROM excluded.last_done - p.last_done), 0) / 60)",
					  3, types, values, NULL, false);
}

/* Whether a statement has written something into the row's target since the row was queued, which is kept. */
static bool
was_filled(const M1Job *job, const M1Row *row)
{
	bytea	   *hash;

	if (job->target_hash == NULL || row->target == NULL)
		return false;
	hash = m1pg_hash_target(row->target);
	return VARSIZE_ANY_EXHDR(hash) != VARSIZE_ANY_EXHDR(job->target_hash) ||
		memcmp(VARDATA_ANY(hash), VARDATA_ANY(job->target_hash), VARSIZE_ANY_EXHDR(hash)) != 0;
}

bool
m1pg_row_asks(const M1Job *job, const M1Row *row)
{
	return row->prompt != NULL && !was_filled(job, row);
}

/* Its prompt is NULL: so is the annotation. */
static void
write_empty(M1Job *job, const M1Rows *rows)
{
	m1pg_row_write(rows, job->key, NULL, NULL, "done");
	end_row_job(job, true);
}

/* The statement may have left the status as it was: that of a row that waits, or had failed and is tried again. */
static void
leave_filled(M1Job *job, const M1Rows *rows, const M1Row *row)
{
	if (row->status != NULL && (strcmp(row->status, "pending") == 0 || strcmp(row->status, "failed") == 0))
		m1pg_row_write_status(rows, job->key, "done");
	end_row_job(job, false);
}

void
m1pg_finish_unasked(M1Job *job, const M1Rows *rows)
{
	M1Row		row;

	/* whoever has the row locked is changing it, or this is tried again */
	if (m1pg_row_read(rows, job->key, true, &row) != M1_ROW_FOUND || m1pg_row_asks(job, &row))
		m1pg_release(job, false, m1pg_job_retry_delay);
	else if (was_filled(job, &row))
		leave_filled(job, rows, &row);
	else
		write_empty(job, rows);
}

static void
write_row(M1Job *job)
{
	const M1Definition *d = m1pg_definition(job->annotator_id);
	M1Row		row;
	M1RowState	state;

	if (d->annotator == NULL)
		return;					/* and its jobs with it */
	state = m1pg_row_read(d->rows, job->key, true, &row);
	if (state == M1_ROW_LOCKED)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("minimax_m1: another transaction has the row locked"),
				 errdetail("The answer is kept, and written when the lock is gone.")));
	if (state == M1_ROW_GONE)
		end_row_job(job, false);
	else if (!m1pg_row_asks(job, &row) || memcmp(m1pg_hash_prompt(row.prompt), job->hash, M1PG_HASH_SIZE) != 0)
		m1pg_release(job, false, 0);	/* what was answered is not asked any more */
	else
	{
		char	   *content = text_of(job->done.content);

		m1pg_row_write(d->rows, job->key, content != NULL ? content : "", text_of(job->done.reasoning), "done");
		end_row_job(job, true);
	}
}

/* A step: writes a result. */
static void
write_result(M1Job *job, void *arg)
{
	if (!m1pg_lock_lease(job))
		return;
	if (job->annotator_id == 0)
		write_submitted(job);
	else
		write_row(job);
}

/* ---- answers that wait ---- */

/* A step: puts the answer into the job's row, so that the next lease need not ask again for the same prompt. */
static void
put_by(M1Job *job, void *arg)
{
	Oid			types[4] = {INT8OID, TEXTOID, TEXTOID, BYTEAOID};
	Datum		values[4];
	char		nulls[4] = "    ";
	bytea	   *hash = palloc(VARHDRSZ + M1PG_HASH_SIZE);

	if (job->annotator_id == 0 || !m1pg_lock_lease(job))
		return;
	SET_VARSIZE(hash, VARHDRSZ + M1PG_HASH_SIZE);
	memcpy(VARDATA(hash), job->hash, M1PG_HASH_SIZE);
	values[0] = Int64GetDatum(job->id);
	values[1] = PointerGetDatum(m1pg_text_from_utf8(job->done.content));
	values[2] = text_or_null(text_of(job->done.reasoning), &nulls[2]);
	values[3] = PointerGetDatum(hash);
	(void) m1pg_query("UPDATE minimax_m1.job SET content = $2, reasoning = $3, answered = $4 WHERE id = $1",
					  4, types, values, nulls, false);
}

/* The answer is not what the row can hold: another may be. */
static void
take_back(const M1Job *job)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(job->id)};

	if (job->answered != NULL && m1pg_lock_lease(job))
		(void) m1pg_query("UPDATE minimax_m1.job SET content = NULL, reasoning = NULL, answered = NULL WHERE id = $1",
						  1, types, values, NULL, false);
}

static void
put_by_and_fail(M1Job *job, ErrorData *error, M1Failure failure)
{
	ErrorData  *other = m1pg_try(job, put_by, NULL);

	if (other != NULL)
		m1pg_fail_job(job, other, M1_FAILED_ONCE);
	else
		m1pg_fail_job(job, error, failure);
}

/* Rows of its annotator, or of its table's owner, have taken too much time. Nothing is wrong with this one. */
static M1JobOutcome
put_off(M1Job *job, TimestampTz until)
{
	ErrorData  *error = m1pg_try(job, put_by, NULL);

	if (error != NULL)
		m1pg_fail_job(job, error, M1_FAILED_ONCE);
	else
		m1pg_release(job, false, Max(1, (int) TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)));
	return M1_JOB_OVER;
}

/* ---- which end ---- */

/* A step: raises the engine's error, as a function's caller would see it. */
static void
raise_error(M1Job *job, void *arg)
{
	m1pg_report(&job->error);
}

/* The engine cannot be reached: that is not the job's fault. */
static bool
is_outage(const m1_error *error)
{
	return error->code == M1_E_UNAVAILABLE || m1pg_shared->model.readiness.state == M1_ENGINE_FAILED;
}

/* It would fail again. */
static bool
is_for_good(const M1Job *job)
{
	switch (job->error.code)
	{
		case M1_E_INVALID_ARGUMENT:
		case M1_E_UNSUPPORTED:
		case M1_E_CONTEXT_OVERFLOW:
		case M1_E_OVER_QUOTA:
		case M1_E_CANCELLED:
			return true;
		case M1_E_NOT_FOUND:
			/* an adapter that was dropped */
			return job->refusal != NULL;
		default:
			return false;
	}
}

static ErrorData *
why_failed(M1Job *job)
{
	return job->refusal != NULL ? job->refusal : m1pg_try(job, raise_error, NULL);
}

/* A lock, a deadlock, a serialization failure or a cancelled query: the answer is as good as before. */
bool
m1pg_is_passing(const M1Job *job, const ErrorData *error)
{
	if (job->out_of_time)
		return false;
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK ||
		error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || error->sqlerrcode == ERRCODE_QUERY_CANCELED;
}

/* Says in job_errors why the job waits. */
static void
note_refusal(const M1Job *job, const ErrorData *error)
{
	Oid			types[5] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[5];
	char		nulls[5] = "     ";

	values[0] = Int64GetDatum(job->id);
	values[1] = text_or_null(unpack_sql_state(error->sqlerrcode), &nulls[1]);
	values[2] = error_text(error->message, &nulls[2]);
	values[3] = error_text(error->detail, &nulls[3]);
	values[4] = error_text(error->hint, &nulls[4]);
	(void) m1pg_query("UPDATE minimax_m1.job SET sqlstate = $2, error = $3, detail = $4, hint = $5, "
					  "failed_at = clock_timestamp() WHERE " M1PG_THOSE("id",
					  "minimax_m1.job WHERE id = $1 AND state = 'pending' FOR UPDATE SKIP LOCKED"),
					  5, types, values, nulls, false);
}

static M1JobOutcome
finish_failed(M1Job *job)
{
	if (job->error.code == M1_E_OVERLOADED)
	{
		/* its role's share may be used up: others go first */
		m1pg_release(job, false, m1pg_job_retry_delay);
		note_refusal(job, why_failed(job));
		return M1_JOB_OVERLOAD;
	}
	if (is_outage(&job->error))
	{
		m1pg_release(job, job->reached_engine && job->error.code == M1_E_UNAVAILABLE, 0);
		return M1_JOB_OUTAGE;
	}
	m1pg_fail_job(job, why_failed(job), is_for_good(job) ? M1_FAILED_FOR_GOOD : M1_FAILED_ONCE);
	return M1_JOB_OVER;
}

/* What a result that could not be written leads to. */
static M1JobOutcome
finish_unwritten(M1Job *job, ErrorData *error, bool may_wait)
{
	if (m1pg_is_passing(job, error))
	{
		/* one that has waited in the queue goes back there */
		if (may_wait && job->answered == NULL && ++job->write_tries < LOCKED_TRIES)
		{
			job->write_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCKED_MS);
			return M1_JOB_LATER;
		}
		put_by_and_fail(job, error, M1_FAILED_PASSING);
	}
	else if (job->out_of_time)
		put_by_and_fail(job, error, M1_FAILED_ONCE);
	else
	{
		take_back(job);
		m1pg_fail_job(job, error, M1_FAILED_ONCE);
	}
	return M1_JOB_OVER;
}

M1JobOutcome
m1pg_finish(M1Job *job, bool may_wait)
{
	TimestampTz aside_until = job->annotator_id != 0 ? m1pg_aside_until(job->annotator_id, job->table_owner) : 0;
	ErrorData  *error;

	if (job->error.code != M1_OK)
		return finish_failed(job);
	if (aside_until != 0)
		return put_off(job, aside_until);
	error = m1pg_try(job, write_result, NULL);
	return error == NULL ? M1_JOB_OVER : finish_unwritten(job, error, may_wait);
}
