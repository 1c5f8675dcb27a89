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
	pthread_mutex_t lock;	   /* of what follows; compiling goes on under it, one at a time */
	m1_vocabulary *vocabulary; /* made for the first constraint */
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

static m1_constraint_kind
kind_of(const m1w_generate *g)
{
	switch ((m1w_constraint) g->constraint)
	{
		case M1W_CONSTRAINT_CHOICES:
			return M1_CONSTRAINT_CHOICES;
		case M1W_CONSTRAINT_REGEX:
			return M1_CONSTRAINT_REGEX;
		default:
			return M1_CONSTRAINT_JSON_SCHEMA;
	}
}

static m1_status
find_or_compile(m1_constraints *cs, const m1w_generate *g, m1_constraint **out, m1_error *err)
{
	const m1_constraint_kind kind = kind_of(g);
	const bool scored = g->score_choices != 0;
	m1_status status;

	for (int i = 0; i < cs->n_kept; i++)
		if (m1_constraint_is(cs->kept[i], kind, g->constraint_text, scored))
		{
			to_front(cs, i, *out = cs->kept[i]);
			return M1_OK;
		}
	if (cs->vocabulary == NULL &&
		(status = m1_vocabulary_create(cs->tokenizer, cs->n_tokens, &cs->vocabulary, err)) != M1_OK)
		return status;
	status = m1_constraint_compile(kind, g->constraint_text, scored, cs->vocabulary, NULL, out, err);
	if (status != M1_OK)
		return status;
	if (cs->n_kept == KEPT)
		m1_constraint_release(cs->kept[--cs->n_kept]);
	to_front(cs, cs->n_kept++, *out);
	return M1_OK;
}

m1_status
m1_constraints_get(m1_constraints *cs, const m1w_generate *g, m1_constraint **out, m1_error *err)
{
	m1_status status;

	pthread_mutex_lock(&cs->lock);
	status = find_or_compile(cs, g, out, err);
	if (status == M1_OK)
		m1_constraint_retain(*out);
	pthread_mutex_unlock(&cs->lock);
	return status;
}
