/*
 * emulated_streams.h - what runtime.cpp offers to nccl.cpp: work that waits for the
 * streams of other devices.
 */
#ifndef EMULATED_STREAMS_H
#define EMULATED_STREAMS_H

#include <cuda_runtime.h>

#include <functional>

/*
 * Puts a meeting on the stream, or into the graph that it records. Once everything before it is done, `meet` is asked
 * again and again until it returns true; the stream goes no further meanwhile. It is called under the runtime's lock
 * and may use the memory of all devices after emulated_open_memory(EMULATED_EVERY_DEVICE).
 */
cudaError_t emulated_enqueue_meeting(cudaStream_t stream, std::function<bool()> meet);
/* Runs f under the runtime's lock, and then whatever can go on because of it. */
void emulated_locked(const std::function<void()> &f);
int emulated_device_of(cudaStream_t stream);
bool emulated_is_lost(int device);

#endif
