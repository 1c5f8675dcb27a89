/* nfa_finish.c - checks and measures what nfa.c and the compilers have built; see nfa.h. */
#include <stdlib.h>

#include "grammar/nfa.h"

#define MEASURE_WORK 8 /* units of work a node */

/* ---- measuring ---- */

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

/* What a node's values are computed from, and the nodes whose values wait for it. */
typedef struct measuring
{
	m1_nfa *nfa;
	int32_t *first; /* [n_nodes + 1]: where the users of a node begin in `users` */
	int32_t *users;
	uint64_t *heap; /* value and node of those whose value is known, the least on top */
	size_t n_heap;
	bool by_nesting; /* measure nesting, not length */
} measuring;

/* The nodes that a node's values come from: two at most. */
static int
sources(const m1_nfa *nfa, const m1_nfa_node *n, int32_t out[2])
{
	if (n->kind == M1_NODE_RETURN || n->kind == M1_NODE_FAIL)
		return 0;
	out[0] = n->next;
	if (n->kind == M1_NODE_BYTES)
		return 1;
	out[1] = n->kind == M1_NODE_SPLIT ? n->other : nfa->rules[n->other].start;
	return 2;
}

static void
list_users(measuring *m)
{
	const m1_nfa *nfa = m->nfa;
	int32_t from[2];

	for (int i = 0; i < nfa->n_nodes; i++)
		for (int k = sources(nfa, &nfa->nodes[i], from); k-- > 0;)
			m->first[from[k]]++;
	for (int i = 1; i <= nfa->n_nodes; i++)
		m->first[i] += m->first[i - 1];
	for (int i = nfa->n_nodes; i-- > 0;)
		for (int k = sources(nfa, &nfa->nodes[i], from); k-- > 0;)
			m->users[--m->first[from[k]]] = i;
}

static void
push(measuring *m, int32_t value, int32_t node)
{
	const uint64_t key = (uint64_t) value << 32 | (uint32_t) node;
	size_t at = m->n_heap++;

	for (; at > 0 && m->heap[(at - 1) / 2] > key; at = (at - 1) / 2)
		m->heap[at] = m->heap[(at - 1) / 2];
	m->heap[at] = key;
}

static uint64_t
pop(measuring *m)
{
	const uint64_t top = m->heap[0];
	const uint64_t key = m->heap[--m->n_heap];
	size_t at = 0;

	for (size_t child = 1; child < m->n_heap; child = 2 * at + 1)
	{
		child += child + 1 < m->n_heap && m->heap[child + 1] < m->heap[child];
		if (m->heap[child] >= key)
			break;
		m->heap[at] = m->heap[child];
		at = child;
	}
	m->heap[at] = key;
	return top;
}

static int32_t *
value_of(const measuring *m, int32_t node)
{
	return m->by_nesting ? &m->nfa->nodes[node].nesting : &m->nfa->nodes[node].shortest;
}

/*
 * Dijkstra's algorithm as Knuth generalised it to grammars: the least value that is not final yet is final, because no
 * value is less than those that it comes from. Every node is done once, however rules refer to each other.
 */
static bool
measure_by(measuring *m, bool by_nesting)
{
	m->by_nesting = by_nesting;
	for (int32_t i = 0; i < m->nfa->n_nodes; i++)
		*value_of(m, i) = M1_NFA_NEVER;
	push(m, 0, M1_NFA_RETURN);
	while (m->n_heap > 0)
	{
		const uint64_t top = pop(m);
		const int32_t node = (int32_t) (top & UINT32_MAX);

		if (*value_of(m, node) != M1_NFA_NEVER)
			continue;
		*value_of(m, node) = (int32_t) (top >> 32);
		for (int32_t u = m->first[node]; u < m->first[node + 1]; u++)
		{
			const int32_t user = m->users[u];
			int32_t value[2];

			measure_node(m->nfa, &m->nfa->nodes[user], &value[0], &value[1]);
			if (*value_of(m, user) == M1_NFA_NEVER && value[by_nesting] < M1_NFA_NEVER)
				push(m, value[by_nesting], user);
		}
		if (!m1_work_goes_on(m->nfa->work, MEASURE_WORK))
			return false;
	}
	return true;
}

static m1_status
measure(m1_nfa *nfa, m1_error *err)
{
	const size_t n = (size_t) nfa->n_nodes;
	measuring m = {.nfa = nfa,
				   .first = calloc(n + 1, sizeof *m.first),
				   .users = calloc(2 * n, sizeof *m.users),
				   .heap = calloc(2 * n + 1, sizeof *m.heap)};
	m1_status status = M1_OK;

	if (m.first == NULL || m.users == NULL || m.heap == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	else
	{
		list_users(&m);
		if (!measure_by(&m, false) || !measure_by(&m, true))
			status = m1_work_stopped(nfa->work, "the constraint", err);
	}
	free(m.first);
	free(m.users);
	free(m.heap);
	return status;
}

/* ---- checking ---- */

/* The search for rules that call themselves before they have read a byte. */
typedef struct search
{
	const m1_nfa *nfa;
	bool *seen; /* [n_nodes] */
	int32_t
		*todo; /* nodes to look at, each of which pushes two at most; ~rule: all that the rule begins with is done */
	size_t n_todo;
	uint8_t *met; /* [n_rules]: 0 = not met, 1 = on the way, 2 = done */
} search;

static void
enter(search *s, int rule)
{
	s->met[rule] = 1;
	s->todo[s->n_todo++] = ~rule;
	s->todo[s->n_todo++] = s->nfa->rules[rule].start;
}

/* Looks behind one node; true when it leads back to a rule that is on the way. */
static bool
look_behind(search *s, const m1_nfa_node *n)
{
	const m1_nfa_node *start;

	if (n->kind == M1_NODE_SPLIT)
	{
		s->todo[s->n_todo++] = n->other;
		s->todo[s->n_todo++] = n->next;
	}
	if (n->kind != M1_NODE_CALL)
		return false;
	start = &s->nfa->nodes[s->nfa->rules[n->other].start];
	if (start->shortest == 0)
		s->todo[s->n_todo++] = n->next;
	if (s->met[n->other] == 1)
		return true;
	if (s->met[n->other] == 0)
		enter(s, n->other);
	return false;
}

static bool
calls_itself(search *s, int rule)
{
	bool found = false;

	if (s->met[rule] == 0)
		enter(s, rule);
	while (s->n_todo > 0 && !found)
	{
		const int32_t i = s->todo[--s->n_todo];

		if (i < 0)
			s->met[~i] = 2;
		else if (!s->seen[i])
		{
			s->seen[i] = true;
			found = look_behind(s, &s->nfa->nodes[i]);
		}
	}
	return found;
}

static m1_status
refuse_left_recursion(const m1_nfa *nfa, m1_error *err)
{
	search s = {.nfa = nfa,
				.seen = calloc((size_t) nfa->n_nodes, sizeof *s.seen),
				.todo = calloc(2 * ((size_t) nfa->n_nodes + (size_t) nfa->n_rules), sizeof *s.todo),
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

	if (nfa->too_many != NULL)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "the constraint is too large: it has too many %s", nfa->too_many);
		m1_error_detail(err, "It may have %d nodes and %d rules once its repetitions are written out.",
						M1_NFA_MAX_NODES, M1_NFA_MAX_RULES);
		m1_error_hint(err, "Lower its counts (maxLength, maxItems, {n,m}), or ask for fewer properties.");
		return M1_E_UNSUPPORTED;
	}
	if (!m1_work_goes_on(nfa->work, 0))
		return m1_work_stopped(nfa->work, "the constraint", err);
	if (nfa->failed)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the constraint");
	if ((status = measure(nfa, err)) != M1_OK)
		return status;
	if ((status = refuse_left_recursion(nfa, err)) != M1_OK)
		return status;
	if (nfa->nodes[nfa->rules[nfa->top].start].shortest >= M1_NFA_NEVER ||
		nfa->nodes[nfa->rules[nfa->top].start].nesting > M1_NFA_MAX_NESTING)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "no answer can satisfy the constraint");
		m1_error_detail(err, "What it says excludes itself, or is nested more than %d levels deep.",
						M1_NFA_MAX_NESTING);
		return M1_E_INVALID_ARGUMENT;
	}
	classify_bytes(nfa);
	return M1_OK;
}
