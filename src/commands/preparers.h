/*
 * preparers.h - threads that prepare requests: what takes time to read is read beside the thread that reads and writes
 * frames for everybody.
 *
 * Every task has a thread of its own, as long as there are enough. Long texts are a lane of their own, with threads of
 * lower priority, so that a short question never stands behind them. A task may be cancelled while it waits or runs.
 *
 * One thread adds and cancels. The threads live as long as the process.
 */
#ifndef M1_COMMANDS_PREPARERS_H
#define M1_COMMANDS_PREPARERS_H

#include "base/work.h"
#include "wire/frame.h"

typedef struct m1_task
{
	m1w_type type;
	uint64_t id;
	m1_buf payload; /* wiped when the task is over */
	m1_work work;
	struct m1_task *next;
} m1_task;

/* Called by the task's thread. */
typedef struct m1_preparer
{
	void *context;
	/* Does the task, to its end or until its work does not go on. */
	void (*prepare)(void *context, m1_task *task);
	/* The task is over, and was cancelled meanwhile: what came of it is to be taken back. */
	void (*cancelled)(void *context, uint64_t id);
} m1_preparer;

typedef struct m1_preparers m1_preparers;

/* NULL when memory ran out. */
m1_preparers *m1_preparers_create(const m1_preparer *preparer);

/* Takes the payload over, also when it fails. */
m1_status m1_preparers_add(m1_preparers *p, m1w_type type, uint64_t id, m1_buf *payload, m1_error *err);

/* Frees the payload, on a thread of its own if it is long: wiping and giving back 64 MB takes 20 ms and more. */
void m1_preparers_discard(m1_preparers *p, m1_buf *payload);

typedef enum m1_cancelled
{
	M1_CANCEL_UNKNOWN, /* there is no such task: it is over, or never was */
	M1_CANCEL_DROPPED, /* it had not begun, and is gone */
	M1_CANCEL_RUNNING, /* its thread will notice */
} m1_cancelled;

m1_cancelled m1_preparers_cancel(m1_preparers *p, uint64_t id);

#endif
