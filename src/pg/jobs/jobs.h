/*
 * jobs.h - durable jobs and annotators: what their files share.
 *
 *   guard.c              acting as another role; the gate from public to internal SQL functions
 *   job_shared.c         which databases have work, who runs it, and who is to be woken
 *   job_launcher.c       the background worker that starts a runner where there is work
 *   job_runner.c         the runner's loop: one process for one database, as long as it has work
 *   job_claim.c          the runner takes jobs, and gives them back
 *   job_finish.c         the runner writes results and failures
 *   job_definition.c     the definitions that the runner works with
 *   job_functions.c      submit(), wait_for()
 *   annotator.c          a definition, and the rows of its table
 *   annotator_trigger.c  the triggers
 *
 * The queue is the table minimax_m1.job. What is pending, leased or done is
 * told by it alone: processes and shared memory may be lost at any time.
 */
#ifndef M1PG_JOBS_H
#define M1PG_JOBS_H

#include "pg/m1pg.h"

#include "executor/spi.h"
#include "utils/array.h"

/* ---- settings (module.c) ---- */

extern int	m1pg_job_requests;
extern int	m1pg_max_job_runners;
extern int	m1pg_job_lease;			/* s */
extern int	m1pg_job_retry_delay;	/* ms */
extern int	m1pg_job_retention;		/* min; -1 = for ever */

/* ---- acting as another role (guard.c) ---- */

typedef struct M1Guard
{
	Oid			userid;
	int			context;
	int			nest;
} M1Guard;

/*
 * From here to m1pg_unbecome, or to the end of the (sub)transaction, the
 * current user is the role, search_path is pg_catalog, pg_temp, and values are
 * written as text that any session reads alike. `restricted`: for code that the
 * role has written; nothing of it outlives the operation.
 */
extern M1Guard m1pg_become(Oid role, bool restricted);
extern void m1pg_unbecome(const M1Guard *guard);
/* Sets a setting up to the end of the GUC nest level. */
extern void m1pg_set_for_now(const char *name, const char *value);
/* Who owns the extension's tables; InvalidOid when they are not there. */
extern Oid	m1pg_extension_owner(void);
/* For internal functions that act as others: an error unless the current user is the extension's owner, or a superuser. */
extern void m1pg_require_owner(FunctionCallInfo fcinfo);
/* SPI_execute_with_args, or an error. Returns the number of rows. */
extern uint64 m1pg_query(const char *sql, int n, Oid *types, Datum *values, const char *nulls, bool read_only);
/* A column of row i of the last query as a string in `context`, or NULL. */
extern char *m1pg_result_text(MemoryContext context, uint64 i, int column);
extern Datum m1pg_result(uint64 i, int column, bool *isnull);
/* A text[] without NULLs as strings. */
extern char **m1pg_text_array(ArrayType *array, int *n);
/* And back. */
extern ArrayType *m1pg_array_of_texts(char *const *strings, int n);

/* ---- who has work (job_shared.c) ---- */

extern void m1pg_jobs_shared_request(void);
extern void m1pg_jobs_shared_startup(void);
/* When the current transaction has committed, this database's runner is woken, and who waits for jobs looks again. */
extern void m1pg_queue_note(void);
extern void m1pg_jobs_engine_ready(void);
/* For whoever waits until jobs have ended: prepare, look, sleep, and cancel at the end. Sleep returns false after `ms`. */
extern void m1pg_jobs_prepare_wait(void);
extern bool m1pg_jobs_sleep(long ms);
extern void m1pg_jobs_cancel_wait(void);
/* As a runner, after a turn in which jobs may have ended. */
extern void m1pg_jobs_ended(void);

/* As a runner: false when the database has one. Leaving: when to start the next; 0 = when woken. */
extern bool m1pg_runner_join(void);
extern void m1pg_runner_leave(TimestampTz wake_at);
/* Whether this runner was woken since the last call. */
extern bool m1pg_runner_woken(void);
/* Whether other databases wait for a runner. */
extern bool m1pg_runner_others_wait(void);

/* As the launcher. */
extern void m1pg_launcher_join(void);
/* Notes that a database may have work. false when there is no room to note it. */
extern bool m1pg_jobs_want(Oid database, TimestampTz when);
extern bool m1pg_launcher_take_overflow(void);
/* A database whose runner is to be started now, marked as starting; InvalidOid = none. */
extern Oid	m1pg_launcher_next(void);
/* The database is gone, or its runner could not be started. */
extern void m1pg_launcher_forget(Oid database);
extern void m1pg_launcher_retry(Oid database);
/* Milliseconds until there may be something to start; -1 = when woken. */
extern long m1pg_launcher_timeout(void);

extern void m1pg_register_job_launcher(void);
extern PGDLLEXPORT void m1pg_job_launcher_main(Datum main_arg);
extern PGDLLEXPORT void m1pg_job_runner_main(Datum main_arg);

/* ---- annotators (annotator.c) ---- */

typedef struct M1Annotator
{
	int			id;
	char	   *version;		/* changes with the definition */
	char	   *name;
	Oid			owner;
	Oid			source;
	char	  **key_columns;
	int			n_keys;
	char	   *target_column;
	char	   *reasoning_column;	/* NULL = none, as the next */
	char	   *status_column;
	char	   *template;
	bool		sync;
	bool		enabled;
	int			max_attempts;
	m1w_generate request;		/* with the options, in UTF-8; no prompt yet */
} M1Annotator;

/* By name, or by id when name is NULL. Lives in `context`; NULL when there is none. */
extern M1Annotator *m1pg_annotator_load(const char *name, int id, MemoryContext context);

/* The statements that reach a row of its table. */
typedef struct M1Rows M1Rows;

extern M1Rows *m1pg_rows_open(const M1Annotator *a, MemoryContext context);

typedef enum M1RowState
{
	M1_ROW_GONE,
	M1_ROW_LOCKED,				/* by somebody else */
	M1_ROW_FOUND
} M1RowState;

/*
 * All run as the annotator's owner. Read gives the prompt, or NULL when a column
 * of it is NULL, and with `lock` keeps others from changing the row.
 */
extern M1RowState m1pg_row_read(const M1Rows *rows, char *const *key, bool lock, char **prompt);
extern void m1pg_row_write(const M1Rows *rows, char *const *key, char *content, char *reasoning, const char *status);
extern void m1pg_row_write_status(const M1Rows *rows, char *const *key, const char *status);

#endif							/* M1PG_JOBS_H */
