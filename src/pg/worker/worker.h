/*
 * worker.h - what the three files of the background worker share: its loop
 * (worker.c), the requests (relay.c) and the engine process (engine_process.c).
 * All of it runs in the worker only, in one thread.
 */
#ifndef M1PG_WORKER_H
#define M1PG_WORKER_H

#include "pg/m1pg.h"

#include "wire/message.h"

/* ---- the engine process ---- */

typedef enum M1EnginePhase
{
	M1_PROCESS_NONE,			/* waits for its next start */
	M1_PROCESS_LOADING,			/* started, not ready */
	M1_PROCESS_READY,
} M1EnginePhase;

/* Where frames from the engine go. The payload lives during the call. */
typedef void (*M1FrameHandler) (const m1w_header *header, const char *payload);

extern void m1pg_engine_init(M1FrameHandler handler);
/* Starts the process when it is time to; notices when it is gone. Returns its phase. */
extern M1EnginePhase m1pg_engine_supervise(void);
/* After a reload: if it has changed the command line, restart as soon as nothing runs. */
extern void m1pg_engine_heed_settings(void);
extern bool m1pg_engine_is_draining(void);
/* Called when a drain is over: ends the process; the next supervise starts it anew. */
extern void m1pg_engine_end_drain(void);
extern void m1pg_engine_send(m1w_type type, uint64 request, const void *payload, Size len);
/* Reads and writes what the socket takes now. */
extern void m1pg_engine_pump(void);
/* The socket to wait on, or PGINVALID_SOCKET; *want_write: there is output. */
extern pgsocket m1pg_engine_socket(bool *want_write);
/* Milliseconds until supervise has something to do; -1 = nothing. */
extern long m1pg_engine_timeout(void);
/* Why there is no engine now: the error requests are refused with. */
extern m1_error m1pg_engine_refusal(void);
extern void m1pg_engine_stop(void);

/* ---- requests ---- */

extern void m1pg_relays_init(void);
/* Takes up new requests, notices gone and late ones, admits, delivers. */
extern void m1pg_relays_pump(M1EnginePhase phase);
extern void m1pg_relays_frame(const m1w_header *header, const char *payload);
/* Requests that the engine knows of. */
extern int	m1pg_relays_running(void);
/* The engine is gone: what it had fails with this error. */
extern void m1pg_relays_fail_running(const m1_error *error);
/* Milliseconds until the next deadline; -1 = none. */
extern long m1pg_relays_timeout(void);
/* The worker ends: what it had counts as failed. */
extern void m1pg_relays_end(void);

/* ---- the process ---- */

extern PGDLLEXPORT void m1pg_worker_main(Datum main_arg);

#endif							/* M1PG_WORKER_H */
