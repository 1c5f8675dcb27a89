/*
 * dlfcn.h - loading of the libraries that the CUDA backend loads when it needs them: of the emulated NCCL. Found instead of
 * the real header in tests without a GPU.
 */
#ifndef EMULATED_DLFCN_H
#define EMULATED_DLFCN_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTLD_LOCAL 0
#define RTLD_NOW 2

/* Under names of their own: the C library has the others. */
#define dlopen emulated_dlopen
#define dlsym emulated_dlsym
#define dlerror emulated_dlerror
void *dlopen(const char *name, int mode);
void *dlsym(void *library, const char *name);
char *dlerror(void);

/* The emulation's own: whether the machine has none of them. */
void emulated_hide_libraries(bool hidden);

#ifdef __cplusplus
}
#endif

#endif
