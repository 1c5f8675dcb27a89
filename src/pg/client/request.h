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
/* The same without an adapter: of jobs and annotators, which do not depend on a session's. */
extern void m1pg_plain_request(m1w_generate *g);
/* What the engine calls an adapter, of which requests know the name; NULL until pg/learning is there. */
extern m1_slice (*m1pg_find_adapter) (const char *name);
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
