/*
 * chat_json.h - what was asked, as OpenAI's chat completions say it: for servers that take texts only.
 *
 * Any thread, without state.
 */
#ifndef M1_PROXY_CHAT_JSON_H
#define M1_PROXY_CHAT_JSON_H

#include "wire/message.h"

/*
 * Appends members of the body: messages, and response_format for a constraint. M1_E_UNSUPPORTED names what such a
 * server cannot do: tokens, tools, scores, regular expressions, a budget of reasoning.
 */
m1_status m1_chat_json_write(const m1w_generate *g, m1_buf *out, m1_error *err);

#endif
