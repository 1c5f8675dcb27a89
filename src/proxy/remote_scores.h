/*
 * remote_scores.h - choices that are chosen by their probability, of a model that is elsewhere: each is sent behind the
 * place where the answer begins, and the server tells how probable its tokens are. remote.c calls it.
 */
#ifndef M1_PROXY_REMOTE_SCORES_H
#define M1_PROXY_REMOTE_SCORES_H

#include "proxy/remote.h"

/* Whether there is more to ask for; if not, the request has chosen and ended. The first call marks where it begins. */
bool m1_remote_scores_go_on(m1_remote *m);
m1_status m1_remote_write_score(m1_remote *m, const m1_dialect *dialect, m1_buf *body, m1_error *err);
/* What came back; a failure is left in m->error. */
void m1_remote_read_score(m1_remote *m, m1_slice body);

#endif
