/*
 * call.h - one HTTP request on its way, among many that one thread drives by libcurl's multi interface: what comes back
 * is handed on piece by piece.
 *
 * An answer is one JSON text, or a stream of them as server-sent events. Calls belong to the thread that made their
 * m1_calls; m1_calls_wake alone may come from others.
 */
#ifndef M1_PROXY_CALL_H
#define M1_PROXY_CALL_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/status.h"

#define M1_CALL_MAX_EVENT ((size_t) 64 << 20) /* bytes of one event, or of an answer that is one text */

typedef struct m1_calls m1_calls;
typedef struct m1_call m1_call;

/* How servers are reached; texts must outlive the calls. */
typedef struct m1_calls_options
{
	const char *ca_file; /* of certificates that servers' must be signed by; NULL = the system's */
	int silence;		 /* seconds that a server may say nothing */
} m1_calls_options;

/* How a call ended. */
typedef enum m1_call_end
{
	M1_CALL_ANSWERED,	 /* with HTTP status 200; all of the answer has been handed on */
	M1_CALL_REFUSED,	 /* with another HTTP status: the server does not do this */
	M1_CALL_BUSY,		 /* 429 or 503: not now */
	M1_CALL_FAILED,		 /* 5xx, or 408: the server could not */
	M1_CALL_UNREACHABLE, /* there is no connection: refused, no such name, a certificate that does not fit, silence */
	M1_CALL_BROKEN,		 /* the connection ended in the middle of the answer */
	M1_CALL_LEFT,		 /* by our side: an event was answered with false */
} m1_call_end;

/* What the end of a call tells; texts live during the callback. */
typedef struct m1_call_result
{
	m1_call_end end;
	long status;		/* of HTTP; 0 = none */
	double retry_after; /* seconds, as the server asks for; -1 = it does not */
	m1_slice body;		/* of an answer that is no stream, at most M1_CALL_MAX_EVENT */
	const char *why;	/* of a call that was not answered: in words */
	void *context;		/* of m1_call_start */
} m1_call_result;

/* Callbacks must not start or drop calls, except `over`. */
typedef struct m1_call_handler
{
	/* One event of a stream, as its JSON text. false: no more of it is wanted. */
	bool (*event)(void *context, m1_slice json);
	/* Whether events are to wait now; the call is told when to go on by m1_call_resume. */
	bool (*waits)(void *context);
	/* The call is over, and freed when this returns. */
	void (*over)(const m1_call_result *result);
} m1_call_handler;

m1_status m1_calls_create(const m1_calls_options *options, m1_calls **out, m1_error *err);
void m1_calls_free(m1_calls *calls);

/* Sent as a bearer token by calls that start from now on; NULL = none. It is taken over: see proxy/key_file.h. */
void m1_calls_set_key(m1_calls *calls, char *key);
/* Whether that is another one than now. */
bool m1_calls_is_new_key(const m1_calls *calls, const char *key);

/* What is wrong with a url, as a sentence; NULL = nothing. */
const char *m1_call_url_fault(const char *url);
/*
 * POSTs the body, which is copied and wiped, or GETs if it is empty. handler must outlive the call. NULL when memory
 * ran out.
 */
m1_call *m1_call_start(m1_calls *calls, const char *url, m1_slice body, const m1_call_handler *handler, void *context);
/* Closes the connection; nothing more is handed on. */
void m1_call_drop(m1_call *call);
/* Events that were to wait are handed on, and the call may end with them. */
void m1_call_resume(m1_call *call);

/* Does what can be done at once, waits for at most so many milliseconds if that is nothing, and ends calls. */
m1_status m1_calls_work(m1_calls *calls, int wait_ms, m1_error *err);
/* Ends the wait of m1_calls_work, from any thread. */
void m1_calls_wake(m1_calls *calls);

#endif
