/*
 * cuda_graphs.c - launches that are the same each time: the layers of a step of n single
 * tokens, and the choice of n tokens. The second time that they come they are recorded,
 * and from then on one graph launch runs them all. Called by whoever records: cuda_step.c,
 * cuda_sample.c.
 */
#include "backend/cuda/cuda_internal.h"

static void
launch(m1b_cuda *c, const m1b_cuda_recording *r)
{
	m1b_cuda_note(c, cudaGraphLaunch(r->graph, c->stream), "running a recorded step");
}

bool
m1b_cuda_replay(m1b_cuda *c, m1b_cuda_recording *r)
{
	if (r != NULL && r->graph != NULL)
	{
		launch(c, r);
		return true;
	}
	/*
	 * The first run lets libraries load what they need, which cannot be recorded. Relaxed: among several GPUs it may be
	 * another thread that ends what this one begins.
	 */
	if (r != NULL && r->seen++ > 0 && !m1b_cuda_failed(c))
	{
		m1b_cuda_note(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "recording a step");
		c->graphs.open = !m1b_cuda_failed(c) ? r : NULL;
	}
	return false;
}

void
m1b_cuda_end_recording(m1b_cuda *c)
{
	cudaGraph_t graph = NULL;

	if (c->graphs.open == NULL)
		return;
	m1b_cuda_note(c, cudaStreamEndCapture(c->stream, &graph), "recording a step");
	if (!m1b_cuda_failed(c))
		m1b_cuda_note(c, cudaGraphInstantiate(&c->graphs.open->graph, graph, 0), "recording a step");
	if (graph != NULL)
		cudaGraphDestroy(graph);
}

void
m1b_cuda_launch_recorded(m1b_cuda *c)
{
	if (c->graphs.open != NULL && !m1b_cuda_failed(c))
		launch(c, c->graphs.open);
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
