/* admission.c - see admission.h. */
#include "engine/admission.h"

#include "model/state.h"

/* Logits requests neither use nor leave snapshots: they have no owner. */
static bool
takes_part(const m1_request *r)
{
	return r->kind != M1_REQUEST_LOGITS;
}

static m1_prefix_name
name_at(const m1_request *r, const m1_cut *cut)
{
	return m1_cuts_name(&r->cuts, cut, r->tokens.data);
}

/* ---- where snapshots are worth taking ---- */

/* The cut of r at which it has the same prefix as `name`, or NULL. */
static m1_cut *
same_prefix(m1_request *r, const m1_prefix_name *name)
{
	m1_cut *cut = m1_cuts_at(&r->cuts, name->n_tokens);
	m1_prefix_name own;

	if (!takes_part(r) || cut == NULL || cut->hash != name->hash)
		return NULL;
	own = name_at(r, cut);
	return m1_prefix_name_equal(&own, name) ? cut : NULL;
}

/* One who is on the way to the cut may as well take the snapshot there. */
static void
ask_others(const m1_crowd *crowd, const m1_prefix_name *name)
{
	m1_cut *cut;

	for (int i = 0; i < crowd->n_active; i++)
		if ((cut = same_prefix(crowd->active[i], name)) != NULL && crowd->active[i]->fed < cut->at)
			cut->wanted = true;
	for (m1_request *r = crowd->waiting; r != NULL; r = r->next)
		if ((cut = same_prefix(r, name)) != NULL)
			cut->wanted = true;
}

/*
 * At the request's own bounds; and, after the last of them, where it stops being like a recent prompt: the last cut
 * that one was seen to have, too.
 */
void
m1_admission_arrived(m1_prefix_cache *cache, const m1_crowd *crowd, m1_request *r)
{
	m1_cut *common = NULL;

	if (!takes_part(r))
		return;
	for (int i = 0; i < r->cuts.n; i++)
	{
		m1_cut *cut = &r->cuts.list[i];

		if (!m1_prefix_cache_could_hold(cache, cut->at))
			break;
		cut->wanted = cut->bound;
		if (cut->bound)
			common = NULL;
		else if (m1_prefix_cache_seen(cache, cut->hash))
			common = cut;
	}
	if (common != NULL)
	{
		m1_prefix_name name = name_at(r, common);

		common->wanted = true;
		ask_others(crowd, &name);
	}
}

/* ---- waiting for one who prefills the same ---- */

static bool
will_snapshot(const m1_request *r, m1_request *other, const m1_prefix_name *name)
{
	m1_cut *cut;

	/* one that is paused, or about to leave, may never come to it */
	if (other->paused || other->cancelled || other->ended)
		return false;
	/* and one that nobody waits for comes to it late */
	if (other->background && !r->background)
		return false;
	cut = same_prefix(other, name);
	return cut != NULL && cut->wanted && other->fed < cut->at;
}

/* Whether somebody is on the way to a longer prefix of r than the `cached` tokens that there are. */
static bool
is_being_prefilled(const m1_crowd *crowd, const m1_request *r, int cached)
{
	for (int i = r->cuts.n - 1; i >= 0 && r->cuts.list[i].at > cached; i--)
	{
		m1_prefix_name name;

		if (!r->cuts.list[i].wanted)
			continue;
		name = name_at(r, &r->cuts.list[i]);
		for (int j = 0; j < crowd->n_active; j++)
			if (will_snapshot(r, crowd->active[j], &name))
				return true;
	}
	return false;
}

/* ---- starting ---- */

static m1_prefix *
longest_prefix(const m1_prefix_cache *cache, const m1_request *r)
{
	if (!takes_part(r))
		return NULL;
	for (int i = r->cuts.n - 1; i >= 0; i--)
	{
		m1_prefix_name name = name_at(r, &r->cuts.list[i]);
		m1_prefix *p = m1_prefix_cache_find(cache, &name);

		if (p != NULL)
			return p;
	}
	return NULL;
}

/*
 * Whether giving up snapshots is sure to make room: all of them, or all but `prefix`. Otherwise the request has to wait
 * for another one's end in any case, and the snapshots stay.
 */
static bool
snapshots_are_in_the_way(const m1_model *model, int n_tokens, const m1_prefix *prefix)
{
	const m1b_memory m = m1_state_memory(model);
	const int pages = (n_tokens + m.page_tokens - 1) / m.page_tokens;

	if (pages <= m.free_pages + m.snapshot_pages)
		return true;
	if (prefix == NULL)
		return false;
	{
		const int full = m1_prefix_tokens(prefix) / m.page_tokens;

		return pages - full <= m.free_pages + m.snapshot_pages - (full + 1);
	}
}

static m1b_state *
acquire(const m1_model *model, int n_tokens, const m1_prefix *prefix)
{
	return m1_state_acquire(model, n_tokens, prefix != NULL ? m1_prefix_snapshot(prefix) : NULL);
}

/* Sets r->state when there is memory, and *prefix to NULL when even that had to go. */
static void
find_memory(m1_prefix_cache *cache, const m1_model *model, m1_request *r, m1_prefix **prefix)
{
	const int n_tokens = m1_request_most_tokens(r);

	while ((r->state = acquire(model, n_tokens, *prefix)) == NULL && snapshots_are_in_the_way(model, n_tokens, *prefix))
	{
		bool evicted;

		if (*prefix != NULL)
			m1_prefix_pin(*prefix);
		evicted = m1_prefix_cache_evict(cache);
		if (*prefix != NULL)
			m1_prefix_unpin(*prefix);
		if (!evicted && *prefix == NULL)
			return;
		if (!evicted)
			*prefix = NULL;
	}
}

/* Those who score hold their places from the start: they are on the way to it. */
static bool
can_score(const m1_model *model, const m1_crowd *crowd)
{
	int places = m1_state_memory(model).own_places;

	for (int i = 0; i < crowd->n_active; i++)
		places -= crowd->active[i]->scores != NULL;
	return places > 0;
}

m1_admission
m1_admission_try(m1_prefix_cache *cache, const m1_model *model, const m1_crowd *crowd, m1_request *r)
{
	m1_prefix *prefix = longest_prefix(cache, r);

	if (!r->alone && is_being_prefilled(crowd, r, prefix != NULL ? m1_prefix_tokens(prefix) : 0))
		return M1_WAITS_FOR_OTHERS;
	if (r->scores != NULL && !can_score(model, crowd))
		return M1_WAITS_FOR_OTHERS;
	find_memory(cache, model, r, &prefix);
	if (r->state == NULL)
		return M1_WAITS_FOR_MEMORY;
	if (prefix != NULL)
	{
		m1_prefix_cache_touch(cache, prefix);
		r->fed = r->cached_tokens = m1_prefix_tokens(prefix);
	}
	return M1_STARTED;
}

/* ---- on the way ---- */

void
m1_admission_fed(m1_prefix_cache *cache, const m1_crowd *crowd, m1_request *r)
{
	m1_cut *cut = m1_cuts_at(&r->cuts, r->fed);
	m1_prefix_name name;
	m1_prefix *there;

	if (cut == NULL || !cut->wanted)
		return;
	name = name_at(r, cut);
	if ((there = m1_prefix_cache_find(cache, &name)) != NULL)
	{
		/* two went on the way at the same time */
		m1_prefix_cache_touch(cache, there);
		return;
	}
	if (m1_prefix_cache_add(cache, &name, r->state))
		return;
	/* Whoever waited for it would wait for the next one in vain, too, one after the other. */
	for (m1_request *w = crowd->waiting; w != NULL; w = w->next)
		if (same_prefix(w, &name) != NULL)
			w->alone = true;
}
