/*
 * fibers.h - what emulation.cpp needs of fibers.cpp: blocks are run one after the other, by one thread of the program.
 */
#ifndef FIBERS_H
#define FIBERS_H

#include "emulated_device.h"

#include <functional>

#define EMULATED_MAX_THREADS 1024

/* The number of the thread that runs, of its block's. */
extern int emulated_thread;

/* What the blocks of a launch have in common. */
void emulated_set_up_threads(dim3 block);
/* Calls `thread` in each thread of a block; blockIdx is set. */
void emulated_run_block(const std::function<void()> &thread);
[[noreturn]] void emulated_give_up(const char *why);

#endif
