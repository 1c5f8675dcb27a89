/*
 * reply_form.h - the form of a whole reply around its constrained part, as text/reply.c reads it: reasoning, and text
 * in front of tool calls. For constraint.c; nodes are built backwards, as nfa.h says.
 */
#ifndef M1_GRAMMAR_REPLY_FORM_H
#define M1_GRAMMAR_REPLY_FORM_H

#include "grammar/nfa.h"

/* Reasoning, its markup and then the answer. A little white space may come first: models write some. */
int32_t m1_reply_reasoning(m1_nfa *nfa, int32_t answer);

/* Text that may end anywhere, or go on to the tag that opens calls, and then to `calls`: M1_NFA_FAIL for none. */
typedef struct m1_free_text
{
	int32_t start;	 /* behind reasoning */
	int32_t opening; /* where a reply begins: what reads as reasoning is left out */
} m1_free_text;

m1_free_text m1_reply_free_text(m1_nfa *nfa, int32_t calls);

#endif
