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

#include "base/sort.h"
#include "grammar/automaton.h"
#include "grammar/jsonschema.h"
#include "grammar/regex.h"
#include "grammar/token_mask.h"
#include "text/jsonparse.h"
#include "text/markup.h"

#define MASK_BUDGET ((size_t) 8 << 20)
#define STATE_BUDGET ((size_t) 2 << 20)

struct m1_constraint
{
	m1_constraint_kind kind;
	bool scored;
	char *text;
	size_t text_len;
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

/* ---- choices ---- */

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static m1_status
check_distinct(char *const *choices, size_t n, m1_error *err)
{
	char **sorted = malloc(n * sizeof *sorted);
	m1_status status = M1_OK;

	if (sorted == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	memcpy(sorted, choices, n * sizeof *sorted);
	m1_sort(sorted, n, sizeof *sorted, by_text);
	for (size_t i = 1; i < n && status == M1_OK; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			status = m1_fail(err, M1_E_INVALID_ARGUMENT, "choice \"%.100s\" is given twice", sorted[i]);
	free(sorted);
	return status;
}

static m1_status
copy_choices(const m1_json *array, char **choices, m1_error *err)
{
	size_t i = 0;

	m1_json_foreach (array, one)
	{
		if (!m1_json_is(one, M1_JSON_STRING))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "choice %zu is not a string", i + 1);
		if (one->n == 0)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "choice %zu is empty", i + 1);
		if ((choices[i++] = strdup(one->text)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	}
	return check_distinct(choices, i, err);
}

m1_status
m1_choices_parse(m1_slice text, char ***choices, size_t *n, m1_error *err)
{
	m1_json_doc doc;
	m1_error why;
	m1_status status;

	*choices = NULL;
	*n = 0;
	if ((status = check_size(text, err)) != M1_OK)
		return status;
	status = m1_json_parse(text, "the list of choices", NULL, &doc, &why);
	*n = m1_json_is(doc.root, M1_JSON_ARRAY) ? m1_json_size(doc.root) : 0;
	if (status != M1_OK && status != M1_E_INVALID_ARGUMENT)
		status = m1_fail(err, status, "%s", why.message);
	else if (*n == 0)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "the choices are not a JSON array of strings");
		m1_error_detail(err, "%s", status != M1_OK ? why.detail : "");
		status = M1_E_INVALID_ARGUMENT;
	}
	else if (*n > M1_MAX_CHOICES)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "there are more than %d choices", M1_MAX_CHOICES);
	else if ((*choices = calloc(*n, sizeof **choices)) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	else if ((status = copy_choices(doc.root, *choices, err)) != M1_OK)
	{
		m1_choices_free(*choices, *n);
		*choices = NULL;
	}
	m1_json_free(&doc);
	return status;
}

void
m1_choices_free(char **choices, size_t n)
{
	for (size_t i = 0; i < n && choices != NULL; i++)
		if (choices[i] != NULL)
		{
			explicit_bzero(choices[i], strlen(choices[i]));
			free(choices[i]);
		}
	free(choices);
}

static m1_status
write_choices(m1_constraint *c, m1_slice text, int32_t next, int32_t *start, m1_error *err)
{
	char **choices;
	size_t n;
	m1_status status = m1_choices_parse(text, &choices, &n, err);

	*start = M1_NFA_FAIL;
	if (status != M1_OK)
		return status;
	for (size_t i = n; i-- > 0;)
	{
		const int len = (int) strlen(choices[i]);

		*start = m1_nfa_split(&c->nfa, m1_nfa_literal(&c->nfa, m1_slice_of(choices[i]), next), *start);
		c->room = len > c->room ? len : c->room;
	}
	m1_choices_free(choices, n);
	return M1_OK;
}

/* ---- compiling ---- */

static m1_status
write_answer(m1_constraint *c, m1_slice text, int32_t *start, m1_error *err)
{
	*start = M1_NFA_RETURN;
	if (c->scored)
		return M1_OK;
	switch (c->kind)
	{
		case M1_CONSTRAINT_CHOICES:
			return write_choices(c, text, M1_NFA_RETURN, start, err);
		case M1_CONSTRAINT_JSON_SCHEMA:
			return m1_jsonschema_compile(&c->nfa, text, M1_NFA_RETURN, start, err);
		case M1_CONSTRAINT_REGEX:
			return m1_regex_compile(&c->nfa, text, M1_REGEX_WHOLE, m1_nfa_characters, M1_NFA_RETURN, start, err);
	}
	return m1_fail(err, M1_E_INTERNAL, "there is no constraint of kind %d", (int) c->kind);
}

/* The bytes that are neither a nor b. */
static int32_t
other_bytes(m1_nfa *nfa, unsigned a, unsigned b, int32_t next)
{
	const unsigned low = a < b ? a : b;
	const unsigned high = a < b ? b : a;
	int32_t start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, 0, (uint8_t) (low - 1), next),
								 m1_nfa_bytes(nfa, (uint8_t) (high + 1), 255, next));

	if (low + 1 < high)
		start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, (uint8_t) (low + 1), (uint8_t) (high - 1), next), start);
	return start;
}

/* Anything up to the first </think>, as reply.c finds it: places by how much of the tag has been read. */
static int32_t
write_free_text(m1_nfa *nfa, int32_t next)
{
	const char *tag = M1_THINK_CLOSE;
	const int32_t nothing = m1_nfa_open_loop(nfa, M1_NFA_FAIL);
	const int32_t one = m1_nfa_open_loop(nfa, M1_NFA_FAIL);
	int32_t at = next;

	for (size_t k = strlen(tag); k-- > 0;)
	{
		const uint8_t c = (uint8_t) tag[k];
		int32_t here = m1_nfa_split(nfa, m1_nfa_bytes(nfa, c, c, at), other_bytes(nfa, c, '<', nothing));

		if (c != '<')
			here = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '<', '<', one), here);
		if (k == 1)
			m1_nfa_close_loop(nfa, one, here);
		at = k == 1 ? one : here;
	}
	m1_nfa_close_loop(nfa, nothing, at);
	return nothing;
}

/* Reasoning, its markup and then the answer. A little white space may come first: models write some. */
static int32_t
write_reasoning(m1_nfa *nfa, int32_t answer)
{
	static const m1_range blanks[] = {{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}};
	const int32_t open = m1_nfa_literal(nfa, m1_slice_of(M1_THINK_OPEN),
										write_free_text(nfa, m1_nfa_literal(nfa, m1_slice_of("\n\n"), answer)));
	int32_t start = open;

	for (int i = 0; i < 2; i++)
		start = m1_nfa_split(nfa, m1_nfa_characters(nfa, blanks, sizeof blanks / sizeof *blanks, start), open);
	return start;
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

/* Measures the answer and the reply around it together: rules that begin where the answer does, or with reasoning. */
static m1_status
compile(m1_constraint *c, m1_slice text, m1_error *err)
{
	m1_nfa *nfa = &c->nfa;
	bool must_reason = c->scored;
	int32_t answer;
	int32_t reasoning;
	int32_t either;
	m1_status status;

	if ((status = write_answer(c, text, &answer, err)) != M1_OK)
		return status;
	reasoning = write_reasoning(nfa, answer);
	either = m1_nfa_split(nfa, reasoning, answer);
	nfa->top = m1_nfa_new_rule(nfa, false);
	m1_nfa_set_rule(nfa, nfa->top, answer);
	if ((status = m1_nfa_finish(nfa, err)) != M1_OK)
		return status;
	if (c->room == 0)
		c->room = nfa->nodes[answer].shortest;
	if (!must_reason && (status = looks_like_reasoning(nfa, &must_reason, err)) != M1_OK)
		return status;
	m1_nfa_set_rule(nfa, nfa->top, must_reason ? reasoning : either);
	return (c->automaton = m1_automaton_create(nfa)) != NULL ? M1_OK : too_complex(NULL, err);
}

static void
destroy(m1_constraint *c)
{
	for (int32_t i = 0; c->automaton != NULL && i < m1_automaton_states(c->automaton); i++)
		free(m1_automaton_state(c->automaton, i)->mask);
	m1_automaton_free(c->automaton);
	m1_nfa_free(&c->nfa);
	if (c->text != NULL)
		explicit_bzero(c->text, c->text_len);
	free(c->text);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

m1_status
m1_constraint_compile(m1_constraint_kind kind, m1_slice text, bool scored, const m1_vocabulary *v, m1_work *work,
					  m1_constraint **out, m1_error *err)
{
	m1_constraint *c;
	m1_status status = M1_OK;

	*out = NULL;
	if ((status = check_size(text, err)) != M1_OK)
		return status;
	if (!m1_work_goes_on(work, text.len))
		return m1_work_stopped(work, "the constraint", err);
	c = calloc(1, sizeof *c);
	if (c == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	pthread_mutex_init(&c->lock, NULL);
	atomic_init(&c->users, 1);
	c->kind = kind;
	c->scored = scored;
	c->vocabulary = v;
	c->text_len = text.len;
	if ((c->text = malloc(text.len + 1)) == NULL || !m1_nfa_init(&c->nfa, work))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	else
		memcpy(c->text, text.data, text.len);
	if (status != M1_OK || (status = compile(c, text, err)) != M1_OK)
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

bool
m1_constraint_is(const m1_constraint *c, m1_constraint_kind kind, m1_slice text, bool scored)
{
	return c->kind == kind && c->scored == scored && c->text_len == text.len &&
		   memcmp(c->text, text.data, text.len) == 0;
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

m1_status
m1_cursor_read(m1_cursor *cursor, m1_slice bytes, m1_error *err)
{
	m1_constraint *c = cursor->constraint;
	int32_t state = cursor->state;
	m1_status status = M1_OK;

	pthread_mutex_lock(&c->lock);
	m1_automaton_allow(c->automaton, M1_MASK_WORK, M1_NO_TURN);
	for (size_t i = 0; i < bytes.len && state >= 0; i++)
		state = m1_automaton_step(c->automaton, state, (uint8_t) bytes.data[i]);
	if (state >= 0)
		cursor->state = state;
	else if (state == M1_AUTOMATON_TOO_LARGE)
		status = too_complex(c->automaton, err);
	else
		status = m1_fail(err, M1_E_INTERNAL, "the reply has left its constraint");
	pthread_mutex_unlock(&c->lock);
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
	if (c->kind == M1_CONSTRAINT_CHOICES || tokens_left - 2 >= M1_NO_LIMIT)
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
		*turn -= used;
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
