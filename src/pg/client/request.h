/*
 * request.h - generate requests as SQL functions make them, and their run (request.c).
 */
#ifndef M1PG_REQUEST_H
#define M1PG_REQUEST_H

#include "pg/client/exchange.h"

#include "fmgr.h"

/* ---- options ---- */

/* A generate request with texts in UTF-8, palloc'd. Start from m1pg_default_request. */
extern void m1pg_default_request(m1w_generate *g);
/* The same; returns which adapter that uses, as "name/version", palloc'd; NULL = none. */
extern char *m1pg_named_request(m1w_generate *g);
/* The same without an adapter: of jobs and annotators, which have their own, and of what needs none. */
extern void m1pg_plain_request(m1w_generate *g);

/* What is known of adapters above this room, in pg/learning; all raise what is wrong. */
typedef struct M1Adapters
{
	/* What the engine calls the latest version of a name; palloc'd. *version: 0 = of a server elsewhere. */
	m1_slice	(*find) (const char *name, int *version);
	/* That the current user may use one of the name. */
	void		(*check) (const char *name);
	/* Gives the engine one that was found. false: none of that name was. */
	bool		(*give) (m1_slice found);
} M1Adapters;

extern const M1Adapters *m1pg_adapters;

/*
 * The engine keeps adapters as long as it has room. Whether the request has failed because it has none of its name, and
 * has been given it: then the same request is to be made again, this often at most.
 */
#define M1PG_ADAPTER_TRIES	3
extern bool m1pg_lacked_adapter(m1_slice adapter, const m1_error *error);
extern uint64 m1pg_new_seed(void);
/* Whose snapshots a request of the current user may use. */
extern uint64 m1pg_cache_owner(void);
/* Returns it, or raises that it is out of range. */
extern int	m1pg_check_max_tokens(int max_tokens);
/*
 * The arguments system_prompt, max_tokens, thinking_budget, temperature, top_p
 * and seed, from number `arg` on. NULL leaves what is there. Raises what is out
 * of range.
 */
extern void m1pg_read_options(FunctionCallInfo fcinfo, int arg, m1w_generate *g);
extern void m1pg_read_stops(FunctionCallInfo fcinfo, int arg, m1w_generate *g);
/* false: it is empty. */
extern bool m1pg_read_prompt(const text *prompt, m1w_generate *g, m1_error *error);
/* "{task}\n\n{document}" of texts in UTF-8; the task is what rows have in common. */
extern void m1pg_task_prompt(m1w_generate *g, m1_slice task, m1_slice document);

/* ---- the run ---- */

/* The end of a request that was run to completion; slices are palloc'd. */
typedef struct M1Result
{
	m1w_done	done;
	double		queue_ms;		/* in worker and engine together */
} M1Result;

/* A copy, palloc'd, of what points into a message. */
extern m1w_done m1pg_keep_done(const m1w_done *done);
extern m1w_id_slice m1pg_keep_ids(m1w_id_slice ids);

/* NULL or false: *error. Nothing is left open then, so the caller may go on. */
extern M1Exchange *m1pg_open_generate(const m1w_generate *g, const char *function, m1_error *error);
extern bool m1pg_try_run(const m1w_generate *g, const char *function, M1Result *result, m1_error *error);
extern void m1pg_run(const m1w_generate *g, const char *function, M1Result *result);
/* The result out of the event that came. */
extern void m1pg_read_result(const M1Exchange *exchange, m1w_type type, const char *payload, Size len,
							 M1Result *result);

#endif							/* M1PG_REQUEST_H */
