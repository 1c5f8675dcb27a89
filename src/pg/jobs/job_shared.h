/*
 * job_shared.h - which databases have work, who runs it, and who is to be woken
 * (job_shared.c). All take the table's own lock.
 */
#ifndef M1PG_JOB_SHARED_H
#define M1PG_JOB_SHARED_H

#include "pg/m1pg.h"

#include "datatype/timestamp.h"

/* When the current transaction has committed, this database's runner is woken, and who waits for jobs looks again. */
extern void m1pg_queue_note(void);

/* When the current transaction has committed, the database, which was made or changed, is looked at. */
extern void m1pg_database_note(Oid database);
/* The runner of a database is to leave it, if there is one. Another one follows soon. */
extern void m1pg_runner_make_way(Oid database);

/* Whether the server could ever start a runner. */
extern bool m1pg_jobs_can_run(void);

/* ---- whoever waits until jobs have ended: prepare, look, sleep, and cancel at the end ---- */

extern void m1pg_jobs_prepare_wait(void);
/* Returns false after `ms`. */
extern bool m1pg_jobs_sleep(long ms);
extern void m1pg_jobs_cancel_wait(void);

/* ---- a runner ---- */

/* After a turn in which jobs may have ended. */
extern void m1pg_jobs_ended(void);
/* false when the database has one. */
extern bool m1pg_runner_join(void);
extern bool m1pg_runner_is_in_the_way(void);
/* Whether this process is a runner. */
extern bool m1pg_is_runner(void);

/* Why a runner ended while it was at a step of a job. */
typedef struct M1Blame
{
	int64		job;			/* 0 = it was at none */
	bool		deaf;			/* the step could not be cancelled */
	int			sqlstate;
	char		message[256];
} M1Blame;

/* The runner is at a step of this job; 0 = at none. Should the process end at one, the next runner is told. */
extern void m1pg_runner_at_step(int64 job);
/* The runner ends because the step does not. May be called by a signal handler. */
extern void m1pg_runner_step_is_deaf(void);
/* What the step was ended by. */
extern void m1pg_runner_note_end(int sqlstate, const char *message);
/* How the last runner ended; no job = not at a step, or it has been asked for. */
extern M1Blame m1pg_runner_take_blame(void);

/* An annotator whose rows have ended runners. */
typedef struct M1Ender
{
	int			annotator;		/* 0 = none */
	Oid			table_owner;
	int			times;			/* one after the other */
	TimestampTz last;
} M1Ender;

#define M1PG_ENDERS 16
/* Those of this database that are remembered: copies them. Returns their number. */
extern int	m1pg_runner_enders(M1Ender *enders);
/* Remembers one, in place of the one that was the longest ago. */
extern void m1pg_runner_remember_ender(const M1Ender *ender);

/* When to start the next; 0 = when woken. */
extern void m1pg_runner_leave(TimestampTz wake_at);
/* Whether this runner was woken since the last call. */
extern bool m1pg_runner_woken(void);
/* Whether other databases wait for a runner. */
extern bool m1pg_runner_others_wait(void);

/* ---- the launcher ---- */

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

#endif							/* M1PG_JOB_SHARED_H */
