/*
 * kept_bytes.h - bytes of adapters and trainings that are put into the engine, piece by piece, each run under a name.
 *
 * A list is of one thread at a time. Whoever puts them may be gone before they are used: those to which no piece was
 * added for a while make room for others.
 */
#ifndef M1_ENGINE_KEPT_BYTES_H
#define M1_ENGINE_KEPT_BYTES_H

#include "wire/message.h"

typedef struct m1_kept_bytes
{
	struct m1_kept_bytes *next;
	m1_buf bytes; /* those that are there */
	uint64_t total;
	double added_ms; /* when the last piece was */
	size_t name_len;
	char name[M1W_MAX_NAME];
} m1_kept_bytes;

/* The run of that name, or NULL. */
m1_kept_bytes *m1_kept_find(m1_kept_bytes *list, m1_slice name);

/*
 * The next piece, or the first, which replaces what lay under its name. M1_E_NO_MEMORY when there are too many runs, or
 * too long ones, to which pieces are still added.
 */
m1_status m1_kept_put(m1_kept_bytes **list, const m1w_bytes *piece, double now_ms, m1_error *err);

/* The run of that name, which is the caller's then; NULL when there is none. */
m1_kept_bytes *m1_kept_take(m1_kept_bytes **list, m1_slice name);

/* NULL is allowed, here and below. */
void m1_kept_free(m1_kept_bytes *k);
void m1_kept_drop(m1_kept_bytes **list, m1_kept_bytes *k);

#endif
