/*
 * cuda_graphs.h - launches that are the same each time, as graphs.
 */
#ifndef M1_BACKEND_CUDA_CUDA_GRAPHS_H
#define M1_BACKEND_CUDA_CUDA_GRAPHS_H

#include <cuda_runtime.h>
#include <stdbool.h>

#include "kernels/m1k.h"

typedef struct m1b_cuda m1b_cuda;

#define M1B_CUDA_RECORDINGS 64 /* batches of up to so many single tokens have a graph, and so many draws */

/* Launches that are recorded the second time that they come. */
typedef struct m1b_cuda_recording
{
	int seen;
	bool refused;		   /* by the device, which is not asked again */
	cudaGraphExec_t graph; /* or NULL */
} m1b_cuda_recording;

typedef struct m1b_cuda_graphs
{
	m1b_cuda_recording layers[M1B_CUDA_RECORDINGS + 1]; /* of a step with n single tokens */
	/* of n draws with some of the stages: 5 sets of them come, which have 3 to 33 kernels */
	m1b_cuda_recording draws[M1B_CUDA_RECORDINGS + 1][1 << M1K_STAGES];
	m1b_cuda_recording *open; /* what is being recorded, or NULL */
	bool told;				  /* that the device refuses */
} m1b_cuda_graphs;

/*
 * true: what r is for has been recorded, and is started. Otherwise, launch it and end the recording, which may have
 * been begun. r may be NULL: then it never is.
 */
bool m1b_cuda_replay(m1b_cuda *c, m1b_cuda_recording *r);
/*
 * Ends it, in two: what was recorded becomes a graph; the graph is started. Both do nothing if nothing was. false: the
 * device refuses to record it, and nothing of it runs: launch it anew, which is not recorded.
 */
bool m1b_cuda_end_recording(m1b_cuda *c);
void m1b_cuda_launch_recorded(m1b_cuda *c);
/* As if the device had refused what is being recorded, which has become a graph already. */
void m1b_cuda_drop_recording(m1b_cuda *c);
void m1b_cuda_recordings_free(m1b_cuda *c);

#endif
