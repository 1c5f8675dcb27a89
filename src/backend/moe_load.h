/*
 * moe_load.h - how the choices of experts are spread, from logits and choices that the host can read: the same sums on
 * every device.
 */
#ifndef M1_BACKEND_MOE_LOAD_H
#define M1_BACKEND_MOE_LOAD_H

#include "backend/learning.h"

/* m1b_learning.moe_load, of a p->kept whose logits and choices are the host's. */
void m1b_moe_count_load(const m1b_moe_load *p);

#endif
