/* memory.h - how much memory this process may count on. */
#ifndef M1_BASE_MEMORY_H
#define M1_BASE_MEMORY_H

#include <stddef.h>

/* Bytes of the machine's memory, or of the control group's limit where that is lower. Never 0. */
size_t m1_machine_memory(void);

/* Bytes of this process that are in memory now, page by page, which takes a while; 0 where that is not told. */
size_t m1_resident_memory(void);

#endif
