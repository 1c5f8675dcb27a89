/*
 * engine_process.h - the engine as a child of the worker: its start, its end,
 * and the frames between. readiness.h has the states that it goes through.
 */
#ifndef M1PG_ENGINE_PROCESS_H
#define M1PG_ENGINE_PROCESS_H

#include "pg/m1pg.h"

#include "wire/message.h"

/* Who is told. None of them may end the engine itself; sending is possible. */
typedef struct M1EngineHandler
{
	void		(*ready) (void);
	/* It is gone: what it had fails with this error. */
	void		(*lost) (const m1_error *error);
	/*
	 * A frame about a request; the payload lives during the call. NULL, or what
	 * is wrong with it, for which the engine is ended.
	 */
	const char *(*frame) (const m1w_header *header, const char *payload);
} M1EngineHandler;

extern void m1pg_engine_init(const M1EngineHandler *handler);
/* Starts the process when it is time to. */
extern void m1pg_engine_supervise(void);
/* Milliseconds until then; -1 = nothing to start. */
extern long m1pg_engine_timeout(void);
/* Reads and writes what the socket takes now; notices when the engine is gone. */
extern void m1pg_engine_pump(void);
/* The socket to wait on, or PGINVALID_SOCKET; *want_write: there is output. */
extern pgsocket m1pg_engine_socket(bool *want_write);
/* Whether it has taken all that was sent: what is sent then is not long on its way. */
extern bool m1pg_engine_takes_more(void);
/* These are lost when no engine serves. A note has no payload. */
extern void m1pg_engine_note(m1w_type type, uint64 request);
/* A message, or a part of one of which `more` bytes follow. false: it is longer than a part may be. */
extern bool m1pg_engine_send_part(m1w_type type, uint64 request, const void *part, Size len, Size more);
/* After a reload: if it has changed the command line, restart as soon as nothing runs. */
extern void m1pg_engine_heed_settings(void);
/* Ends the process, if there is one; the next supervise starts it anew. */
extern void m1pg_engine_stop(void);

#endif							/* M1PG_ENGINE_PROCESS_H */
