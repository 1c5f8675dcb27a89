/*
 * admission.h - whether a waiting request starts: from which snapshot, with what memory; and which snapshots its own
 * prefill leaves behind.
 *
 * Called by the step thread only. A request that finds another one prefilling what they have in common waits for that
 * snapshot; snapshots are given up before a request has to wait for memory. What scoring choices takes is none of the
 * cache's: a request that does so starts when there is a place for the snapshot that it will go back to, and has that
 * place to its end.
 */
#ifndef M1_ENGINE_ADMISSION_H
#define M1_ENGINE_ADMISSION_H

#include "engine/prefix_cache.h"
#include "engine/request.h"

/* Who else is there. Neither list is changed. */
typedef struct m1_crowd
{
	m1_request *const *active;
	int n_active;
	m1_request *waiting; /* in order of arrival */
} m1_crowd;

/* A request has arrived: notes at which of its cuts a snapshot is worth taking. r is not in the crowd yet. */
void m1_admission_arrived(m1_prefix_cache *cache, const m1_crowd *crowd, m1_request *r);

typedef enum m1_admission
{
	M1_STARTED,			 /* it has a state, and its first `fed` tokens in it */
	M1_WAITS_FOR_OTHERS, /* for a prefix, or for a place to score at: those behind it may go first */
	M1_WAITS_FOR_MEMORY, /* nobody may: a large request would never start */
} m1_admission;

m1_admission m1_admission_try(m1_prefix_cache *cache, const m1_model *model, const m1_crowd *crowd, m1_request *r);

/* The request has been fed up to a cut: keeps a snapshot if one is wanted there. */
void m1_admission_fed(m1_prefix_cache *cache, const m1_crowd *crowd, m1_request *r);

#endif
