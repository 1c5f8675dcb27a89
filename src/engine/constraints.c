/* constraints.c - see constraints.h. */
#define _POSIX_C_SOURCE 200809L /* pthread */
#include "engine/constraints.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEPT 32

struct m1_constraints
{
	const m1_tokenizer *tokenizer;
	int n_tokens;
	pthread_mutex_t lock;	   /* of what follows; nobody compiles under it */
	m1_vocabulary *vocabulary; /* made for the first constraint; stays */
	m1_constraint *kept[KEPT]; /* the last used first */
	int n_kept;
};

m1_constraints *
m1_constraints_create(const m1_tokenizer *t, int n_tokens)
{
	m1_constraints *cs = calloc(1, sizeof *cs);

	if (cs == NULL)
		return NULL;
	cs->tokenizer = t;
	cs->n_tokens = n_tokens;
	pthread_mutex_init(&cs->lock, NULL);
	return cs;
}

void
m1_constraints_free(m1_constraints *cs)
{
	if (cs == NULL)
		return;
	for (int i = 0; i < cs->n_kept; i++)
		m1_constraint_release(cs->kept[i]);
	m1_vocabulary_free(cs->vocabulary);
	pthread_mutex_destroy(&cs->lock);
	free(cs);
}

const m1_vocabulary *
m1_constraints_vocabulary(const m1_constraints *cs)
{
	return cs->vocabulary;
}

/* Moves what is at place i to the front, or puts c there. */
static void
to_front(m1_constraints *cs, int i, m1_constraint *c)
{
	memmove(&cs->kept[1], &cs->kept[0], (size_t) i * sizeof *cs->kept);
	cs->kept[0] = c;
}

static m1_constraint_spec
spec_of(const m1w_generate *g)
{
	static const m1_constraint_kind kinds[M1W_CONSTRAINT_COUNT] = {
		[M1W_CONSTRAINT_NONE] = M1_CONSTRAINT_NONE,
		[M1W_CONSTRAINT_CHOICES] = M1_CONSTRAINT_CHOICES,
		[M1W_CONSTRAINT_JSON_SCHEMA] = M1_CONSTRAINT_JSON_SCHEMA,
		[M1W_CONSTRAINT_REGEX] = M1_CONSTRAINT_REGEX,
	};

	return (m1_constraint_spec){.kind = kinds[g->constraint],
								.text = g->constraint_text,
								.scored = g->score_choices != 0,
								.tools = g->tools,
								.tool_choice = g->tool_choice};
}

/* The kept constraint of g, retained, or NULL. Under the lock, as the next two. */
static m1_constraint *
find(m1_constraints *cs, const m1w_generate *g)
{
	const m1_constraint_spec spec = spec_of(g);

	for (int i = 0; i < cs->n_kept; i++)
	{
		m1_constraint *c = cs->kept[i];

		if (!m1_constraint_is(c, &spec))
			continue;
		to_front(cs, i, c);
		m1_constraint_retain(c);
		return c;
	}
	return NULL;
}

/* Returns the one that makes room for it, or NULL: it is large, and is not freed under the lock. */
static m1_constraint *
keep(m1_constraints *cs, m1_constraint *c)
{
	m1_constraint *last = cs->n_kept == KEPT ? cs->kept[--cs->n_kept] : NULL;

	to_front(cs, cs->n_kept++, c);
	m1_constraint_retain(c);
	return last;
}

static m1_status
make_vocabulary(m1_constraints *cs, m1_error *err)
{
	if (cs->vocabulary != NULL)
		return M1_OK;
	return m1_vocabulary_create(cs->tokenizer, cs->n_tokens, &cs->vocabulary, err);
}

/* Another thread may have compiled the same meanwhile: then that one is kept and used. */
static m1_constraint *
keep_or_find(m1_constraints *cs, const m1w_generate *g, m1_constraint *compiled)
{
	m1_constraint *dropped = NULL;
	m1_constraint *kept;

	pthread_mutex_lock(&cs->lock);
	if ((kept = find(cs, g)) == NULL)
		dropped = keep(cs, compiled);
	pthread_mutex_unlock(&cs->lock);
	m1_constraint_release(dropped);
	if (kept == NULL)
		return compiled;
	m1_constraint_release(compiled);
	return kept;
}

m1_status
m1_constraints_get(m1_constraints *cs, const m1w_generate *g, m1_work *work, m1_constraint **out, m1_error *err)
{
	const m1_constraint_spec spec = spec_of(g);
	m1_status status = M1_OK;

	pthread_mutex_lock(&cs->lock);
	if ((*out = find(cs, g)) == NULL)
		status = make_vocabulary(cs, err);
	pthread_mutex_unlock(&cs->lock);
	if (status != M1_OK || *out != NULL)
		return status;
	status = m1_constraint_compile(&spec, cs->vocabulary, work, out, err);
	if (status == M1_OK)
		*out = keep_or_find(cs, g, *out);
	return status;
}
