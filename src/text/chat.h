/*
 * chat.h - renders a conversation into token ids in M1's chat format.
 *
 * Only the markup is encoded with control tokens recognised; text from system, user, assistant and tool messages never
 * becomes one, and neither does <think>.
 */
#ifndef M1_TEXT_CHAT_H
#define M1_TEXT_CHAT_H

#include "text/tokenizer.h"

#define M1_CHAT_MAX_BYTES ((size_t) 64 << 20) /* of the messages */
#define M1_CHAT_MAX_MESSAGES 100000

typedef struct m1_chat
{
	m1_slice system;	 /* empty: no system turn (unless messages hold one) */
	m1_slice prompt;	 /* one user turn; empty when messages are given */
	size_t template_len; /* leading bytes of prompt that are the same in other prompts; 0 = none */
	m1_slice messages;	 /* JSON array of {role, content, ...} as OpenAI's clients write them, or empty */
	m1_slice tools;		 /* JSON array of tool definitions, or empty */
	bool hides_tools;	 /* they are looked at, and not shown: none may be called */
	m1_work *work;		 /* of tokenizing it; may be NULL */
	m1_ids *replies;	 /* NULL; or the conversation is to learn from: see m1_chat_render */
} m1_chat;

/*
 * How many leading ids do not depend on what follows: where a prefix snapshot is worth taking. Ascending, maybe equal.
 * They come out of the ids of the whole prompt, which are the same wherever the bounds are.
 */
typedef struct m1_chat_bounds
{
	size_t system;	 /* system and tools, and what opens the first turn */
	size_t history;	 /* also the earlier messages, and what opens the last user turn */
	size_t template; /* also the template's part of that turn; history when there is none */
	bool tools;		 /* no bound: there are tools */
} m1_chat_bounds;

/*
 * Appends the prompt, ending with the opened assistant turn, to ids. A conversation to learn from is complete instead:
 * no turn is opened behind it, and for every turn of the assistant the place in ids where its words begin and the place
 * behind the token that ends it are appended to chat->replies. Its words begin with a token of their own there, and
 * <think> is the token that it is in a reply.
 * M1_E_INVALID_ARGUMENT with the place ("messages[2]") for malformed messages or tools, and keys that are not known;
 * M1_E_UNSUPPORTED for what is beyond a limit.
 */
m1_status m1_chat_render(const m1_tokenizer *t, const m1_chat *chat, m1_ids *ids, m1_chat_bounds *bounds,
						 m1_error *err);

#endif
