/*
 * remote_tokens.h - what a token that a server has sent means for the request: whether it may follow, and whether the
 * server's stretch goes on to be of use. remote.c and remote_text.c call it.
 */
#ifndef M1_PROXY_REMOTE_TOKENS_H
#define M1_PROXY_REMOTE_TOKENS_H

#include "proxy/remote.h"

/* The model's next token. false: the server's stretch is of no more use, or the request failed: m->error says why. */
bool m1_remote_take(m1_remote *m, int32_t id, float probability);
/* Forgets those that wait for the end of a character: the rest of the reply is asked for from in front of it. */
void m1_remote_drop_held(m1_remote *m);

#endif
