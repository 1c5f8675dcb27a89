/*
 * nfa.h - what an answer may look like, as rules over bytes: a nondeterministic automaton whose rules call each other,
 * so that nesting and recursion are one thing.
 *
 * The compilers of constraints (regex.h, jsonschema.h, constraint.h) build it backwards: each function takes the node
 * that follows and returns the one that begins. A failure (too many nodes, out of memory, told to stop) is kept until
 * m1_nfa_finish reports it. Built by one thread; immutable afterwards.
 */
#ifndef M1_GRAMMAR_NFA_H
#define M1_GRAMMAR_NFA_H

#include "base/buf.h"
#include "base/status.h"
#include "base/work.h"

/* Bounds that keep any constraint's memory and time small. */
#define M1_NFA_MAX_NODES (1 << 19)
#define M1_NFA_MAX_RULES (1 << 14)
#define M1_NFA_MAX_NESTING 32  /* rules marked as nesting inside each other: JSON objects and arrays */
#define M1_NFA_NEVER (1 << 29) /* a distance that no path has */

#define M1_NFA_RETURN 0 /* the node that ends its rule */
#define M1_NFA_FAIL 1	/* the node that nothing follows: a value that does not exist */

typedef enum m1_node_kind
{
	M1_NODE_RETURN,
	M1_NODE_FAIL,
	M1_NODE_BYTES, /* one byte in [low, high], then next */
	M1_NODE_SPLIT, /* next or other */
	M1_NODE_CALL,  /* rule `other`, then next */
} m1_node_kind;

typedef struct m1_nfa_node
{
	uint8_t kind;
	uint8_t low, high;
	int32_t next;
	int32_t other;
	int32_t shortest; /* bytes to the end of its rule, at least; M1_NFA_NEVER = there is no way */
	int32_t nesting;  /* levels that the way with the fewest needs */
	int32_t chain;	  /* the first of the options that it belongs to, or 0: see m1_nfa_option */
} m1_nfa_node;

typedef struct m1_nfa_rule
{
	int32_t start; /* -1 while it is being built */
	bool nests;
} m1_nfa_rule;

typedef struct m1_nfa
{
	m1_nfa_node *nodes;
	int n_nodes, cap_nodes;
	m1_nfa_rule *rules;
	int n_rules, cap_rules;
	int top;	   /* the rule that is the whole text */
	m1_work *work; /* of whoever builds it, or NULL; not used once it is finished */
	bool failed;
	const char *too_many;  /* "nodes" or "rules", when that is why */
	uint8_t class_of[256]; /* bytes that no node tells apart have the same class */
	int n_classes;
	uint8_t byte_of[256]; /* one byte of each class */
} m1_nfa;

/* A range of code points; a set is an array of them, ascending and apart. */
typedef struct m1_range
{
	uint32_t low, high;
} m1_range;

bool m1_nfa_init(m1_nfa *nfa, m1_work *work);
void m1_nfa_free(m1_nfa *nfa);

/* ---- building ---- */

int32_t m1_nfa_bytes(m1_nfa *nfa, uint8_t low, uint8_t high, int32_t next);
int32_t m1_nfa_split(m1_nfa *nfa, int32_t one, int32_t other); /* M1_NFA_FAIL is nothing */
int32_t m1_nfa_call(m1_nfa *nfa, int rule, int32_t next);
int32_t m1_nfa_literal(m1_nfa *nfa, m1_slice text, int32_t next);
/* One character of the set, as UTF-8; surrogates are left out. */
int32_t m1_nfa_characters(m1_nfa *nfa, const m1_range *set, size_t n, int32_t next);

/* A split whose first way is given later by m1_nfa_close_loop: the way back of a repetition. */
int32_t m1_nfa_open_loop(m1_nfa *nfa, int32_t next);
void m1_nfa_close_loop(m1_nfa *nfa, int32_t loop, int32_t body);

/*
 * `some` or nothing, in front of next: one more of the options of a repetition. `fewer` is the option before it, or
 * next. Whatever may follow where fewer options are left may follow where more are: a node of a chain allows all that
 * those with lower numbers in the chain do, which the automaton makes use of.
 */
int32_t m1_nfa_option(m1_nfa *nfa, int32_t fewer, int32_t some, int32_t next);

/* A rule is named first and given its start later, so that it can call itself. */
int m1_nfa_new_rule(m1_nfa *nfa, bool nests);
void m1_nfa_set_rule(m1_nfa *nfa, int rule, int32_t start);

/* Whether every text from `start` on begins with the byte. The nodes that come before it are from `first` on. */
bool m1_nfa_begins_with(m1_nfa *nfa, int32_t first, int32_t start, uint8_t byte);

/* Once `top` is set: checks and measures, in time that grows like the nodes. Errors say "the constraint". */
m1_status m1_nfa_finish(m1_nfa *nfa, m1_error *err);

#endif
