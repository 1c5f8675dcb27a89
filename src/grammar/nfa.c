/* nfa.c - building; see nfa.h. nfa_finish.c has the rest. */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "grammar/nfa.h"

#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

static int32_t
add_node(m1_nfa *nfa, m1_nfa_node node)
{
	nfa->failed |= !m1_work_goes_on(nfa->work, 1);
	if (nfa->failed)
		return M1_NFA_FAIL;
	if (nfa->n_nodes == nfa->cap_nodes)
	{
		int cap = nfa->cap_nodes < 256 ? 256 : nfa->cap_nodes * 2;
		m1_nfa_node *nodes = NULL;

		if (nfa->n_nodes >= M1_NFA_MAX_NODES)
			nfa->too_many = "nodes";
		if (nfa->too_many != NULL || (nodes = realloc(nfa->nodes, (size_t) cap * sizeof *nodes)) == NULL)
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
m1_nfa_init(m1_nfa *nfa, m1_work *work)
{
	*nfa = (m1_nfa){0};
	add_node(nfa, (m1_nfa_node){.kind = M1_NODE_RETURN});
	add_node(nfa, (m1_nfa_node){.kind = M1_NODE_FAIL});
	nfa->work = work;
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

int32_t
m1_nfa_option(m1_nfa *nfa, int32_t fewer, int32_t some, int32_t next)
{
	const int32_t option = m1_nfa_split(nfa, some, next);

	if (!nfa->failed && option != some && option != next)
		nfa->nodes[option].chain = fewer == next ? option : nfa->nodes[fewer].chain;
	return option;
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

		if (nfa->n_rules >= M1_NFA_MAX_RULES)
			nfa->too_many = "rules";
		if (nfa->too_many != NULL || (rules = realloc(nfa->rules, (size_t) cap * sizeof *rules)) == NULL)
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

/* ---- how texts begin ---- */

typedef struct search
{
	int32_t first;
	int32_t *todo; /* nodes to be looked at */
	size_t n_todo;
	bool *seen; /* by node, from `first` on */
} search;

/* Nodes before `first` are the ends of rules, and the start that a rule has not got. */
static void
meet(search *s, int32_t node)
{
	if (node < s->first || s->seen[node - s->first])
		return;
	s->seen[node - s->first] = true;
	s->todo[s->n_todo++] = node;
}

static bool
may_begin_otherwise(const m1_nfa *nfa, search *s, uint8_t byte)
{
	while (s->n_todo > 0)
	{
		const m1_nfa_node *node = &nfa->nodes[s->todo[--s->n_todo]];

		if (node->kind == M1_NODE_BYTES && (node->low != byte || node->high != byte))
			return true;
		if (node->kind == M1_NODE_SPLIT)
		{
			meet(s, node->next);
			meet(s, node->other);
		}
		else if (node->kind == M1_NODE_CALL)
			meet(s, nfa->rules[node->other].start);
	}
	return false;
}

bool
m1_nfa_begins_with(m1_nfa *nfa, int32_t first, int32_t start, uint8_t byte)
{
	const size_t n = (size_t) (nfa->n_nodes - first);
	search s = {.first = first, .todo = malloc((n + 1) * sizeof *s.todo), .seen = calloc(n + 1, sizeof *s.seen)};
	bool otherwise = false;

	if (s.todo == NULL || s.seen == NULL)
		nfa->failed = true;
	else
	{
		meet(&s, start);
		otherwise = may_begin_otherwise(nfa, &s, byte);
	}
	free(s.todo);
	free(s.seen);
	return !otherwise;
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
