/*
 * cuts.h - where a prompt is cut for prefill, and what names a prefix that ends at a cut.
 *
 * The rule: how a prompt is cut decides how its states are rounded (a block of lightning attention begins at a cut), so
 * the cuts are a function of the request alone. A prompt is cut at every multiple of the prefill chunk and at the
 * request's own bounds, whatever the prefix cache holds and whether or not it is on. Snapshots are taken at cuts only,
 * and one serves another request only if that would have been cut at the same places before it. So no reply depends, to
 * the last bit, on where its prefix came from.
 *
 * A request owns its cuts; the thread that submits makes them, the step thread uses them.
 */
#ifndef M1_ENGINE_CUTS_H
#define M1_ENGINE_CUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define M1_MAX_BOUNDS 3		  /* of one request: system, history, template */
#define M1_SHORTEST_PREFIX 16 /* tokens: a shorter one costs less to prefill than to keep, and is not cut off */

/* Who may share a prefix: nobody of another owner or with another adapter, with which the states are others. */
typedef struct m1_cut_scope
{
	uint64_t owner;
	int adapter; /* see m1b_segment */
} m1_cut_scope;

typedef struct m1_cut
{
	uint64_t hash; /* of scope, ids before the cut, and bounds before it */
	int at;		   /* tokens before it; the prompt goes on after it */
	bool bound;	   /* one of the request's own; else a multiple of the chunk */
	bool wanted;   /* a snapshot is worth taking here: kept by admission.c */
} m1_cut;

typedef struct m1_cuts
{
	m1_cut_scope scope;
	m1_cut *list; /* ascending */
	int n;
	int bounds[M1_MAX_BOUNDS]; /* ascending; those that are not multiples of the chunk anyway */
	int n_bounds;
} m1_cuts;

/* bounds: ascending, maybe equal, maybe useless (too short, or at the prompt's end). false when memory ran out. */
bool m1_cuts_make(m1_cuts *cuts, m1_cut_scope scope, const int32_t *ids, int n_tokens, int chunk, const int *bounds,
				  int n_bounds);
void m1_cuts_free(m1_cuts *cuts);

/* The first cut after position `from`, or `end` when there is none. */
int m1_cuts_next(const m1_cuts *cuts, int from, int end);
/* The cut at a position, or NULL. */
m1_cut *m1_cuts_at(m1_cuts *cuts, int at);

/* What a prefix is known by. Borrows the ids. Two prefixes are the same only if all of it is: the hash finds, only. */
typedef struct m1_prefix_name
{
	m1_cut_scope scope;
	uint64_t hash;
	const int32_t *ids;
	int n_tokens;
	int bounds[M1_MAX_BOUNDS]; /* before n_tokens */
	int n_bounds;
} m1_prefix_name;

m1_prefix_name m1_cuts_name(const m1_cuts *cuts, const m1_cut *cut, const int32_t *ids);
bool m1_prefix_name_equal(const m1_prefix_name *a, const m1_prefix_name *b);

#endif
