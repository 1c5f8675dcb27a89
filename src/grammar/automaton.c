/* automaton.c - see automaton.h. Stacks are shared lists: equal stacks have equal numbers, so places compare fast. */
#include "grammar/automaton.h"

#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

/* Beyond these, a constraint costs other requests too much time. */
#define MAX_BYTES ((size_t) 64 << 20)
#define MAX_PLACES 16384 /* of one state */

#define NO_STACK 0 /* nothing to return to */

/* A node to go on with, and the stack to go on with from there. */
typedef struct frame
{
	int32_t node;
	int32_t parent;
	int32_t shortest; /* bytes to the very end */
	int32_t nesting;  /* rules that nest, on the way down */
	int32_t shape;	  /* the stack with the first node of its chain for each node that has one */
} frame;

/* Numbers by hash: open addressing, at most half full. */
typedef struct table
{
	int32_t *slots; /* -1 = free */
	size_t cap;
	size_t used;
} table;

struct m1_automaton
{
	const m1_nfa *nfa;
	m1_state *states;
	size_t n_states, cap_states;
	int32_t *next; /* [cap_states, classes] */
	m1_place *places;
	size_t n_places, cap_places;
	frame *stacks;
	size_t n_stacks, cap_stacks;
	table state_index;
	table stack_index;
	int64_t left;		/* units of work */
	int64_t left_after; /* this turn */

	/* work space of one step */
	m1_place *todo;
	size_t n_todo, cap_todo;
	m1_place *met; /* those already followed, by hash; empty where stamp differs */
	uint32_t *met_stamp;
	size_t cap_met, n_met;
	uint32_t stamp;
};

/* ---- growing ---- */

static bool
grow(void **data, size_t *cap, size_t need, size_t unit)
{
	size_t new_cap = *cap < 64 ? 64 : *cap;
	void *new_data;

	if (need <= *cap)
		return true;
	while (new_cap < need)
		new_cap *= 2;
	if ((new_data = realloc(*data, new_cap * unit)) == NULL)
		return false;
	*data = new_data;
	*cap = new_cap;
	return true;
}

#define GROW(a, field, need) grow((void **) &(a)->field, &(a)->cap_##field, need, sizeof *(a)->field)

static uint64_t
mix(uint64_t h, uint64_t value)
{
	h = (h ^ value) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static bool
table_grow(table *x, uint64_t (*hash)(const m1_automaton *a, int32_t i), const m1_automaton *a)
{
	table bigger = {.cap = x->cap < 64 ? 64 : x->cap * 2, .used = x->used};

	if ((bigger.slots = malloc(bigger.cap * sizeof *bigger.slots)) == NULL)
		return false;
	memset(bigger.slots, 0xff, bigger.cap * sizeof *bigger.slots);
	for (size_t i = 0; i < x->cap; i++)
		if (x->slots[i] >= 0)
		{
			size_t at = hash(a, x->slots[i]) & (bigger.cap - 1);

			while (bigger.slots[at] >= 0)
				at = (at + 1) & (bigger.cap - 1);
			bigger.slots[at] = x->slots[i];
		}
	free(x->slots);
	*x = bigger;
	return true;
}

/* ---- stacks ---- */

static uint64_t
hash_frame(const m1_automaton *a, int32_t i)
{
	return mix(mix(1, (uint32_t) a->stacks[i].node), (uint32_t) a->stacks[i].parent);
}

/* The stack that has node above parent, as it is found or added; its shape is set by push_frame. */
static int32_t
find_frame(m1_automaton *a, int32_t node, int32_t parent, bool nests)
{
	size_t at;

	if (!GROW(a, stacks, a->n_stacks + 1) ||
		(a->stack_index.used * 2 >= a->stack_index.cap && !table_grow(&a->stack_index, hash_frame, a)))
		return -1;
	a->stacks[a->n_stacks] = (frame){
		.node = node,
		.parent = parent,
		.shortest = a->stacks[parent].shortest + a->nfa->nodes[node].shortest,
		.nesting = a->stacks[parent].nesting + nests,
		.shape = -1,
	};
	if (a->stacks[a->n_stacks].shortest > M1_NFA_NEVER)
		a->stacks[a->n_stacks].shortest = M1_NFA_NEVER;
	for (at = hash_frame(a, (int32_t) a->n_stacks) & (a->stack_index.cap - 1); a->stack_index.slots[at] >= 0;
		 at = (at + 1) & (a->stack_index.cap - 1))
	{
		const frame *f = &a->stacks[a->stack_index.slots[at]];

		/* the same node is returned to from rules that nest or from others, never from both */
		if (f->node == node && f->parent == parent && f->nesting == a->stacks[a->n_stacks].nesting)
			return a->stack_index.slots[at];
	}
	a->stack_index.slots[at] = (int32_t) a->n_stacks;
	a->stack_index.used++;
	return (int32_t) a->n_stacks++;
}

/* The stack that has node above parent; -1 when memory ran out. */
static int32_t
push_frame(m1_automaton *a, int32_t node, int32_t parent, bool nests)
{
	const int32_t chain = a->nfa->nodes[node].chain;
	const int32_t first = chain != 0 ? chain : node;
	const int32_t shape_below = a->stacks[parent].shape;
	const int32_t stack = find_frame(a, node, parent, nests);
	int32_t shape;

	if (stack < 0 || a->stacks[stack].shape >= 0)
		return stack;
	shape = first == node && shape_below == parent ? stack : find_frame(a, first, shape_below, nests);
	if (shape < 0)
		return -1;
	a->stacks[shape].shape = shape;
	a->stacks[stack].shape = shape;
	return stack;
}

/* Of two stacks of one shape: all that may follow t may follow s. */
static bool
allows_all_of(const m1_automaton *a, int32_t s, int32_t t)
{
	for (; s != t; s = a->stacks[s].parent, t = a->stacks[t].parent)
		if (a->stacks[s].node < a->stacks[t].node)
			return false;
	return true;
}

/* ---- the places of one state ---- */

/* Places that may make each other needless have the same hash. */
static uint64_t
hash_place(const m1_place *place)
{
	return mix(mix(2, (uint32_t) place->node), (uint32_t) place->shape);
}

static bool
met_grow(m1_automaton *a)
{
	const size_t cap = a->cap_met < 64 ? 64 : a->cap_met * 2;
	m1_place *met = malloc(cap * sizeof *met);
	uint32_t *stamps = calloc(cap, sizeof *stamps);

	if (met == NULL || stamps == NULL)
	{
		free(met);
		free(stamps);
		return false;
	}
	for (size_t i = 0; i < a->cap_met; i++)
		if (a->met_stamp[i] == a->stamp)
		{
			size_t at = hash_place(&a->met[i]) & (cap - 1);

			while (stamps[at] == a->stamp)
				at = (at + 1) & (cap - 1);
			met[at] = a->met[i];
			stamps[at] = a->stamp;
		}
	free(a->met);
	free(a->met_stamp);
	a->met = met;
	a->met_stamp = stamps;
	a->cap_met = cap;
	return true;
}

/*
 * Notes a place that is to be followed, unless one that allows all that it does has been met in this step: so a body
 * that may be empty is followed once, not for each of its repetitions. false when memory ran out.
 */
static bool
meet(m1_automaton *a, int32_t node, int32_t stack)
{
	const m1_nfa_node *n = &a->nfa->nodes[node];
	const m1_place place = {.node = node, .shape = a->stacks[stack].shape, .stack = stack};
	size_t at;

	/* no end from here within the nesting that is allowed; where there is none at all, nesting is M1_NFA_NEVER */
	if (n->nesting + a->stacks[stack].nesting > M1_NFA_MAX_NESTING)
		return true;
	if (a->n_met > 4 * MAX_PLACES || !GROW(a, todo, a->n_todo + 1) || (a->n_met * 2 >= a->cap_met && !met_grow(a)))
		return false;
	for (at = hash_place(&place) & (a->cap_met - 1); a->met_stamp[at] == a->stamp; at = (at + 1) & (a->cap_met - 1))
	{
		if (a->met[at].node == node && a->met[at].shape == place.shape && allows_all_of(a, a->met[at].stack, stack))
			return true;
		a->left--;
	}
	a->met[at] = place;
	a->met_stamp[at] = a->stamp;
	a->n_met++;
	a->todo[a->n_todo++] = place;
	return true;
}

static bool
enter_rule(m1_automaton *a, const m1_nfa_node *call, int32_t stack)
{
	const m1_nfa_rule *rule = &a->nfa->rules[call->other];

	/* A call at the end of a rule returns where the rule returns. Levels of nesting are counted in frames. */
	if (call->next != M1_NFA_RETURN || rule->nests)
		stack = push_frame(a, call->next, stack, rule->nests);
	return stack >= 0 && meet(a, rule->start, stack);
}

/* Follows all that needs no byte; what reads one is appended to the places. *accepting: the end is among them. */
static bool
follow(m1_automaton *a, bool *accepting)
{
	*accepting = false;
	while (a->n_todo > 0)
	{
		const m1_place at = a->todo[--a->n_todo];
		const m1_nfa_node *n = &a->nfa->nodes[at.node];
		bool ok = true;

		switch ((m1_node_kind) n->kind)
		{
			case M1_NODE_FAIL:
				break;
			case M1_NODE_RETURN:
				if (at.stack == NO_STACK)
					*accepting = true;
				else
					ok = meet(a, a->stacks[at.stack].node, a->stacks[at.stack].parent);
				break;
			case M1_NODE_SPLIT:
				ok = meet(a, n->next, at.stack) && meet(a, n->other, at.stack);
				break;
			case M1_NODE_CALL:
				ok = enter_rule(a, n, at.stack);
				break;
			case M1_NODE_BYTES:
				if ((ok = GROW(a, places, a->n_places + 1)))
					a->places[a->n_places++] = at;
				break;
		}
		if (!ok)
			return false;
	}
	return true;
}

/* ---- work ---- */

void
m1_automaton_allow(m1_automaton *a, int64_t units, int64_t turn)
{
	a->left = units;
	a->left_after = units - turn;
}

bool
m1_automaton_goes_on(m1_automaton *a, int64_t units)
{
	a->left -= units;
	return a->left >= 0;
}

bool
m1_automaton_turn_is_over(const m1_automaton *a)
{
	return a->left < a->left_after;
}

int64_t
m1_automaton_left(const m1_automaton *a)
{
	return a->left;
}

int64_t
m1_automaton_left_of_turn(const m1_automaton *a)
{
	return a->left - a->left_after;
}

/* ---- states ---- */

static uint64_t
hash_state(const m1_automaton *a, int32_t i)
{
	const m1_state *s = &a->states[i];
	uint64_t h = mix(3, s->accepting);

	for (uint32_t p = 0; p < s->n; p++)
		h = mix(mix(h, (uint32_t) a->places[s->first + p].node), (uint32_t) a->places[s->first + p].stack);
	return h;
}

static bool
same_state(const m1_automaton *a, const m1_state *x, const m1_state *y)
{
	return x->n == y->n && x->accepting == y->accepting &&
		   memcmp(&a->places[x->first], &a->places[y->first], x->n * sizeof *a->places) == 0;
}

static int
by_place(const void *x, const void *y)
{
	const m1_place *a = x;
	const m1_place *b = y;

	if (a->node != b->node)
		return a->node < b->node ? -1 : 1;
	if (a->shape != b->shape)
		return a->shape < b->shape ? -1 : 1;
	return (a->stack > b->stack) - (a->stack < b->stack);
}

/*
 * Of places [from .. to) that differ in the repetitions left, keeps those from which the most may follow: they are
 * moved to `kept`, whose end is returned.
 */
static size_t
keep_the_most(m1_automaton *a, size_t kept, size_t from, size_t to)
{
	const size_t begin = kept;

	for (size_t i = from; i < to; i++)
	{
		const m1_place place = a->places[i];
		size_t others = begin;
		bool needed = true;

		for (size_t k = begin; k < kept && needed; k++)
			needed = !allows_all_of(a, a->places[k].stack, place.stack);
		if (!needed)
			continue;
		for (size_t k = begin; k < kept; k++)
			if (!allows_all_of(a, place.stack, a->places[k].stack))
				a->places[others++] = a->places[k];
		a->places[others++] = place;
		kept = others;
		a->left -= (int64_t) (kept - begin);
	}
	return kept;
}

/* Leaves those of the places from `first` on that others make needless. They are sorted, and stay it. */
static void
drop_needless(m1_automaton *a, size_t first)
{
	size_t kept = first;
	size_t to;

	for (size_t from = first; from < a->n_places; from = to)
	{
		for (to = from + 1; to < a->n_places && a->places[to].node == a->places[from].node &&
							a->places[to].shape == a->places[from].shape;
			 to++)
			;
		kept = keep_the_most(a, kept, from, to);
	}
	a->n_places = kept;
}

static int32_t
shortest_of(const m1_automaton *a, const m1_state *s)
{
	int32_t shortest = s->accepting ? 0 : M1_NFA_NEVER;

	for (uint32_t p = 0; p < s->n; p++)
	{
		const m1_place *place = &a->places[s->first + p];
		int32_t d = a->nfa->nodes[place->node].shortest + a->stacks[place->stack].shortest;

		if (d < shortest)
			shortest = d;
	}
	return shortest;
}

static bool
grow_states(m1_automaton *a)
{
	const size_t classes = (size_t) a->nfa->n_classes;
	size_t cap = a->cap_states;
	int32_t *next;

	if (a->n_states < a->cap_states)
		return true;
	cap = cap < 64 ? 64 : cap * 2;
	if ((next = realloc(a->next, cap * classes * sizeof *next)) == NULL)
		return false;
	a->next = next;
	return GROW(a, states, cap);
}

/* The number of the state whose places are at the end of a->places, from `first` on: an old one, if there is one. */
static int32_t
intern(m1_automaton *a, size_t first, bool accepting)
{
	m1_state *s;
	size_t at;

	if (a->n_places == first && !accepting)
		return M1_AUTOMATON_DEAD;
	if (a->n_places > first)
		m1_sort(a->places + first, a->n_places - first, sizeof *a->places, by_place);
	drop_needless(a, first);
	if (a->n_places - first > MAX_PLACES || !grow_states(a) ||
		(a->state_index.used * 2 >= a->state_index.cap && !table_grow(&a->state_index, hash_state, a)))
	{
		a->n_places = first;
		return M1_AUTOMATON_TOO_LARGE;
	}
	s = &a->states[a->n_states];
	*s = (m1_state){.first = (uint32_t) first, .n = (uint32_t) (a->n_places - first), .accepting = accepting};
	for (at = hash_state(a, (int32_t) a->n_states) & (a->state_index.cap - 1); a->state_index.slots[at] >= 0;
		 at = (at + 1) & (a->state_index.cap - 1))
		if (same_state(a, s, &a->states[a->state_index.slots[at]]))
		{
			a->n_places = first;
			return a->state_index.slots[at];
		}
	s->shortest = shortest_of(a, s);
	for (int c = 0; c < a->nfa->n_classes; c++)
		a->next[a->n_states * (size_t) a->nfa->n_classes + (size_t) c] = M1_AUTOMATON_UNKNOWN;
	a->state_index.slots[at] = (int32_t) a->n_states;
	a->state_index.used++;
	return (int32_t) a->n_states++;
}

static void
begin_places(m1_automaton *a)
{
	a->n_todo = 0;
	a->n_met = 0;
	if (++a->stamp == 0)
	{
		memset(a->met_stamp, 0, a->cap_met * sizeof *a->met_stamp);
		a->stamp = 1;
	}
}

static int32_t
explore(m1_automaton *a, int32_t state, uint8_t byte)
{
	const m1_state from = a->states[state];
	const size_t first = a->n_places;
	bool accepting;
	int32_t to;

	if (m1_automaton_bytes(a) > MAX_BYTES)
		return M1_AUTOMATON_TOO_LARGE;
	begin_places(a);
	for (uint32_t p = 0; p < from.n; p++)
	{
		const m1_place place = a->places[from.first + p];
		const m1_nfa_node *n = &a->nfa->nodes[place.node];

		if (byte >= n->low && byte <= n->high && !meet(a, n->next, place.stack))
			return M1_AUTOMATON_TOO_LARGE;
	}
	if (!follow(a, &accepting))
	{
		a->n_places = first;
		return M1_AUTOMATON_TOO_LARGE;
	}
	/* in time, which is what turns are for, a place takes more than its part of the bound */
	if (a->left_after > INT64_MIN / 2)
		a->left_after += (int64_t) a->n_met * (M1_PLACE_TURN - M1_PLACE_WORK);
	if (!m1_automaton_goes_on(a, (int64_t) (from.n + a->n_met * M1_PLACE_WORK)))
	{
		a->n_places = first;
		return M1_AUTOMATON_TOO_LARGE;
	}
	to = intern(a, first, accepting);
	if (to != M1_AUTOMATON_TOO_LARGE)
		a->next[(size_t) state * (size_t) a->nfa->n_classes + a->nfa->class_of[byte]] = to;
	return to;
}

int32_t
m1_automaton_step(m1_automaton *a, int32_t state, uint8_t byte)
{
	int32_t to = a->next[(size_t) state * (size_t) a->nfa->n_classes + a->nfa->class_of[byte]];

	return to != M1_AUTOMATON_UNKNOWN ? to : explore(a, state, byte);
}

m1_transitions
m1_automaton_transitions(const m1_automaton *a)
{
	return (m1_transitions){.next = a->next, .class_of = a->nfa->class_of, .n_classes = (size_t) a->nfa->n_classes};
}

const m1_place *
m1_automaton_places(const m1_automaton *a, int32_t state)
{
	return &a->places[a->states[state].first];
}

bool
m1_automaton_return(const m1_automaton *a, int32_t stack, int32_t *node, int32_t *below)
{
	*node = a->stacks[stack].node;
	*below = a->stacks[stack].parent;
	return stack != NO_STACK;
}

m1_state *
m1_automaton_state(const m1_automaton *a, int32_t state)
{
	return &a->states[state];
}

const m1_nfa *
m1_automaton_nfa(const m1_automaton *a)
{
	return a->nfa;
}

size_t
m1_automaton_bytes(const m1_automaton *a)
{
	return a->n_states * (sizeof *a->states + (size_t) a->nfa->n_classes * sizeof *a->next) +
		   a->n_places * sizeof *a->places + a->n_stacks * sizeof *a->stacks;
}

int32_t
m1_automaton_states(const m1_automaton *a)
{
	return (int32_t) a->n_states;
}

/* ---- life ---- */

static bool
start(m1_automaton *a)
{
	bool accepting;

	if (!GROW(a, stacks, 1))
		return false;
	a->stacks[a->n_stacks++] = (frame){.node = M1_NFA_RETURN, .shape = NO_STACK};
	begin_places(a);
	return meet(a, a->nfa->rules[a->nfa->top].start, NO_STACK) && follow(a, &accepting) &&
		   intern(a, 0, accepting) == M1_AUTOMATON_START;
}

m1_automaton *
m1_automaton_create(const m1_nfa *nfa)
{
	m1_automaton *a = calloc(1, sizeof *a);

	if (a == NULL)
		return NULL;
	a->nfa = nfa;
	m1_automaton_allow(a, INT64_MAX, M1_NO_TURN);
	if (!start(a))
	{
		m1_automaton_free(a);
		return NULL;
	}
	return a;
}

static void
free_contents(m1_automaton *a)
{
	free(a->states);
	free(a->next);
	free(a->places);
	free(a->stacks);
	free(a->state_index.slots);
	free(a->stack_index.slots);
	free(a->todo);
	free(a->met);
	free(a->met_stamp);
}

void
m1_automaton_free(m1_automaton *a)
{
	if (a == NULL)
		return;
	free_contents(a);
	free(a);
}

/* Stack number i of `from`, as a stack of `to`; -1 when memory ran out. Its depth is that of the nesting. */
static int32_t
copy_stack(m1_automaton *to, const m1_automaton *from, int32_t i)
{
	int32_t parent;

	if (i == NO_STACK)
		return NO_STACK;
	if ((parent = copy_stack(to, from, from->stacks[i].parent)) < 0)
		return -1;
	return push_frame(to, from->stacks[i].node, parent,
					  from->stacks[i].nesting > from->stacks[from->stacks[i].parent].nesting);
}

static int32_t
copy_state(m1_automaton *to, const m1_automaton *from, int32_t state)
{
	const m1_state *s = &from->states[state];
	const size_t first = to->n_places;

	if (!GROW(to, places, first + s->n))
		return M1_AUTOMATON_TOO_LARGE;
	for (uint32_t p = 0; p < s->n; p++)
	{
		const m1_place *place = &from->places[s->first + p];
		int32_t stack = copy_stack(to, from, place->stack);

		if (stack < 0)
			return M1_AUTOMATON_TOO_LARGE;
		to->places[to->n_places++] = (m1_place){place->node, to->stacks[stack].shape, stack};
	}
	return intern(to, first, s->accepting);
}

bool
m1_automaton_compact(m1_automaton *a, int32_t **roots, size_t n)
{
	m1_automaton *fresh = m1_automaton_create(a->nfa);
	int32_t *numbers = calloc(n + 1, sizeof *numbers);
	bool ok = fresh != NULL && numbers != NULL;

	for (size_t i = 0; i < n && ok; i++)
		ok = (numbers[i] = copy_state(fresh, a, *roots[i])) >= 0;
	if (ok)
	{
		for (size_t i = 0; i < n; i++)
			*roots[i] = numbers[i];
		free_contents(a);
		fresh->left = a->left;
		fresh->left_after = a->left_after;
		*a = *fresh;
		free(fresh);
	}
	else
		m1_automaton_free(fresh);
	free(numbers);
	return ok;
}
