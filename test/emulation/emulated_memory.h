/*
 * emulated_memory.h - what runtime.cpp asks of memory.cpp: the devices' memory, which nobody else can touch, and the
 * host's that is pinned. Everything here is called under the runtime's lock.
 */
#ifndef EMULATED_MEMORY_H
#define EMULATED_MEMORY_H

#include <cuda_runtime.h>

#define EMULATED_PAGE ((size_t) 4096)
/* What is larger is only planned with, and never touched as a whole. */
#define EMULATED_LARGEST_TOUCHED ((size_t) 256 << 20)
#define EMULATED_EVERY_DEVICE (-1)

/* From now on the memory of this device can be touched, or that of all, and no other's; or nobody's. */
void emulated_open_memory(int device);
void emulated_close_memory(void);

/* A block of device memory, filled with NaN; nullptr where the machine has none left. */
void *emulated_map_block(int device, size_t bytes);
/* Frees it, and tells whose it was and how large; false: it is none. */
bool emulated_unmap_block(void *p, int *device, size_t *bytes);

/* Memory of the host that a device can reach. */
void emulated_pin(const void *p, size_t bytes);
void emulated_unpin(const void *p);
size_t emulated_pinned_bytes(void);

/* Whether all of it is in one block of a device, or pinned; and whether any of it is a device's. */
bool emulated_is_device(const void *p, size_t bytes);
bool emulated_is_pinned(const void *p, size_t bytes);
bool emulated_has_device(const void *p, size_t bytes);

/* Whether some word of it is an address of the host's that is not pinned. */
bool emulated_has_host_pointer(const void *argument, size_t bytes);

#endif
