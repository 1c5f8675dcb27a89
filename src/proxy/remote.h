/*
 * remote.h - one request while servers compute it: what they are asked for, what comes of each token, and where it goes
 * when one of them fails.
 *
 * A reply is asked for in stretches. Tokens come back and are read as the engine reads its own (m1_request_accept).
 * Where that closes the reasoning, or an answer begins that has a form, the connection is closed, and the rest asked
 * for anew: the server has the beginning in its cache. A token that the form does not allow is not taken, and the rest
 * is asked for with the form as a grammar; that gives what choosing among allowed tokens does. Belongs to the thread of
 * the calls.
 */
#ifndef M1_PROXY_REMOTE_H
#define M1_PROXY_REMOTE_H

#include "engine/engine.h"
#include "engine/request.h"
#include "proxy/servers.h"

typedef struct m1_remote
{
	m1_request *request; /* owned */
	const char *adapter; /* as servers call it; NULL = none */
	const m1_engine_events *events;
	m1_calls *calls;

	m1_server *server; /* where it is, or was last */
	m1_call *call;	   /* NULL: it waits for a server */
	double waits_since_ms;
	int moves;			   /* to another server, or to the same one again */
	const m1_server *left; /* the last of these moves was away from it; NULL = it may go on where it was */
	double again_ms;	   /* when it may be asked even so */
	bool over;			   /* its end has been told */

	/* the stretch that is under way */
	size_t asked;		/* tokens of the request when it was asked for */
	int accepted;		/* tokens that have come of it */
	int known;			/* tokens that the server has made of it */
	unsigned stretches; /* that were asked for */
	bool by_grammar;	/* it was asked for with one */
	bool wants_grammar; /* the next one is to be */
	m1_buf held;		/* m1b_picks that have come and end inside of a character: see hold */
	m1_buf held_text;	/* theirs */
	bool whole;			/* it was asked for as one answer */
	bool wants_whole;	/* the next one is to be: a stream has left tokens out */
	bool finished;		/* the server has said so; what comes behind is of use, but not waited for long */
	double finished_ms;
	double busy_since_ms; /* servers were too busy for it since then; 0 = none was */
	bool foreign;		  /* m->error is of a token that no server of this model sends */
	int fruitless;		  /* stretches without a token, in a row */
	m1_error error;		  /* ends the request; code M1_OK = none */

	/* choices that are scored: one after the other, token by token where the server cannot do more */
	bool scores;
	bool is_score; /* the stretch asks for that */
	int choice;
	int scored;		/* of its tokens */
	double logprob; /* of these */

	/* of a server that takes texts */
	bool reasons;	/* its reasoning has begun and not ended */
	m1_buf content; /* that waits for its end, or for the end of reasoning in it */
	bool answers;	/* the answer has begun behind that */

	struct m1_remote *next;
} m1_remote;

/* Takes the request over. NULL when memory ran out: then the caller keeps it. */
m1_remote *m1_remote_create(m1_request *r, const m1_engine_events *events, m1_calls *calls);
void m1_remote_free(m1_remote *m);

/* Asks a server for the next stretch; failures are told as the request's end. */
void m1_remote_ask(m1_remote *m, m1_server *server);
/* Whether the server has said that it is done with the stretch, and not ended its answer. */
bool m1_remote_lingers(const m1_remote *m);
/* Closes the connection then, if it has been so for a while. */
void m1_remote_look(m1_remote *m, double now);
/* Its end is this error. */
void m1_remote_fail(m1_remote *m, const m1_error *error);

#endif
