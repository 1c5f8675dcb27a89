/*
 * cuda_step.c - one step on the device: its batch, its layers and its end.
 *
 * What differs between two steps of the same shape (tokens, positions, pages) is
 * copied to fixed places in device memory first, so that the layers of a batch of n
 * single tokens are always the same launches, which are recorded (cuda_graphs.c).
 */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

/* ---- the batch ---- */

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
		m1b_cuda_upload(c, c->tokens, c->host_tokens, (size_t) batch->n_tokens * sizeof *c->tokens,
						"uploading a batch");
	}
	m1b_cuda_upload(c, c->segments, c->host_segments, (size_t) batch->n_segments * sizeof *c->segments,
					"uploading a batch");
	m1b_cuda_upload(c, c->segment_of, c->host_segment_of, (size_t) batch->n_tokens * sizeof *c->segment_of,
					"uploading a batch");
	m1b_cuda_note(c, cudaEventRecord(c->uploaded, c->stream), "uploading a batch");
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
		m1b_cuda_download(c, host, device, n * sizeof *host, "reading results");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "running a step");
	return m1b_cuda_status(c, err);
}
