/*
 * mapped.h - a file mapped read-only, and what the system should know about its use.
 *
 * A mapping lives until it is closed; nobody may shorten the file meanwhile.
 */
#ifndef M1_FILES_MAPPED_H
#define M1_FILES_MAPPED_H

#include <stddef.h>

#include "base/status.h"

typedef struct m1_mapped
{
	const unsigned char *data; /* NULL: nothing is mapped */
	size_t size;
} m1_mapped;

/* Maps dir/name. M1_E_NOT_FOUND when it is absent, M1_E_IO when it cannot be read, M1_E_CORRUPT when it is empty. */
m1_status m1_mapped_open(const char *dir, const char *name, m1_mapped *out, m1_error *err);
void m1_mapped_close(m1_mapped *m);

/* Part of a mapping will be read soon, from begin to end: starts reading it from disk. */
void m1_mapped_expect(const void *data, size_t bytes);
/* Part of a mapping is not needed again: it leaves the process's memory (a later read would fetch it again). */
void m1_mapped_drop(const void *data, size_t bytes);

#endif
