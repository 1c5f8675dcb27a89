/*
 * masker.h - a thread that works out the masks of constrained requests while the model runs the step that they are for.
 *
 * Everybody's step waits for it, so there is only so much work in a step, whoever it is for: as much as a few ordinary
 * masks take. Requests take turns at it, and those whose masks are not done then go on in the next step. The work needs
 * no other end: a cancelled request is gone before the next step.
 *
 * Called by the step thread only; between start and wait the requests' cursors and masks belong to the masker.
 */
#ifndef M1_ENGINE_MASKER_H
#define M1_ENGINE_MASKER_H

#include "engine/request.h"

typedef struct m1_masker m1_masker;

/* For at most max_requests at a time. */
m1_status m1_masker_create(int max_requests, m1_masker **out, m1_error *err);
void m1_masker_free(m1_masker *m);

/* Takes those of the requests that are constrained and whose masks are not known already. */
void m1_masker_start(m1_masker *m, m1_request *const *requests, int n);
/* Returns when the masks are there, or the requests' mask_error tells why not; or the work of the step is done, and
 * mask_done tells whose mask is not. */
void m1_masker_wait(m1_masker *m);

#endif
