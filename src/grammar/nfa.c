/* nfa.c - see nfa.h. */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "grammar/nfa.h"

#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

static int32_t
add_node(m1_nfa *nfa, m1_nfa_node node)
{
	if (nfa->failed)
		return M1_NFA_FAIL;
	if (nfa->n_nodes == nfa->cap_nodes)
	{
		int cap = nfa->cap_nodes < 256 ? 256 : nfa->cap_nodes * 2;
		m1_nfa_node *nodes = NULL;

		nfa->too_large = nfa->n_nodes >= M1_NFA_MAX_NODES;
		if (nfa->too_large || (nodes = realloc(nfa->nodes, (size_t) cap * sizeof *nodes)) == NULL)
		{
			nfa->failed = true;
			return M1_NFA_FAIL;
		}
		nfa->nodes = nodes;
		nfa->cap_nodes = cap;
	}
	nfa->nodes[nfa->n_nodes] = node;
	return nfa->n_nodes++;
}

bool
m1_nfa_init(m1_nfa *nfa)
{
	memset(nfa, 0, sizeof *nfa);
	add_node(nfa, (m1_nfa_node){.kind = M1_NODE_RETURN});
	add_node(nfa, (m1_nfa_node){.kind = M1_NODE_FAIL});
	return !nfa->failed;
}

void
m1_nfa_free(m1_nfa *nfa)
{
	/* the nodes spell the user's texts */
	if (nfa->nodes != NULL)
		explicit_bzero(nfa->nodes, (size_t) nfa->n_nodes * sizeof *nfa->nodes);
	free(nfa->nodes);
	free(nfa->rules);
	memset(nfa, 0, sizeof *nfa);
}

int32_t
m1_nfa_bytes(m1_nfa *nfa, uint8_t low, uint8_t high, int32_t next)
{
	if (next == M1_NFA_FAIL)
		return M1_NFA_FAIL;
	return add_node(nfa, (m1_nfa_node){.kind = M1_NODE_BYTES, .low = low, .high = high, .next = next});
}

int32_t
m1_nfa_split(m1_nfa *nfa, int32_t one, int32_t other)
{
	if (one == M1_NFA_FAIL || one == other)
		return other;
	if (other == M1_NFA_FAIL)
		return one;
	return add_node(nfa, (m1_nfa_node){.kind = M1_NODE_SPLIT, .next = one, .other = other});
}

int32_t
m1_nfa_call(m1_nfa *nfa, int rule, int32_t next)
{
	if (next == M1_NFA_FAIL)
		return M1_NFA_FAIL;
	return add_node(nfa, (m1_nfa_node){.kind = M1_NODE_CALL, .next = next, .other = rule});
}

int32_t
m1_nfa_literal(m1_nfa *nfa, m1_slice text, int32_t next)
{
	for (size_t i = text.len; i-- > 0;)
		next = m1_nfa_bytes(nfa, (uint8_t) text.data[i], (uint8_t) text.data[i], next);
	return next;
}

int32_t
m1_nfa_open_loop(m1_nfa *nfa, int32_t next)
{
	return add_node(nfa, (m1_nfa_node){.kind = M1_NODE_SPLIT, .next = M1_NFA_FAIL, .other = next});
}

void
m1_nfa_close_loop(m1_nfa *nfa, int32_t loop, int32_t body)
{
	if (!nfa->failed)
		nfa->nodes[loop].next = body;
}

int
m1_nfa_new_rule(m1_nfa *nfa, bool nests)
{
	if (nfa->failed)
		return 0;
	if (nfa->n_rules == nfa->cap_rules)
	{
		int cap = nfa->cap_rules < 64 ? 64 : nfa->cap_rules * 2;
		m1_nfa_rule *rules = NULL;

		nfa->too_large = nfa->n_rules >= M1_NFA_MAX_RULES;
		if (nfa->too_large || (rules = realloc(nfa->rules, (size_t) cap * sizeof *rules)) == NULL)
		{
			nfa->failed = true;
			return 0;
		}
		nfa->rules = rules;
		nfa->cap_rules = cap;
	}
	nfa->rules[nfa->n_rules] = (m1_nfa_rule){.start = -1, .nests = nests};
	return nfa->n_rules++;
}

void
m1_nfa_set_rule(m1_nfa *nfa, int rule, int32_t start)
{
	if (!nfa->failed)
		nfa->rules[rule].start = start;
}

/* ---- characters as UTF-8 ---- */

static int
encode(uint32_t c, uint8_t out[4])
{
	if (c < 0x80)
	{
		out[0] = (uint8_t) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (uint8_t) (0xC0 | c >> 6);
		out[1] = (uint8_t) (0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000)
	{
		out[0] = (uint8_t) (0xE0 | c >> 12);
		out[1] = (uint8_t) (0x80 | (c >> 6 & 63));
		out[2] = (uint8_t) (0x80 | (c & 63));
		return 3;
	}
	out[0] = (uint8_t) (0xF0 | c >> 18);
	out[1] = (uint8_t) (0x80 | (c >> 12 & 63));
	out[2] = (uint8_t) (0x80 | (c >> 6 & 63));
	out[3] = (uint8_t) (0x80 | (c & 63));
	return 4;
}

/* Characters low..high that have the same number of bytes and no gap between them. */
static int32_t
equal_length(m1_nfa *nfa, uint32_t low, uint32_t high, int32_t next)
{
	uint8_t from[4];
	uint8_t to[4];
	const int n = encode(low, from);
	int same = 0;

	encode(high, to);
	while (same < n && from[same] == to[same])
		same++;
	/* Cut where a lower byte does not run over its whole range, so that what is left is a product of ranges. */
	for (int i = same + 1; i < n; i++)
	{
		const uint32_t unit = 1u << 6 * (n - i);
		const uint32_t mask = unit - 1;

		if ((low & mask) != 0 && (low | mask) < high)
			return m1_nfa_split(nfa, equal_length(nfa, low, low | mask, next),
								equal_length(nfa, (low | mask) + 1, high, next));
		if ((high & mask) != mask && (high & ~mask) > low)
			return m1_nfa_split(nfa, equal_length(nfa, low, (high & ~mask) - 1, next),
								equal_length(nfa, high & ~mask, high, next));
	}
	for (int i = n; i-- > 0;)
		next = m1_nfa_bytes(nfa, from[i], to[i], next);
	return next;
}

int32_t
m1_nfa_characters(m1_nfa *nfa, const m1_range *set, size_t n, int32_t next)
{
	static const m1_range lengths[] = {
		{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
	int32_t start = M1_NFA_FAIL;

	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
		{
			uint32_t low = set[i].low > lengths[l].low ? set[i].low : lengths[l].low;
			uint32_t high = set[i].high < lengths[l].high ? set[i].high : lengths[l].high;

			if (low <= high)
				start = m1_nfa_split(nfa, equal_length(nfa, low, high, next), start);
		}
	return start;
}

/* ---- checking and measuring ---- */

static int32_t
sum(int32_t a, int32_t b)
{
	return a + b < M1_NFA_NEVER ? a + b : M1_NFA_NEVER;
}

static int32_t
min(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

static int32_t
max(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

static void
measure_node(const m1_nfa *nfa, const m1_nfa_node *n, int32_t *shortest, int32_t *nesting)
{
	const m1_nfa_node *next = &nfa->nodes[n->next];
	const m1_nfa_rule *rule;
	const m1_nfa_node *start;

	*shortest = n->shortest;
	*nesting = n->nesting;
	switch ((m1_node_kind) n->kind)
	{
		case M1_NODE_RETURN:
		case M1_NODE_FAIL:
			break;
		case M1_NODE_BYTES:
			*shortest = sum(1, next->shortest);
			*nesting = next->nesting;
			break;
		case M1_NODE_SPLIT:
			*shortest = min(next->shortest, nfa->nodes[n->other].shortest);
			*nesting = min(next->nesting, nfa->nodes[n->other].nesting);
			break;
		case M1_NODE_CALL:
			rule = &nfa->rules[n->other];
			start = &nfa->nodes[rule->start];
			*shortest = sum(start->shortest, next->shortest);
			*nesting = min(max(start->nesting + rule->nests, next->nesting), M1_NFA_NEVER);
			break;
	}
}

/* The least solution by repetition. Nodes come after those they lead to, but for loops and rules: few rounds. */
static void
measure(m1_nfa *nfa)
{
	bool changed = true;

	for (int i = 0; i < nfa->n_nodes; i++)
		nfa->nodes[i].shortest = nfa->nodes[i].nesting = i == M1_NFA_RETURN ? 0 : M1_NFA_NEVER;
	while (changed)
	{
		changed = false;
		for (int i = 0; i < nfa->n_nodes; i++)
		{
			m1_nfa_node *n = &nfa->nodes[i];
			int32_t shortest;
			int32_t nesting;

			measure_node(nfa, n, &shortest, &nesting);
			changed |= shortest != n->shortest || nesting != n->nesting;
			n->shortest = shortest;
			n->nesting = nesting;
		}
	}
}

/* The search for rules that call themselves before they have read a byte. */
typedef struct search
{
	const m1_nfa *nfa;
	bool *seen;	   /* [n_nodes] */
	int32_t *todo; /* nodes to look at: each pushes two at most */
	int n_todo;
	uint8_t *met; /* [n_rules]: 0 = not met, 1 = on the way, 2 = done */
	int depth;
} search;

/* Longer chains of rules would take the thread's stack. */
#define MAX_CHAIN 4096

static bool
calls_itself(search *s, int rule)
{
	const int first = s->n_todo;
	bool found = false;

	if (s->met[rule] == 2)
		return false;
	if (s->met[rule] == 1 || s->depth == MAX_CHAIN)
		return true;
	s->met[rule] = 1;
	s->depth++;
	s->todo[s->n_todo++] = s->nfa->rules[rule].start;
	while (s->n_todo > first && !found)
	{
		const int32_t i = s->todo[--s->n_todo];
		const m1_nfa_node *n = &s->nfa->nodes[i];

		if (s->seen[i])
			continue;
		s->seen[i] = true;
		if (n->kind == M1_NODE_SPLIT)
			s->todo[s->n_todo++] = n->other;
		if (n->kind == M1_NODE_CALL)
			found = calls_itself(s, n->other);
		if (n->kind == M1_NODE_SPLIT ||
			(n->kind == M1_NODE_CALL && s->nfa->nodes[s->nfa->rules[n->other].start].shortest == 0))
			s->todo[s->n_todo++] = n->next;
	}
	s->met[rule] = 2;
	s->depth--;
	return found;
}

static m1_status
refuse_left_recursion(const m1_nfa *nfa, m1_error *err)
{
	search s = {.nfa = nfa,
				.seen = calloc((size_t) nfa->n_nodes, sizeof *s.seen),
				.todo = calloc((size_t) nfa->n_nodes * 2 + (size_t) nfa->n_rules, sizeof *s.todo),
				.met = calloc((size_t) nfa->n_rules, sizeof *s.met)};
	m1_status status = M1_OK;

	if (s.seen == NULL || s.todo == NULL || s.met == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	for (int i = 0; i < nfa->n_rules && status == M1_OK; i++)
		if (calls_itself(&s, i))
			status = m1_fail(err, M1_E_INVALID_ARGUMENT,
							 "the constraint refers to itself with no object or array in between");
	free(s.seen);
	free(s.todo);
	free(s.met);
	return status;
}

static void
classify_bytes(m1_nfa *nfa)
{
	/* also where text, markup and the lengths of characters begin: token_mask.c looks at whole classes of text */
	static const uint8_t always[] = {0x20, 0x22, 0x23, 0x5C, 0x5D, 0x80, 0x90, 0xA0, 0xC0,
									 0xC2, 0xE0, 0xE1, 0xED, 0xEE, 0xF0, 0xF1, 0xF4, 0xF5};
	bool begins[257] = {false};

	for (size_t i = 0; i < sizeof always; i++)
		begins[always[i]] = true;
	for (int i = 0; i < nfa->n_nodes; i++)
		if (nfa->nodes[i].kind == M1_NODE_BYTES)
			begins[nfa->nodes[i].low] = begins[nfa->nodes[i].high + 1] = true;
	nfa->n_classes = 0;
	for (int b = 0; b < 256; b++)
	{
		if (b == 0 || begins[b])
			nfa->byte_of[nfa->n_classes++] = (uint8_t) b;
		nfa->class_of[b] = (uint8_t) (nfa->n_classes - 1);
	}
}

m1_status
m1_nfa_finish(m1_nfa *nfa, m1_error *err)
{
	m1_status status;

	if (nfa->too_large)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "the constraint is too large");
		m1_error_detail(err, "It may have %d nodes and %d rules once its repetitions are written out.",
						M1_NFA_MAX_NODES, M1_NFA_MAX_RULES);
		m1_error_hint(err, "Lower its counts: maxLength, maxItems, {n,m}.");
		return M1_E_UNSUPPORTED;
	}
	if (nfa->failed)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	measure(nfa);
	if ((status = refuse_left_recursion(nfa, err)) != M1_OK)
		return status;
	if (nfa->nodes[nfa->rules[nfa->top].start].shortest >= M1_NFA_NEVER ||
		nfa->nodes[nfa->rules[nfa->top].start].nesting > M1_NFA_MAX_NESTING)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "no answer can satisfy the constraint");
		m1_error_detail(err, "Its texts, if there are any, are nested more than %d levels deep.", M1_NFA_MAX_NESTING);
		return M1_E_INVALID_ARGUMENT;
	}
	classify_bytes(nfa);
	return M1_OK;
}
