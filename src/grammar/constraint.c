/*
 * constraint.c - see constraint.h.
 *
 * Masks are kept with the states of the automaton, within a budget: rows of a table that share a constraint go through
 * the same few states. When states or masks have outgrown their budgets, all are dropped but the states that cursors
 * are in; not while somebody's mask is half done, which is made of them, so others wait with theirs until it is.
 */
#define _DEFAULT_SOURCE /* explicit_bzero, pthread */
#include "grammar/constraint.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/automaton.h"
#include "grammar/choices.h"
#include "grammar/gbnf.h"
#include "grammar/jsonschema.h"
#include "grammar/regex.h"
#include "grammar/reply_form.h"
#include "grammar/token_mask.h"
#include "grammar/tool_calls.h"
#include "text/markup.h"

#define MASK_BUDGET ((size_t) 8 << 20)
#define STATE_BUDGET ((size_t) 2 << 20)

struct m1_constraint
{
	m1_constraint_spec spec; /* its texts are in `texts` */
	char *texts;
	int room;
	const m1_vocabulary *vocabulary;
	m1_nfa nfa;
	atomic_int users; /* who retains it, cursors included */

	pthread_mutex_t lock; /* of what follows */
	m1_automaton *automaton;
	m1_cursor *cursors;
	int half_done; /* masks of theirs */
	size_t mask_bytes;
};

/* Where a mask is. */
typedef enum mask_stage
{
	NOT_BEGUN,
	WITHOUT_LIMIT, /* the one that is kept with the state */
	WITH_LIMIT,
} mask_stage;

struct m1_cursor
{
	m1_constraint *constraint;
	int32_t state;
	int64_t work_left; /* for masks */
	mask_stage stage;
	m1_mask_task task;
	int64_t mask_work;			/* that is left to it */
	m1_cursor *previous, *next; /* in the constraint's list */
};

/* Before anything is parsed: what is parsed takes many times as much. */
static m1_status
check_size(m1_slice text, m1_error *err)
{
	if (text.len <= M1_CONSTRAINT_MAX_BYTES)
		return M1_OK;
	return m1_fail(err, M1_E_UNSUPPORTED, "the constraint has %zu bytes: more than %d", text.len,
				   M1_CONSTRAINT_MAX_BYTES);
}

/* ---- compiling ---- */

/* *start is M1_NFA_FAIL for an answer that is free. */
static m1_status
write_answer(m1_constraint *c, int32_t *start, m1_error *err)
{
	const m1_slice text = c->spec.text;

	*start = c->spec.kind == M1_CONSTRAINT_NONE ? M1_NFA_FAIL : M1_NFA_RETURN;
	if (c->spec.scored)
		return M1_OK;
	switch (c->spec.kind)
	{
		case M1_CONSTRAINT_NONE:
			return M1_OK;
		case M1_CONSTRAINT_CHOICES:
			return m1_choices_compile(&c->nfa, text, M1_NFA_RETURN, start, &c->room, err);
		case M1_CONSTRAINT_JSON_SCHEMA:
			return m1_jsonschema_compile(&c->nfa, text, M1_NFA_RETURN, start, err);
		case M1_CONSTRAINT_REGEX:
			return m1_regex_compile(&c->nfa, text, M1_REGEX_WHOLE, m1_nfa_characters, M1_NFA_RETURN, start, err);
	}
	return m1_fail(err, M1_E_INTERNAL, "there is no constraint of kind %d", (int) c->spec.kind);
}

/* Why the automaton did not go on. */
static m1_status
too_complex(const m1_automaton *a, m1_error *err)
{
	m1_fail(err, M1_E_UNSUPPORTED, "the constraint is too complex");
	if (a != NULL && m1_automaton_left(a) < 0)
		m1_error_detail(err,
						"To find out what may come next takes more than %lld steps for one token, or %lld for a reply.",
						(long long) M1_MASK_WORK, (long long) M1_CURSOR_WORK);
	else
		m1_error_detail(err, "It has too many ways to read one and the same text, or memory ran out.");
	m1_error_hint(err, "Make alternatives and repetitions that begin differently.");
	return M1_E_UNSUPPORTED;
}

/* Whether a text of the answer could begin as a reply that reasons does. */
static m1_status
looks_like_reasoning(const m1_nfa *nfa, bool *looks, m1_error *err)
{
	m1_automaton *a = m1_automaton_create(nfa);

	if (a == NULL)
		return too_complex(NULL, err);
	*looks = false;
	for (const char *c = "< \t\r\n"; *c != '\0'; c++)
		*looks |= m1_automaton_step(a, M1_AUTOMATON_START, (uint8_t) *c) != M1_AUTOMATON_DEAD;
	m1_automaton_free(a);
	return M1_OK;
}

/* What a reply writes behind its reasoning, and what one without reasoning does. */
typedef struct form
{
	int32_t answer, opening;
} form;

/* Calls come behind free text, or instead of an answer that has a form. */
static m1_status
add_calls(m1_constraint *c, int32_t answer, form *f, m1_error *err)
{
	m1_nfa *nfa = &c->nfa;
	m1_calls calls;
	int32_t written;
	m1_status status = m1_tool_calls_compile(nfa, c->spec.tools, c->spec.tool_choice, &calls, &written, err);

	if (status != M1_OK)
		return status;
	if (c->spec.kind == M1_CONSTRAINT_NONE && calls != M1_CALLS_REQUIRED)
	{
		const m1_free_text text = m1_reply_free_text(nfa, written);

		*f = (form){text.start, text.opening};
		return M1_OK;
	}
	written = m1_nfa_literal(nfa, m1_slice_of(M1_CALLS_OPEN), written);
	f->answer = f->opening = calls == M1_CALLS_REQUIRED ? written : m1_nfa_split(nfa, written, answer);
	return M1_OK;
}

/* Measures the answer and the reply around it together: rules that begin where the answer does, or with reasoning. */
static m1_status
compile(m1_constraint *c, m1_error *err)
{
	m1_nfa *nfa = &c->nfa;
	bool must_reason = c->spec.scored;
	form f;
	int32_t own; /* the answer but for calls */
	int32_t reasoning;
	int32_t either;
	m1_status status;

	if ((status = write_answer(c, &own, err)) != M1_OK)
		return status;
	f = (form){own, own};
	if (c->spec.tools.len > 0 && (status = add_calls(c, own, &f, err)) != M1_OK)
		return status;
	reasoning = m1_reply_reasoning(nfa, f.answer);
	either = m1_nfa_split(nfa, reasoning, f.opening);
	nfa->top = m1_nfa_new_rule(nfa, false);
	m1_nfa_set_rule(nfa, nfa->top, f.answer);
	if ((status = m1_nfa_finish(nfa, err)) != M1_OK)
		return status;
	if (c->room == 0)
		c->room = nfa->nodes[f.answer].shortest;
	m1_nfa_set_rule(nfa, nfa->top, own);
	if (!must_reason && own != M1_NFA_FAIL && (status = looks_like_reasoning(nfa, &must_reason, err)) != M1_OK)
		return status;
	m1_nfa_set_rule(nfa, nfa->top, must_reason ? reasoning : either);
	return (c->automaton = m1_automaton_create(nfa)) != NULL ? M1_OK : too_complex(NULL, err);
}

static size_t
texts_len(const m1_constraint_spec *s)
{
	return s->text.len + s->tools.len + s->tool_choice.len;
}

/* Copies a text to *at, and moves that behind it. */
static m1_slice
copy_text(m1_slice text, char **at)
{
	char *copy = *at;

	if (text.len > 0)
		memcpy(copy, text.data, text.len);
	*at += text.len;
	return (m1_slice){copy, text.len};
}

static bool
copy_spec(m1_constraint *c, const m1_constraint_spec *spec)
{
	char *at = c->texts = malloc(texts_len(spec) + 1);

	if (at == NULL)
		return false;
	c->spec = *spec;
	c->spec.text = copy_text(spec->text, &at);
	c->spec.tools = copy_text(spec->tools, &at);
	c->spec.tool_choice = copy_text(spec->tool_choice, &at);
	return true;
}

static void
destroy(m1_constraint *c)
{
	for (int32_t i = 0; c->automaton != NULL && i < m1_automaton_states(c->automaton); i++)
		free(m1_automaton_state(c->automaton, i)->mask);
	m1_automaton_free(c->automaton);
	m1_nfa_free(&c->nfa);
	if (c->texts != NULL)
		explicit_bzero(c->texts, texts_len(&c->spec));
	free(c->texts);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

m1_status
m1_constraint_compile(const m1_constraint_spec *spec, const m1_vocabulary *v, m1_work *work, m1_constraint **out,
					  m1_error *err)
{
	m1_constraint *c;
	m1_status status = M1_OK;

	*out = NULL;
	if ((status = check_size(spec->text, err)) != M1_OK)
		return status;
	if (!m1_work_goes_on(work, texts_len(spec)))
		return m1_work_stopped(work, "the constraint", err);
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	pthread_mutex_init(&c->lock, NULL);
	atomic_init(&c->users, 1);
	c->vocabulary = v;
	if (!copy_spec(c, spec) || !m1_nfa_init(&c->nfa, work))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	if (status != M1_OK || (status = compile(c, err)) != M1_OK)
	{
		destroy(c);
		return status;
	}
	c->nfa.work = NULL;
	*out = c;
	return M1_OK;
}

void
m1_constraint_retain(m1_constraint *c)
{
	atomic_fetch_add(&c->users, 1);
}

void
m1_constraint_release(m1_constraint *c)
{
	if (c != NULL && atomic_fetch_sub(&c->users, 1) == 1)
		destroy(c);
}

static bool
is_same(m1_slice a, m1_slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool
m1_constraint_is(const m1_constraint *c, const m1_constraint_spec *spec)
{
	return c->spec.kind == spec->kind && c->spec.scored == spec->scored && is_same(c->spec.text, spec->text) &&
		   is_same(c->spec.tools, spec->tools) && is_same(c->spec.tool_choice, spec->tool_choice);
}

int
m1_constraint_room(const m1_constraint *c)
{
	return c->room + 1;
}

/* ---- budgets ---- */

static void
drop_masks(m1_constraint *c)
{
	for (int32_t i = 0; i < m1_automaton_states(c->automaton); i++)
	{
		m1_state *s = m1_automaton_state(c->automaton, i);

		free(s->mask);
		s->mask = NULL;
	}
	c->mask_bytes = 0;
}

/* On failure the states simply stay. */
static void
drop_states(m1_constraint *c)
{
	size_t n = 0;
	int32_t **roots;

	for (m1_cursor *cursor = c->cursors; cursor != NULL; cursor = cursor->next)
		n++;
	if ((roots = calloc(n + 1, sizeof *roots)) == NULL)
		return;
	n = 0;
	for (m1_cursor *cursor = c->cursors; cursor != NULL; cursor = cursor->next)
		roots[n++] = &cursor->state;
	m1_automaton_compact(c->automaton, roots, n);
	free(roots);
}

/* Before a mask is begun. false: it has to wait for others'. */
static bool
keep_budgets(m1_constraint *c)
{
	const bool states = m1_automaton_bytes(c->automaton) > STATE_BUDGET;

	if (!states && c->mask_bytes <= MASK_BUDGET)
		return true;
	if (c->half_done > 0)
		return false;
	drop_masks(c);
	if (states)
		drop_states(c);
	return true;
}

/* ---- cursors ---- */

m1_cursor *
m1_cursor_create(m1_constraint *c)
{
	m1_cursor *cursor = calloc(1, sizeof *cursor);

	if (cursor == NULL)
		return NULL;
	m1_constraint_retain(c);
	cursor->constraint = c;
	cursor->state = M1_AUTOMATON_START;
	cursor->work_left = M1_CURSOR_WORK;
	pthread_mutex_lock(&c->lock);
	cursor->next = c->cursors;
	if (cursor->next != NULL)
		cursor->next->previous = cursor;
	c->cursors = cursor;
	pthread_mutex_unlock(&c->lock);
	return cursor;
}

/* The mask is there, or nobody wants it any more. */
static void
leave_mask(m1_cursor *cursor)
{
	if (cursor->stage != NOT_BEGUN)
		cursor->constraint->half_done--;
	cursor->stage = NOT_BEGUN;
}

void
m1_cursor_free(m1_cursor *cursor)
{
	m1_constraint *c;

	if (cursor == NULL)
		return;
	c = cursor->constraint;
	pthread_mutex_lock(&c->lock);
	leave_mask(cursor);
	if (cursor->previous != NULL)
		cursor->previous->next = cursor->next;
	else
		c->cursors = cursor->next;
	if (cursor->next != NULL)
		cursor->next->previous = cursor->previous;
	pthread_mutex_unlock(&c->lock);
	free(cursor);
	m1_constraint_release(c);
}

/* The state after these bytes. Under the lock. */
static int32_t
state_after(const m1_cursor *cursor, m1_slice bytes)
{
	m1_automaton *a = cursor->constraint->automaton;
	int32_t state = cursor->state;

	m1_automaton_allow(a, M1_MASK_WORK, M1_NO_TURN);
	for (size_t i = 0; i < bytes.len && state >= 0; i++)
		state = m1_automaton_step(a, state, (uint8_t) bytes.data[i]);
	return state;
}

bool
m1_cursor_allows(m1_cursor *cursor, m1_slice bytes)
{
	bool allowed;

	pthread_mutex_lock(&cursor->constraint->lock);
	allowed = state_after(cursor, bytes) != M1_AUTOMATON_DEAD;
	pthread_mutex_unlock(&cursor->constraint->lock);
	return allowed;
}

m1_status
m1_cursor_read(m1_cursor *cursor, m1_slice bytes, m1_error *err)
{
	m1_constraint *c = cursor->constraint;
	m1_status status = M1_OK;
	int32_t state;

	pthread_mutex_lock(&c->lock);
	state = state_after(cursor, bytes);
	if (state >= 0)
		cursor->state = state;
	else if (state == M1_AUTOMATON_TOO_LARGE)
		status = too_complex(c->automaton, err);
	else
		status = m1_fail(err, M1_E_INTERNAL, "the reply has left its constraint");
	pthread_mutex_unlock(&c->lock);
	return status;
}

m1_status
m1_cursor_write_grammar(m1_cursor *cursor, m1_buf *out, m1_error *err)
{
	m1_status status;

	pthread_mutex_lock(&cursor->constraint->lock);
	status = m1_gbnf_write(cursor->constraint->automaton, cursor->state, out, err);
	pthread_mutex_unlock(&cursor->constraint->lock);
	return status;
}

bool
m1_cursor_at_end(m1_cursor *cursor, bool *only)
{
	m1_constraint *c = cursor->constraint;
	const m1_state *s;
	bool accepting;

	pthread_mutex_lock(&c->lock);
	s = m1_automaton_state(c->automaton, cursor->state);
	accepting = s->accepting;
	*only = accepting && s->n == 0;
	pthread_mutex_unlock(&c->lock);
	return accepting;
}

/* The greatest distance from an end that a token may lead to: what comes after it must fit, and the end of turn. */
static int32_t
limit_of(const m1_constraint *c, int tokens_left)
{
	if (c->spec.kind == M1_CONSTRAINT_CHOICES || tokens_left - 2 >= M1_NO_LIMIT)
		return M1_NO_LIMIT;
	return tokens_left - 2;
}

static bool
copy_known(const m1_constraint *c, const m1_state *s, int32_t limit, uint64_t *mask)
{
	if (s->mask == NULL || s->farthest > limit)
		return false;
	memcpy(mask, s->mask, (size_t) c->vocabulary->words * sizeof *mask);
	return true;
}

bool
m1_cursor_known_mask(m1_cursor *cursor, int tokens_left, uint64_t *mask)
{
	m1_constraint *c = cursor->constraint;
	bool known;

	pthread_mutex_lock(&c->lock);
	known = copy_known(c, m1_automaton_state(c->automaton, cursor->state), limit_of(c, tokens_left), mask);
	if (known)
		leave_mask(cursor);
	pthread_mutex_unlock(&c->lock);
	return known;
}

static bool
is_empty(const uint64_t *mask, int words)
{
	for (int i = 0; i < words; i++)
		if (mask[i] != 0)
			return false;
	return true;
}

/* The mask without a limit is done, and kept with its state. */
static bool
keep_mask(m1_cursor *cursor, const uint64_t *mask)
{
	m1_constraint *c = cursor->constraint;
	const size_t bytes = (size_t) c->vocabulary->words * sizeof *mask;
	m1_state *s = m1_automaton_state(c->automaton, cursor->state);

	if ((s->mask = malloc(bytes)) == NULL)
		return false;
	memcpy(s->mask, mask, bytes);
	s->farthest = cursor->task.farthest;
	c->mask_bytes += bytes;
	return true;
}

static m1_mask_progress
go_on(m1_cursor *cursor, uint64_t *mask)
{
	return m1_mask_go_on(&cursor->task, cursor->constraint->automaton, cursor->constraint->vocabulary, mask);
}

/* Sees to it that the mask without a limit is known; another cursor may have done it, too. */
static m1_mask_progress
learn_mask(m1_cursor *cursor, uint64_t *mask)
{
	m1_mask_progress progress;

	if (m1_automaton_state(cursor->constraint->automaton, cursor->state)->mask != NULL)
		return M1_MASK_DONE;
	progress = go_on(cursor, mask);
	if (progress == M1_MASK_DONE && !keep_mask(cursor, mask))
		return M1_MASK_FAILED;
	return progress;
}

static m1_mask_progress
fill_mask(m1_cursor *cursor, int32_t limit, uint64_t *mask)
{
	m1_constraint *c = cursor->constraint;
	m1_mask_progress progress;

	if (cursor->stage == WITHOUT_LIMIT)
	{
		if ((progress = learn_mask(cursor, mask)) != M1_MASK_DONE)
			return progress;
		if (copy_known(c, m1_automaton_state(c->automaton, cursor->state), limit, mask))
			return M1_MASK_DONE;
		cursor->stage = WITH_LIMIT;
		m1_mask_begin(&cursor->task, cursor->state, limit);
	}
	progress = go_on(cursor, mask);
	if (progress != M1_MASK_DONE || !is_empty(mask, c->vocabulary->words))
		return progress;
	/* Too late to end in time: then at least nothing wrong is written. */
	copy_known(c, m1_automaton_state(c->automaton, cursor->state), M1_NO_LIMIT, mask);
	return M1_MASK_DONE;
}

int64_t
m1_cursor_ordinary_work(const m1_cursor *cursor)
{
	return M1_TOKEN_WORK + 2 * cursor->constraint->vocabulary->all.n;
}

/* false: it is not time yet. */
static bool
begin_mask(m1_cursor *cursor)
{
	m1_constraint *c = cursor->constraint;

	if (!keep_budgets(c))
		return false;
	cursor->work_left += m1_cursor_ordinary_work(cursor);
	cursor->mask_work = cursor->work_left < M1_MASK_WORK ? cursor->work_left : M1_MASK_WORK;
	cursor->stage = WITHOUT_LIMIT;
	c->half_done++;
	m1_mask_begin(&cursor->task, cursor->state, M1_NO_LIMIT);
	return true;
}

/* What has been done is the mask's, the reply's and the turn's. */
static void
count_work(m1_cursor *cursor, int64_t *turn)
{
	const int64_t used = cursor->mask_work - m1_automaton_left(cursor->constraint->automaton);

	cursor->mask_work -= used;
	cursor->work_left -= used;
	if (*turn != M1_NO_TURN)
		*turn = m1_automaton_left_of_turn(cursor->constraint->automaton);
}

m1_status
m1_cursor_mask(m1_cursor *cursor, int tokens_left, int64_t *turn, uint64_t *mask, bool *done, m1_error *err)
{
	m1_constraint *c = cursor->constraint;
	m1_mask_progress progress = M1_MASK_TURN_OVER;
	m1_status status = M1_OK;

	pthread_mutex_lock(&c->lock);
	if (cursor->stage != NOT_BEGUN || begin_mask(cursor))
	{
		m1_automaton_allow(c->automaton, cursor->mask_work, *turn);
		progress = fill_mask(cursor, limit_of(c, tokens_left), mask);
		if (progress == M1_MASK_FAILED)
			status = too_complex(c->automaton, err);
		count_work(cursor, turn);
	}
	*done = progress != M1_MASK_TURN_OVER;
	if (*done)
		leave_mask(cursor);
	pthread_mutex_unlock(&c->lock);
	if (*done && cursor->work_left > M1_CURSOR_WORK)
		cursor->work_left = M1_CURSOR_WORK;
	return status;
}
