/*
 * chat.h - renders a conversation into token ids in M1's chat format.
 *
 * Only the markup is encoded with control tokens recognised; text from system,
 * user, assistant and tool messages never becomes one.
 */
#ifndef M1_MODEL_CHAT_H
#define M1_MODEL_CHAT_H

#include "model/tokenizer.h"

typedef struct m1_chat
{
	m1_slice system;   /* empty: no system turn (unless messages hold one) */
	m1_slice prompt;   /* one user turn; empty when messages are given */
	m1_slice messages; /* JSON array of {role, content, ...}, or empty */
	m1_slice tools;	   /* JSON array of tool definitions, or empty */
} m1_chat;

/*
 * Appends the prompt, ending with the opened assistant turn, to ids.
 * *constant_len is set to the number of leading ids that do not depend on the last user turn's text (system and
 * tool turns, earlier messages, the opening of the user turn): the boundary where a prefix snapshot is worth taking.
 * M1_E_INVALID_ARGUMENT with the place ("messages[2].role") for malformed messages or tools.
 */
m1_status m1_chat_render(const m1_tokenizer *t, const m1_chat *chat, m1_ids *ids, size_t *constant_len, m1_error *err);

#endif
