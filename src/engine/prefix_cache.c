/*
 * prefix_cache.c - see prefix_cache.h. A prefix is in two lists: its bucket's, and the ring of all prefixes in the
 * order of their last use.
 */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "engine/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

#include "model/state.h"

#define BUCKETS 1024
#define RECENT 16384 /* hashes of recent prompts: 128 KiB */

struct m1_prefix
{
	struct m1_prefix *next;			   /* in its bucket */
	struct m1_prefix *earlier, *later; /* in the ring */
	m1b_snapshot *snapshot;
	int pins;
	m1_prefix_name name; /* its ids are the ones below */
	int32_t ids[];
};

struct m1_prefix_cache
{
	const m1_model *model;
	size_t budget;
	size_t own_bytes; /* of the prefixes, without their snapshots */
	uint64_t hash_mask;
	m1_prefix *buckets[BUCKETS];
	m1_prefix ring; /* ring.later is the least recently used; no prefix itself */
	uint64_t recent[RECENT];
};

m1_prefix_cache *
m1_prefix_cache_create(const m1_model *model, size_t budget, int hash_bits)
{
	m1_prefix_cache *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->model = model;
	c->budget = budget;
	c->hash_mask = UINT64_MAX >> (64 - hash_bits);
	c->ring.later = c->ring.earlier = &c->ring;
	return c;
}

/* ---- the two lists ---- */

static m1_prefix **
bucket_of(m1_prefix_cache *c, uint64_t hash)
{
	return &c->buckets[hash % BUCKETS];
}

static void
leave_ring(m1_prefix *p)
{
	p->earlier->later = p->later;
	p->later->earlier = p->earlier;
}

static void
join_ring(m1_prefix_cache *c, m1_prefix *p)
{
	p->earlier = c->ring.earlier;
	p->later = &c->ring;
	p->earlier->later = p->later->earlier = p;
}

/* The name as the cache keeps it: with as much of the hash as it uses. */
static m1_prefix_name
masked(const m1_prefix_cache *c, const m1_prefix_name *name)
{
	m1_prefix_name copy = *name;

	copy.hash &= c->hash_mask;
	return copy;
}

static size_t
own_bytes(int n_tokens)
{
	return sizeof(m1_prefix) + (size_t) n_tokens * sizeof(int32_t);
}

static void
drop(m1_prefix_cache *c, m1_prefix *p)
{
	m1_prefix **at = bucket_of(c, p->name.hash);

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	leave_ring(p);
	m1_snapshot_release(c->model, p->snapshot);
	c->own_bytes -= own_bytes(p->name.n_tokens);
	explicit_bzero(p, own_bytes(p->name.n_tokens));
	free(p);
}

void
m1_prefix_cache_free(m1_prefix_cache *c)
{
	if (c == NULL)
		return;
	while (c->ring.later != &c->ring)
		drop(c, c->ring.later);
	free(c);
}

/* ---- finding and keeping ---- */

m1_prefix *
m1_prefix_cache_find(const m1_prefix_cache *c, const m1_prefix_name *name)
{
	const m1_prefix_name wanted = masked(c, name);

	for (m1_prefix *p = c->buckets[wanted.hash % BUCKETS]; p != NULL; p = p->next)
		if (m1_prefix_name_equal(&p->name, &wanted))
			return p;
	return NULL;
}

bool
m1_prefix_cache_could_hold(const m1_prefix_cache *c, int n_tokens)
{
	return own_bytes(n_tokens) + m1_snapshot_cost(c->model, NULL, n_tokens) <= c->budget;
}

bool
m1_prefix_cache_evict(m1_prefix_cache *c)
{
	m1_prefix *p = c->ring.later;

	while (p != &c->ring && p->pins > 0)
		p = p->later;
	if (p == &c->ring)
		return false;
	drop(c, p);
	return true;
}

/* What giving up others frees is counted anew each time: they may share pages with the one to come. */
static bool
make_room(m1_prefix_cache *c, const m1b_state *state, int n_tokens)
{
	while (m1_prefix_cache_contents(c).bytes + own_bytes(n_tokens) + m1_snapshot_cost(c->model, state, n_tokens) >
		   c->budget)
		if (!m1_prefix_cache_evict(c))
			return false;
	return true;
}

bool
m1_prefix_cache_add(m1_prefix_cache *c, const m1_prefix_name *name, const m1b_state *state)
{
	const int n = name->n_tokens;
	m1_prefix *p;

	if (!make_room(c, state, n) || (p = calloc(1, own_bytes(n))) == NULL)
		return false;
	while ((p->snapshot = m1_snapshot_take(c->model, state, n, M1B_SHARED)) == NULL)
		if (!m1_prefix_cache_evict(c))
		{
			free(p);
			return false;
		}
	memcpy(p->ids, name->ids, (size_t) n * sizeof *p->ids);
	p->name = masked(c, name);
	p->name.ids = p->ids;
	p->next = *bucket_of(c, p->name.hash);
	*bucket_of(c, p->name.hash) = p;
	join_ring(c, p);
	c->own_bytes += own_bytes(n);
	return true;
}

/* ---- using ---- */

void
m1_prefix_pin(m1_prefix *p)
{
	p->pins++;
}

void
m1_prefix_unpin(m1_prefix *p)
{
	p->pins--;
}

void
m1_prefix_cache_touch(m1_prefix_cache *c, m1_prefix *p)
{
	leave_ring(p);
	join_ring(c, p);
}

const m1b_snapshot *
m1_prefix_snapshot(const m1_prefix *p)
{
	return p->snapshot;
}

int
m1_prefix_tokens(const m1_prefix *p)
{
	return p->name.n_tokens;
}

m1w_cache
m1_prefix_cache_contents(const m1_prefix_cache *c)
{
	const m1b_memory memory = m1_state_memory(c->model);

	return (m1w_cache){.snapshots = (uint32_t) memory.snapshots, .bytes = memory.snapshot_bytes + c->own_bytes};
}

bool
m1_prefix_cache_seen(m1_prefix_cache *c, uint64_t hash)
{
	uint64_t *entry = &c->recent[hash % RECENT];
	bool seen = *entry == hash;

	*entry = hash;
	return seen;
}
