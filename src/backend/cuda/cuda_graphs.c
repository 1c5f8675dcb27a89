/*
 * cuda_graphs.c - launches that are the same each time: the layers of a step of n single
 * tokens, and the choice of n tokens. The second time that they come they are recorded,
 * and from then on one graph launch runs them all. Called by whoever records: cuda_step.c,
 * cuda_sample.c.
 *
 * What a device will not record, because a library does in it what cannot be, is launched
 * one by one as before: slower, and no reason to lose the engine.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdio.h>

static void
launch(m1b_cuda *c, const m1b_cuda_recording *r)
{
	m1b_cuda_note(c, cudaGraphLaunch(r->graph, c->stream), "running a recorded step");
}

/* What was noted meanwhile is of the recording: what goes wrong without one goes wrong again. */
static void
refuse(m1b_cuda *c, m1b_cuda_recording *r, cudaError_t error)
{
	char line[256];

	r->refused = true;
	c->graphs.open = NULL;
	c->failure = (m1b_cuda_failure){.error = cudaSuccess};
	cudaGetLastError();
	if (c->log == NULL || c->graphs.told)
		return;
	c->graphs.told = true;
	snprintf(line, sizeof line, "launches cannot be recorded (%s: %s): they are made one by one, which takes longer",
			 cudaGetErrorName(error), cudaGetErrorString(error));
	c->log(c->log_context, line);
}

bool
m1b_cuda_replay(m1b_cuda *c, m1b_cuda_recording *r)
{
	cudaError_t error;

	if (r != NULL && r->graph != NULL)
	{
		launch(c, r);
		return true;
	}
	/*
	 * The first run lets libraries load what they need, which cannot be recorded. Relaxed: among several GPUs it may be
	 * another thread that ends what this one begins.
	 */
	if (r != NULL && !r->refused && r->seen++ > 0 && !m1b_cuda_failed(c))
	{
		c->graphs.open = r;
		if ((error = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed)) != cudaSuccess)
			refuse(c, r, error);
	}
	return false;
}

bool
m1b_cuda_end_recording(m1b_cuda *c)
{
	m1b_cuda_recording *r = c->graphs.open;
	cudaGraph_t graph = NULL;
	cudaError_t error;

	if (r == NULL)
		return true;
	error = cudaStreamEndCapture(c->stream, &graph);
	if (error == cudaSuccess && !m1b_cuda_failed(c))
		error = cudaGraphInstantiate(&r->graph, graph, 0);
	if (graph != NULL)
		cudaGraphDestroy(graph);
	if (error != cudaSuccess)
		refuse(c, r, error);
	return error == cudaSuccess;
}

void
m1b_cuda_launch_recorded(m1b_cuda *c)
{
	if (c->graphs.open != NULL && !m1b_cuda_failed(c))
		launch(c, c->graphs.open);
	c->graphs.open = NULL;
}

void
m1b_cuda_drop_recording(m1b_cuda *c)
{
	m1b_cuda_recording *r = c->graphs.open;

	if (r == NULL)
		return;
	if (r->graph != NULL)
		cudaGraphExecDestroy(r->graph);
	*r = (m1b_cuda_recording){.refused = true};
	c->graphs.open = NULL;
}

static void
free_recording(m1b_cuda_recording *r)
{
	if (r->graph != NULL)
		cudaGraphExecDestroy(r->graph);
	*r = (m1b_cuda_recording){.seen = 0}; /* what comes next may be of other weights, for which libraries load more */
}

void
m1b_cuda_recordings_free(m1b_cuda *c)
{
	for (int n = 0; n <= M1B_CUDA_RECORDINGS; n++)
	{
		free_recording(&c->graphs.layers[n]);
		for (int stages = 0; stages < 1 << M1K_STAGES; stages++)
			free_recording(&c->graphs.draws[n][stages]);
	}
}
