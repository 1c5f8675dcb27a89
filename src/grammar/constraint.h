/*
 * constraint.h - what an answer must look like, from the text of a request to the tokens that may come next.
 *
 * A constraint is compiled once and shared by all requests that have the same one; a cursor is one reply's place in it,
 * from the reply's very first token on: reasoning is free, and </think> with two line breaks leads to the answer. A
 * reply may also do without reasoning, unless its answer could be mistaken for the beginning of some.
 *
 * Any thread may compile, create and free. A cursor is used by one thread at a time; cursors of one constraint share
 * its lock.
 */
#ifndef M1_GRAMMAR_CONSTRAINT_H
#define M1_GRAMMAR_CONSTRAINT_H

#include "base/work.h"
#include "grammar/vocabulary.h"

#define M1_CONSTRAINT_MAX_BYTES (1 << 20)

/*
 * Work that masks may take, in units of some nanoseconds: one mask, and all of a reply. A cursor may do the latter from
 * the start; with each mask that it asks for it gets as much as an ordinary one takes, up to the same again. It is done
 * in turns, so that other requests need not wait for all of it.
 */
#define M1_MASK_WORK ((int64_t) 8 << 20)
#define M1_CURSOR_WORK ((int64_t) 16 << 20)
#define M1_TOKEN_WORK ((int64_t) 128 << 10) /* and twice the nodes of the vocabulary's trie */

/* What the text of a constraint is. */
typedef enum m1_constraint_kind
{
	M1_CONSTRAINT_NONE,		   /* the answer is free text, but for the tools that it may call */
	M1_CONSTRAINT_CHOICES,	   /* a JSON array of strings, of which the answer is one */
	M1_CONSTRAINT_JSON_SCHEMA, /* the schema of a JSON value */
	M1_CONSTRAINT_REGEX,	   /* a regular expression that all of the answer matches */
} m1_constraint_kind;

/* What is asked of a reply. */
typedef struct m1_constraint_spec
{
	m1_constraint_kind kind;
	m1_slice text;
	bool scored;		  /* choices are not constrained themselves: the constraint ends where the answer begins */
	m1_slice tools;		  /* a JSON array of definitions, of which calls may come instead of the answer; or empty */
	m1_slice tool_choice; /* see tool_calls.h */
} m1_constraint_spec;

typedef struct m1_constraint m1_constraint;
typedef struct m1_cursor m1_cursor;

/*
 * The vocabulary must outlive it. M1_E_INVALID_ARGUMENT and M1_E_UNSUPPORTED name the part of the text that is at
 * fault. `work`, which may be NULL, is asked every few milliseconds.
 */
m1_status m1_constraint_compile(const m1_constraint_spec *spec, const m1_vocabulary *v, m1_work *work,
								m1_constraint **out, m1_error *err);
void m1_constraint_retain(m1_constraint *c);
/* Forgets the constraint when nobody retains it and no cursor is left. NULL is allowed. */
void m1_constraint_release(m1_constraint *c);
bool m1_constraint_is(const m1_constraint *c, const m1_constraint_spec *spec);

/* Tokens that an answer should have room for. */
int m1_constraint_room(const m1_constraint *c);

/* Retains c. NULL when memory ran out. */
m1_cursor *m1_cursor_create(m1_constraint *c);
void m1_cursor_free(m1_cursor *cursor);

/* The reply goes on with these bytes. M1_E_INTERNAL when it must not. */
m1_status m1_cursor_read(m1_cursor *cursor, m1_slice bytes, m1_error *err);
/* Whether it may. */
bool m1_cursor_allows(m1_cursor *cursor, m1_slice bytes);
/* Appends all that the reply may go on with, as a grammar for a server that masks tokens itself; see gbnf.h. */
m1_status m1_cursor_write_grammar(m1_cursor *cursor, m1_buf *out, m1_error *err);
/* The answer may end here; *only: and nothing else may follow. */
bool m1_cursor_at_end(m1_cursor *cursor, bool *only);

/* As much work as an ordinary mask takes. */
int64_t m1_cursor_ordinary_work(const m1_cursor *cursor);

/*
 * Fills mask [vocabulary words] with the tokens that may come next when at most `tokens_left` are left, the end of turn
 * included. When those run short, only tokens from which the shortest end can still be reached are in it, if there are
 * any; choices are never shortened like that. M1_E_UNSUPPORTED when the constraint turns out to be too complex.
 *
 * It works on that for about *turn units, or M1_NO_TURN, of which it takes what it has used. Then *done tells whether
 * the mask is there; if not, it goes on when it is called again with the same arguments, before anything is read. A
 * turn should be an ordinary mask's at least, or it may lead to nothing.
 */
m1_status m1_cursor_mask(m1_cursor *cursor, int tokens_left, int64_t *turn, uint64_t *mask, bool *done, m1_error *err);
/* The same, if it takes no time because the mask is known already. */
bool m1_cursor_known_mask(m1_cursor *cursor, int tokens_left, uint64_t *mask);

#endif
