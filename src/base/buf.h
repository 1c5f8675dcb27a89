/*
 * buf.h - a growable byte buffer and a growable array of token ids.
 *
 * Owned by whoever declared it; zero-initialised is empty and valid. A failed growth leaves the contents intact and
 * sets `failed`, so that a sequence of appends needs one check at its end.
 */
#ifndef M1_BASE_BUF_H
#define M1_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct m1_buf
{
	char *data; /* not NUL-terminated unless m1_buf_cstr was called */
	size_t len;
	size_t cap;		 /* from data on */
	size_t consumed; /* bytes in front of data, which are free to be used again */
	bool failed;	 /* an append ran out of memory */
} m1_buf;

bool m1_buf_reserve(m1_buf *b, size_t extra);
bool m1_buf_append(m1_buf *b, const void *data, size_t len);
bool m1_buf_puts(m1_buf *b, const char *s);
/* NUL-terminates (the NUL is not counted in len) and returns data, or NULL when memory ran out. */
char *m1_buf_cstr(m1_buf *b);
/* Drops the first n bytes, and moves none: a long buffer may be consumed in small pieces. */
void m1_buf_consume(m1_buf *b, size_t n);
/* Leaves nothing of the contents behind: buffers hold users' prompts. */
void m1_buf_free(m1_buf *b);

/* A borrowed run of bytes; never owns, never NUL-terminated by contract. */
typedef struct m1_slice
{
	const char *data;
	size_t len;
} m1_slice;

m1_slice m1_slice_of(const char *cstr); /* NULL gives the empty slice */

typedef struct m1_ids
{
	int32_t *data;
	size_t len;
	size_t cap;
	bool failed;
} m1_ids;

bool m1_ids_reserve(m1_ids *a, size_t extra);
bool m1_ids_push(m1_ids *a, int32_t id);
void m1_ids_free(m1_ids *a);

#endif
