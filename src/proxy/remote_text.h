/*
 * remote_text.h - replies of servers that send texts instead of tokens: the texts are made tokens of here, so that all
 * else is as with the others. remote.c calls it.
 */
#ifndef M1_PROXY_REMOTE_TEXT_H
#define M1_PROXY_REMOTE_TEXT_H

#include "proxy/remote.h"

/* false: no more is wanted of this stretch, or of the request, whose m->error says why if it failed. */
bool m1_remote_take_text(m1_remote *m, const m1_told *told);

#endif
