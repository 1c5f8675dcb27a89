/*
 * adapter_set.h - the adapters that requests may name, which come and go while others are used.
 *
 * The step thread adds and drops, and reads without a lock; any thread may acquire by name and release. Numbers are
 * never used twice, so that what was computed with one adapter is not taken for another's. What is lent may be given up
 * for others: whoever wants it again has it to give.
 */
#ifndef M1_MODEL_ADAPTER_SET_H
#define M1_MODEL_ADAPTER_SET_H

#include "base/buf.h"
#include "model/adapter.h"

typedef struct m1_adapter_set m1_adapter_set;

/* NULL when memory ran out. */
m1_adapter_set *m1_adapter_set_create(void);
/* With its adapters. */
void m1_adapter_set_free(m1_adapter_set *s);

/* Takes the adapter over, unless it fails: M1_E_INVALID_ARGUMENT when there is one of that name. */
m1_status m1_adapter_set_add(m1_adapter_set *s, m1_slice name, m1_adapter *adapter, m1_error *err);
/* That adapter may be given up. */
void m1_adapter_set_lend(m1_adapter_set *s, m1_slice name);
/* Frees the one that is lent and not used, and was not for the longest time. false: there is none. */
bool m1_adapter_set_give_up(m1_adapter_set *s);
/* Nobody finds it any more; it is freed when the last who has acquired it has released it. false: there is none. */
bool m1_adapter_set_drop(m1_adapter_set *s, m1_slice name);
/* Frees what was dropped and is not used any more. */
void m1_adapter_set_sweep(m1_adapter_set *s);
/* The adapter of a number that is acquired; NULL for 0, which is none. */
const m1_adapter *m1_adapter_set_get(const m1_adapter_set *s, int number);
/* Of all of them: how many there are, their bytes, and the largest rank. */
int m1_adapter_set_count(m1_adapter_set *s);
size_t m1_adapter_set_bytes(const m1_adapter_set *s);
int m1_adapter_set_max_rank(const m1_adapter_set *s);

/* The number of the adapter of that name, which stays until it is released; 0 when there is none. */
int m1_adapter_set_acquire(m1_adapter_set *s, m1_slice name);
/* number may be 0. */
void m1_adapter_set_release(m1_adapter_set *s, int number);

#endif
