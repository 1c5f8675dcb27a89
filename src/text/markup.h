/*
 * markup.h - the tags of M1's chat form: the one place that spells them.
 *
 * chat.c writes them into prompts; who teaches writes them into replies, where reply.c and grammar/constraint.c find
 * them. Turns are control tokens; the others are text, which some checkpoints have as one token. Documents are control
 * tokens, too.
 */
#ifndef M1_TEXT_MARKUP_H
#define M1_TEXT_MARKUP_H

/* Everything that is one sequence of tokens: a conversation, or a text. */
#define M1_DOCUMENT_OPEN "<begin_of_document>"
#define M1_DOCUMENT_CLOSE "<end_of_document>"

/* A turn of the conversation; the latter is also what ends a reply. */
#define M1_TURN_OPEN "<beginning_of_sentence>"
#define M1_TURN_CLOSE "<end_of_sentence>"

#define M1_THINK_OPEN "<think>"
#define M1_THINK_CLOSE "</think>"
/* Line breaks behind M1_THINK_CLOSE that belong to the markup, and how they are written. */
#define M1_THINK_BREAKS 2
#define M1_THINK_CLOSED M1_THINK_CLOSE "\n\n"
/* What stands before reasoning and behind it; a reply without any begins with both. */
#define M1_THINK_BEFORE M1_THINK_OPEN "\n"
#define M1_THINK_BEHIND "\n" M1_THINK_CLOSED
#define M1_THINK_NOTHING M1_THINK_BEFORE M1_THINK_BEHIND

/* Definitions of tools in a prompt, and calls of them in a reply. */
#define M1_TOOLS_OPEN "<tools>"
#define M1_TOOLS_CLOSE "</tools>"
#define M1_CALLS_OPEN "<tool_calls>"
#define M1_CALLS_CLOSE "</tool_calls>"

#endif
