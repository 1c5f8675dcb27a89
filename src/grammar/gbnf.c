/*
 * gbnf.c - see gbnf.h.
 *
 * A node of the nfa becomes a rule when something leads to it: its alternatives are the characters that may come next,
 * each with the rule of the node behind it. Literals are written out in one piece. A rule never begins with itself,
 * because whatever needs no character is followed first.
 */
#include "grammar/gbnf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

#define LITERAL_PIECE 256 /* characters that one alternative spells out */

/* Characters low to high, and the node behind them. */
typedef struct edge
{
	int32_t target;
	uint32_t low, high;
} edge;

typedef struct edges
{
	edge *at;
	size_t n, cap;
} edges;

typedef struct writer
{
	const m1_nfa *nfa;
	m1_buf *out;
	bool *named;   /* [n_nodes]: has a rule, or will have */
	int32_t *todo; /* those that will */
	size_t n_todo;
	uint32_t *met; /* [n_nodes]: by the closure of this number */
	uint32_t closure;
	int32_t *leaves; /* of the last closure: nodes that read, call or return */
	size_t n_leaves;
	int32_t *stack;
	bool failed; /* memory ran out */
} writer;

/* Bytes of one position of a character. */
typedef struct byte_range
{
	uint8_t low, high;
} byte_range;

static void
put(writer *w, const char *text)
{
	m1_buf_puts(w->out, text);
}

/* ---- characters ---- */

static void
add_edge(writer *w, edges *e, uint32_t low, uint32_t high, int32_t target)
{
	if (e->n == e->cap)
	{
		const size_t cap = e->cap < 16 ? 16 : e->cap * 2;
		edge *at = realloc(e->at, cap * sizeof *at);

		if (at == NULL)
		{
			w->failed = true;
			return;
		}
		e->at = at;
		e->cap = cap;
	}
	e->at[e->n++] = (edge){target, low, high};
}

/* Without surrogates and what is written with more bytes than it needs. */
static void
add_characters(writer *w, edges *e, uint32_t low, uint32_t high, int n, int32_t target)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	low = low < least[n] ? least[n] : low;
	high = high > 0x10FFFF ? 0x10FFFF : high;
	if (low < 0xD800 && high > 0xDFFF)
	{
		add_edge(w, e, low, 0xD7FF, target);
		low = 0xE000;
	}
	else if (low >= 0xD800 && low <= 0xDFFF)
		low = 0xE000;
	else if (high >= 0xD800 && high <= 0xDFFF)
		high = 0xD7FF;
	if (low <= high)
		add_edge(w, e, low, high, target);
}

/* The characters whose bytes, of which `at` are read, are in these ranges: runs of them. */
static void
add_product(writer *w, edges *e, const byte_range *bytes, int n, int at, uint32_t read, int32_t target)
{
	const uint32_t lead_bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
	const uint32_t bits = at == 0 ? lead_bits[n] : 0x3F;
	const uint32_t unit = 1u << 6 * (n - 1 - at);
	bool whole = true;

	for (int i = at + 1; i < n; i++)
		whole &= bytes[i].low == 0x80 && bytes[i].high == 0xBF;
	if (whole)
		add_characters(w, e, read + (bytes[at].low & bits) * unit, read + (bytes[at].high & bits) * unit + (unit - 1),
					   n, target);
	for (unsigned b = bytes[at].low; !whole && b <= bytes[at].high; b++)
		add_product(w, e, bytes, n, at + 1, read + (b & bits) * unit, target);
}

/* From a node inside of a character. Only characters and free text are made of such nodes, and neither calls there. */
static void
add_rest(writer *w, edges *e, int32_t node, byte_range *bytes, int n, int at)
{
	const m1_nfa_node *x = &w->nfa->nodes[node];

	if (at == n)
	{
		add_product(w, e, bytes, n, 0, 0, node);
		return;
	}
	if (x->kind == M1_NODE_SPLIT)
	{
		add_rest(w, e, x->next, bytes, n, at);
		add_rest(w, e, x->other, bytes, n, at);
	}
	if (x->kind != M1_NODE_BYTES || x->low > 0xBF || x->high < 0x80)
		return;
	bytes[at] = (byte_range){x->low < 0x80 ? 0x80 : x->low, x->high > 0xBF ? 0xBF : x->high};
	add_rest(w, e, x->next, bytes, n, at + 1);
}

/* The characters that begin with a byte of this node. */
static void
add_begun(writer *w, edges *e, const m1_nfa_node *x)
{
	static const byte_range leads[] = {{0, 0}, {0x00, 0x7F}, {0xC2, 0xDF}, {0xE0, 0xEF}, {0xF0, 0xF4}};

	for (int n = 1; n <= 4; n++)
	{
		byte_range bytes[4] = {
			{x->low > leads[n].low ? x->low : leads[n].low, x->high < leads[n].high ? x->high : leads[n].high}};

		if (bytes[0].low <= bytes[0].high)
			add_rest(w, e, x->next, bytes, n, 1);
	}
}

/* ---- nodes ---- */

static void
meet(writer *w, int32_t node, size_t *depth)
{
	if (w->met[node] == w->closure)
		return;
	w->met[node] = w->closure;
	w->stack[(*depth)++] = node;
}

/* The nodes that are reached from one without reading anything. */
static void
follow(writer *w, int32_t node)
{
	size_t depth = 0;

	w->closure++;
	w->n_leaves = 0;
	meet(w, node, &depth);
	while (depth > 0)
	{
		const int32_t here = w->stack[--depth];
		const m1_nfa_node *x = &w->nfa->nodes[here];

		if (x->kind == M1_NODE_SPLIT)
		{
			meet(w, x->next, &depth);
			meet(w, x->other, &depth);
		}
		else if (x->kind != M1_NODE_FAIL)
			w->leaves[w->n_leaves++] = here;
	}
}

/* A reference to the rule of a node, which will be written; nothing for the end of a rule. */
static void
refer(writer *w, int32_t node)
{
	char name[32];

	if (node == M1_NFA_RETURN)
		return;
	if (!w->named[node])
	{
		w->named[node] = true;
		w->todo[w->n_todo++] = node;
	}
	snprintf(name, sizeof name, " n%d", node);
	put(w, name);
}

/* ---- what is written ---- */

static void
write_character(writer *w, uint32_t c)
{
	char text[16];

	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == ' ' || c == '_')
		snprintf(text, sizeof text, "%c", (int) c);
	else
		snprintf(text, sizeof text, c > 0xFFFF ? "\\U%08X" : "\\u%04X", (unsigned) c);
	put(w, text);
}

static int
by_target(const void *a, const void *b)
{
	const edge *x = a;
	const edge *y = b;

	if (x->target != y->target)
		return x->target < y->target ? -1 : 1;
	return (x->low > y->low) - (x->low < y->low);
}

/* The only character that a node reads, when there is just one; the node behind it. */
static bool
is_single(writer *w, int32_t node, uint32_t *c, int32_t *target)
{
	const m1_nfa_node *x = &w->nfa->nodes[node];
	edges e = {0};
	bool single;

	if (x->kind != M1_NODE_BYTES || x->low != x->high)
		return false;
	add_begun(w, &e, x);
	single = e.n == 1 && e.at[0].low == e.at[0].high;
	if (single)
	{
		*c = e.at[0].low;
		*target = e.at[0].target;
	}
	free(e.at);
	return single;
}

/* What follows a character: a literal as far as there is only one way, then the rule of the node behind it. */
static void
write_behind(writer *w, int32_t node)
{
	uint32_t c;
	int32_t target;
	int n = 0;

	while (n < LITERAL_PIECE && !w->failed && is_single(w, node, &c, &target))
	{
		put(w, n++ == 0 ? " \"" : "");
		write_character(w, c);
		node = target;
	}
	put(w, n > 0 ? "\"" : "");
	refer(w, node);
}

/* The characters of edges that lead to one node. */
static void
write_class(writer *w, const edge *from, size_t n)
{
	put(w, " [");
	for (size_t i = 0; i < n; i++)
	{
		write_character(w, from[i].low);
		if (from[i].high > from[i].low)
		{
			put(w, "-");
			write_character(w, from[i].high);
		}
	}
	put(w, "]");
}

static void
write_edges(writer *w, edges *e, bool *first)
{
	size_t to;

	if (e->n > 0)
		m1_sort(e->at, e->n, sizeof *e->at, by_target);
	for (size_t from = 0; from < e->n; from = to)
	{
		for (to = from + 1; to < e->n && e->at[to].target == e->at[from].target; to++)
			;
		put(w, *first ? "" : " |");
		*first = false;
		write_class(w, &e->at[from], to - from);
		write_behind(w, e->at[from].target);
	}
}

/* false: a node that nothing can be read from. */
static bool
write_alternatives(writer *w, int32_t node)
{
	edges e = {0};
	bool first = true;

	follow(w, node);
	for (size_t i = 0; i < w->n_leaves; i++)
	{
		const m1_nfa_node *x = &w->nfa->nodes[w->leaves[i]];

		if (x->kind == M1_NODE_BYTES)
		{
			add_begun(w, &e, x);
			continue;
		}
		put(w, first ? "" : " |");
		first = false;
		if (x->kind == M1_NODE_RETURN)
			put(w, " \"\"");
		else
		{
			refer(w, w->nfa->rules[x->other].start);
			refer(w, x->next);
		}
	}
	write_edges(w, &e, &first);
	free(e.at);
	return !first;
}

/* A place goes on in its own rule, and then where each of its calls returns. */
static void
write_root(writer *w, const m1_automaton *a, int32_t state)
{
	const m1_state *s = m1_automaton_state(a, state);
	const m1_place *places = m1_automaton_places(a, state);

	put(w, "root ::=");
	for (uint32_t i = 0; i < s->n; i++)
	{
		int32_t node = places[i].node;
		int32_t stack = places[i].stack;

		put(w, i > 0 ? " |" : "");
		refer(w, node);
		while (m1_automaton_return(a, stack, &node, &stack))
			refer(w, node);
	}
	if (s->accepting)
		put(w, s->n > 0 ? " | \"\"" : " \"\"");
	put(w, "\n");
}

static m1_status
write_rules(writer *w, m1_error *err)
{
	char name[32];

	while (w->n_todo > 0)
	{
		const int32_t node = w->todo[--w->n_todo];

		snprintf(name, sizeof name, "n%d ::=", node);
		put(w, name);
		if (!write_alternatives(w, node))
			return m1_fail(err, M1_E_UNSUPPORTED,
						   "the constraint cannot be told to a server in the middle of a character");
		put(w, "\n");
		if (w->failed || w->out->failed)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the grammar");
		if (w->out->len > M1_GBNF_MAX_BYTES)
			return m1_fail(err, M1_E_UNSUPPORTED, "the constraint is too long to be told to a server: above %d bytes",
						   M1_GBNF_MAX_BYTES);
	}
	return M1_OK;
}

m1_status
m1_gbnf_write(const m1_automaton *a, int32_t state, m1_buf *out, m1_error *err)
{
	const m1_nfa *nfa = m1_automaton_nfa(a);
	const size_t n = (size_t) nfa->n_nodes;
	writer w = {
		.nfa = nfa,
		.out = out,
		.named = calloc(n, sizeof *w.named),
		.todo = malloc(n * sizeof *w.todo),
		.met = calloc(n, sizeof *w.met),
		.leaves = malloc(n * sizeof *w.leaves),
		.stack = malloc(n * sizeof *w.stack),
	};
	m1_status status = M1_OK;

	if (w.named == NULL || w.todo == NULL || w.met == NULL || w.leaves == NULL || w.stack == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the grammar");
	if (status == M1_OK)
	{
		write_root(&w, a, state);
		status = write_rules(&w, err);
	}
	free(w.named);
	free(w.todo);
	free(w.met);
	free(w.leaves);
	free(w.stack);
	return status;
}
