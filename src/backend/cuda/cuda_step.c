/*
 * cuda_step.c - one step on the device: its batch, what is recorded of it, and its end.
 *
 * What differs between two steps of the same shape (tokens, positions, pages) is
 * copied to fixed places in device memory first, so that the layers of a batch of n
 * single tokens are always the same launches. The second time such a batch comes they
 * are recorded, and from then on one graph launch runs them all.
 */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

/* ---- errors ---- */

void
m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing)
{
	if (error == cudaSuccess || c->failure != cudaSuccess)
		return;
	c->failure = error;
	c->failed_at = doing;
}

void
m1b_cuda_launched(m1b_cuda *c, const char *doing)
{
	m1b_cuda_note(c, cudaGetLastError(), doing);
}

m1_status
m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err)
{
	const m1_status code = error == cudaErrorMemoryAllocation ? M1_E_NO_MEMORY : M1_E_DEVICE;

	cudaGetLastError(); /* it has been told: what is launched next is not to blame */
	m1_fail(err, code, "CUDA failed while %s", doing);
	m1_error_detail(err, "%s: %s.", cudaGetErrorName(error), cudaGetErrorString(error));
	if (code == M1_E_NO_MEMORY)
		m1_error_hint(err, "Lower max_context or max_requests, or see what else uses the device.");
	return code;
}

m1_status
m1b_cuda_status(const m1b_cuda *c, m1_error *err)
{
	if (c->failure == cudaSuccess)
		return M1_OK;
	if (c->nccl_says == NULL)
		return m1b_cuda_error(c->failure, c->failed_at, err);
	m1_fail(err, M1_E_DEVICE, "NCCL failed while %s", c->failed_at);
	m1_error_detail(err, "%s.", c->nccl_says);
	return M1_E_DEVICE;
}

/* ---- copies ---- */

void
m1b_cuda_copy(m1b_cuda *c, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, const char *doing)
{
	if (bytes > 0)
		m1b_cuda_note(c, cudaMemcpyAsync(to, from, bytes, kind, c->stream), doing);
}

void
m1b_cuda_zero(m1b_cuda *c, void *at, size_t bytes, const char *doing)
{
	if (bytes > 0)
		m1b_cuda_note(c, cudaMemsetAsync(at, 0, bytes, c->stream), doing);
}

/* ---- the batch ---- */

static void
upload(m1b_cuda *c, void *to, const void *from, size_t bytes)
{
	m1b_cuda_copy(c, to, from, bytes, cudaMemcpyHostToDevice, "uploading a batch");
}

static void
upload_batch(m1b_cuda *c, const m1b_batch *batch)
{
	/* The copies of the step before have left the pinned memory, unless that step is still behind another. */
	m1b_cuda_note(c, cudaEventSynchronize(c->uploaded), "waiting for a step");
	c->one_each = true;
	for (int s = 0; s < batch->n_segments; s++)
	{
		const m1b_segment *segment = &batch->segments[s];

		m1b_cuda_state_extend(c, segment->state, segment->start + segment->n_tokens);
		c->host_segments[s] = (m1k_segment){.state = segment->state->index,
											.start = segment->start,
											.n_tokens = segment->n_tokens,
											.row = segment->row};
		for (int t = 0; t < segment->n_tokens; t++)
			c->host_segment_of[segment->row + t] = s;
		c->one_each = c->one_each && segment->n_tokens == 1;
	}
	if (batch->tokens != NULL)
	{
		memcpy(c->host_tokens, batch->tokens, (size_t) batch->n_tokens * sizeof *c->host_tokens);
		upload(c, c->tokens, c->host_tokens, (size_t) batch->n_tokens * sizeof *c->tokens);
	}
	upload(c, c->segments, c->host_segments, (size_t) batch->n_segments * sizeof *c->segments);
	upload(c, c->segment_of, c->host_segment_of, (size_t) batch->n_tokens * sizeof *c->segment_of);
	m1b_cuda_note(c, cudaEventRecord(c->uploaded, c->stream), "uploading a batch");
}

/* ---- recordings ---- */

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
	if (r != NULL && r->seen++ > 0 && c->failure == cudaSuccess)
	{
		m1b_cuda_note(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "recording a step");
		c->recording = c->failure == cudaSuccess ? r : NULL;
	}
	return false;
}

void
m1b_cuda_end_recording(m1b_cuda *c)
{
	cudaGraph_t graph = NULL;

	if (c->recording == NULL)
		return;
	m1b_cuda_note(c, cudaStreamEndCapture(c->stream, &graph), "recording a step");
	if (c->failure == cudaSuccess)
		m1b_cuda_note(c, cudaGraphInstantiate(&c->recording->graph, graph, 0), "recording a step");
	if (graph != NULL)
		cudaGraphDestroy(graph);
}

void
m1b_cuda_launch_recorded(m1b_cuda *c)
{
	if (c->recording != NULL && c->failure == cudaSuccess)
		launch(c, c->recording);
	c->recording = NULL;
}

static void
free_recording(m1b_cuda_recording *r)
{
	if (r->graph != NULL)
		cudaGraphExecDestroy(r->graph);
	r->graph = NULL;
}

void
m1b_cuda_recordings_free(m1b_cuda *c)
{
	for (int n = 0; n <= M1B_CUDA_RECORDINGS; n++)
	{
		free_recording(&c->recordings[n]);
		for (int stages = 0; stages < 1 << M1K_STAGES; stages++)
			free_recording(&c->samplings[n][stages]);
	}
}

/* ---- the layers ---- */

static m1b_cuda_recording *
recording_of(m1b_cuda *c)
{
	return c->one_each && c->batch->n_tokens <= M1B_CUDA_RECORDINGS ? &c->recordings[c->batch->n_tokens] : NULL;
}

/* The rotations of the batch's positions, which all softmax layers use. The first launch of every step. */
static void
prepare_layers(m1b_cuda *c)
{
	m1k_rope_table(c->segments, c->segment_of, c->batch->n_tokens, c->inv_freq, c->g.rotary_dim / 2, c->rope,
				   c->stream);
	m1b_cuda_launched(c, "preparing a step");
}

bool
m1b_cuda_begin(m1b_backend *b, const m1b_batch *batch)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1b_cuda_loader_finish(c);
	c->batch = batch;
	c->rounded_from = NULL;
	upload_batch(c, batch);
	if (m1b_cuda_replay(c, recording_of(c)))
		return true;
	prepare_layers(c);
	return false;
}

void
m1b_cuda_end(m1b_backend *b)
{
	m1b_cuda_end_recording(m1b_cuda_of(b));
	m1b_cuda_launch_recorded(m1b_cuda_of(b));
}

/* ---- the end of a step ---- */

m1_status
m1b_cuda_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1b_cuda_loader_finish(c);
	if (c->failure == cudaSuccess)
		m1b_cuda_copy(c, host, device, n * sizeof *host, cudaMemcpyDeviceToHost, "reading results");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "running a step");
	return m1b_cuda_status(c, err);
}
