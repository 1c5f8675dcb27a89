/*
 * block.h - memory for users' texts, of which nothing stays behind when it is given back.
 *
 * What is large comes from the system itself, page by page as it is written, and goes back to it: the pages that
 * nobody wrote cost nothing, and those that were are wiped by the system before it gives them to anybody. So to grow
 * moves no byte, and to give back takes no time for what was only reserved. The owner keeps the size, and passes it.
 */
#ifndef M1_BASE_BLOCK_H
#define M1_BASE_BLOCK_H

#include <stddef.h>

/* Of so many bytes, at least 1. NULL when memory ran out. */
void *m1_block_create(size_t bytes);

/* The block with its contents, as large as `grown`, somewhere else perhaps. NULL: it is as it was. */
void *m1_block_grow(void *block, size_t bytes, size_t grown);

/* NULL is allowed. */
void m1_block_free(void *block, size_t bytes);

#endif
