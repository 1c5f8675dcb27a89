/*
 * prefix_cache.h - snapshots of prompts' beginnings, least recently used first out, within a budget of bytes.
 *
 * Belongs to one engine, so to one loaded model, and to its step thread. A snapshot is found by its owner, the exact
 * ids and the cuts before it: the hash only says where to look. The copies of the ids are wiped when they go.
 */
#ifndef M1_ENGINE_PREFIX_CACHE_H
#define M1_ENGINE_PREFIX_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "engine/cuts.h"
#include "model/model.h"
#include "wire/message.h"

typedef struct m1_prefix_cache m1_prefix_cache;
typedef struct m1_prefix m1_prefix; /* one snapshot with its name */

/*
 * budget: of the snapshots' device memory and the cache's own; 0 = keeps nothing. The model must outlive the cache.
 * hash_bits: how much of a hash is used, 1 to 64 (fewer than 64 for tests). NULL when memory ran out.
 */
m1_prefix_cache *m1_prefix_cache_create(const m1_model *model, size_t budget, int hash_bits);
void m1_prefix_cache_free(m1_prefix_cache *c);

/* Whether a snapshot after n_tokens can be kept at all. */
bool m1_prefix_cache_could_hold(const m1_prefix_cache *c, int n_tokens);
/* NULL when there is none of this name. */
m1_prefix *m1_prefix_cache_find(const m1_prefix_cache *c, const m1_prefix_name *name);
/*
 * Takes a snapshot of a state that has been fed exactly the named prefix, giving up others for its room. false when it
 * could not be kept. There must be none of this name.
 */
bool m1_prefix_cache_add(m1_prefix_cache *c, const m1_prefix_name *name, const m1b_state *state);
/* Gives up the least recently used one that is not pinned. false when there is none. */
bool m1_prefix_cache_evict(m1_prefix_cache *c);

/* While pinned, a prefix is not given up. */
void m1_prefix_pin(m1_prefix *p);
void m1_prefix_unpin(m1_prefix *p);
/* The prefix was of use: it becomes the last to go. */
void m1_prefix_cache_touch(m1_prefix_cache *c, m1_prefix *p);
const m1b_snapshot *m1_prefix_snapshot(const m1_prefix *p);
int m1_prefix_tokens(const m1_prefix *p);

/* Snapshots and bytes, both exact. */
m1w_cache m1_prefix_cache_contents(const m1_prefix_cache *c);

/*
 * The memory of recent prompts: hashes of their beginnings, no ids. Returns whether this one was seen before, and
 * remembers it. A hash that two prompts share by accident costs a useless snapshot, never a wrong one.
 */
bool m1_prefix_cache_seen(m1_prefix_cache *c, uint64_t hash);

#endif
