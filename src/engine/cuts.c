/* cuts.c - see cuts.h. */
#include "engine/cuts.h"

#include <stdlib.h>
#include <string.h>

#define BOUND_MARK UINT64_C(0x100000000) /* no token id */

static uint64_t
mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

/* Keeps the bounds that cut something off, once each. */
static void
keep_bounds(m1_cuts *cuts, int n_tokens, int chunk, const int *bounds, int n_bounds)
{
	for (int i = 0; i < n_bounds && cuts->n_bounds < M1_MAX_BOUNDS; i++)
		if (bounds[i] >= M1_SHORTEST_PREFIX && bounds[i] < n_tokens && bounds[i] % chunk != 0 &&
			(cuts->n_bounds == 0 || bounds[i] > cuts->bounds[cuts->n_bounds - 1]))
			cuts->bounds[cuts->n_bounds++] = bounds[i];
}

/* A bound at a multiple of the chunk cuts nothing that is not cut anyway, but is still a bound. */
static bool
is_bound(int at, const int *bounds, int n_bounds)
{
	for (int i = 0; i < n_bounds; i++)
		if (bounds[i] == at)
			return true;
	return false;
}

bool
m1_cuts_make(m1_cuts *cuts, m1_cut_scope scope, const int32_t *ids, int n_tokens, int chunk, const int *bounds,
			 int n_bounds)
{
	uint64_t hash = mix(scope.adapter == 0 ? 0 : mix(0, (uint64_t) scope.adapter), scope.owner);
	int next = 0; /* of cuts->bounds */

	*cuts = (m1_cuts){.scope = scope};
	keep_bounds(cuts, n_tokens, chunk, bounds, n_bounds);
	cuts->list = calloc((size_t) (n_tokens / chunk + M1_MAX_BOUNDS), sizeof *cuts->list);
	if (cuts->list == NULL)
		return false;
	for (int at = 1; at < n_tokens; at++)
	{
		const bool own = next < cuts->n_bounds && cuts->bounds[next] == at;

		hash = mix(hash, (uint32_t) ids[at - 1]);
		if (own || at % chunk == 0)
			cuts->list[cuts->n++] =
				(m1_cut){.hash = hash, .at = at, .bound = at >= M1_SHORTEST_PREFIX && is_bound(at, bounds, n_bounds)};
		if (own)
		{
			hash = mix(hash, BOUND_MARK);
			next++;
		}
	}
	return true;
}

void
m1_cuts_free(m1_cuts *cuts)
{
	free(cuts->list);
	*cuts = (m1_cuts){0};
}

/* The index of the first cut after position `from`. */
static int
first_after(const m1_cuts *cuts, int from)
{
	int low = 0;
	int high = cuts->n;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (cuts->list[middle].at > from)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int
m1_cuts_next(const m1_cuts *cuts, int from, int end)
{
	int i = first_after(cuts, from);

	return i < cuts->n ? cuts->list[i].at : end;
}

m1_cut *
m1_cuts_at(m1_cuts *cuts, int at)
{
	int i = first_after(cuts, at - 1);

	return i < cuts->n && cuts->list[i].at == at ? &cuts->list[i] : NULL;
}

m1_prefix_name
m1_cuts_name(const m1_cuts *cuts, const m1_cut *cut, const int32_t *ids)
{
	m1_prefix_name name = {.scope = cuts->scope, .hash = cut->hash, .ids = ids, .n_tokens = cut->at};

	while (name.n_bounds < cuts->n_bounds && cuts->bounds[name.n_bounds] < cut->at)
	{
		name.bounds[name.n_bounds] = cuts->bounds[name.n_bounds];
		name.n_bounds++;
	}
	return name;
}

bool
m1_prefix_name_equal(const m1_prefix_name *a, const m1_prefix_name *b)
{
	return a->hash == b->hash && a->scope.owner == b->scope.owner && a->scope.adapter == b->scope.adapter &&
		   a->n_tokens == b->n_tokens && a->n_bounds == b->n_bounds &&
		   memcmp(a->bounds, b->bounds, (size_t) a->n_bounds * sizeof *a->bounds) == 0 &&
		   memcmp(a->ids, b->ids, (size_t) a->n_tokens * sizeof *a->ids) == 0;
}
