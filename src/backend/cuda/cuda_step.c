/*
 * cuda_step.c - one step on the device: its batch, its layers and its end.
 *
 * What differs between two steps of the same shape (tokens, positions, pages) is
 * copied to fixed places in device memory first, so that the layers of a batch of n
 * single tokens are always the same launches, which are recorded (cuda_graphs.c).
 */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

/* ---- life ---- */

void
m1b_cuda_step_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const size_t tokens = (size_t) c->g.max_tokens;

	m1b_cuda_want(all, &c->step.tokens, tokens, sizeof *c->step.tokens);
	m1b_cuda_want(all, &c->step.segment_of, tokens, sizeof *c->step.segment_of);
	m1b_cuda_want(all, &c->step.segments, (size_t) c->g.max_states, sizeof *c->step.segments);
}

m1_status
m1b_cuda_step_create(m1b_cuda *c, m1_error *err)
{
	m1b_cuda_step *s = &c->step;
	const size_t tokens = (size_t) c->g.max_tokens;
	cudaError_t error;
	m1_status status;

	if ((status = m1b_cuda_pinned(&s->host_tokens, tokens * sizeof *s->host_tokens, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&s->host_segment_of, tokens * sizeof *s->host_segment_of, err)) != M1_OK ||
		(status = m1b_cuda_pinned(&s->host_segments, (size_t) c->g.max_states * sizeof *s->host_segments, err)) !=
			M1_OK)
		return status;
	if ((error = m1b_cuda_event_create(&s->uploaded)) == cudaSuccess)
		error = cudaEventRecord(s->uploaded, c->stream);
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "preparing for steps", err);
}

void
m1b_cuda_step_free(m1b_cuda *c)
{
	cudaFreeHost(c->step.host_tokens);
	cudaFreeHost(c->step.host_segment_of);
	cudaFreeHost(c->step.host_segments);
	m1b_cuda_event_free(c->step.uploaded);
}

/* ---- the batch ---- */

static void
upload_batch(m1b_cuda *c, const m1b_batch *batch)
{
	m1b_cuda_step *step = &c->step;

	/* The copies of the step before have left the pinned memory, unless that step is still behind another. */
	m1b_cuda_note(c, cudaEventSynchronize(step->uploaded), "waiting for a step");
	step->one_each = true;
	for (int s = 0; s < batch->n_segments; s++)
	{
		const m1b_segment *segment = &batch->segments[s];

		m1b_cuda_state_extend(c, segment->state, segment->start + segment->n_tokens);
		step->host_segments[s] = (m1k_segment){.state = segment->state->index,
											   .start = segment->start,
											   .n_tokens = segment->n_tokens,
											   .row = segment->row};
		for (int t = 0; t < segment->n_tokens; t++)
			step->host_segment_of[segment->row + t] = s;
		step->one_each = step->one_each && segment->n_tokens == 1;
	}
	if (batch->tokens != NULL)
	{
		memcpy(step->host_tokens, batch->tokens, (size_t) batch->n_tokens * sizeof *step->host_tokens);
		m1b_cuda_upload(c, step->tokens, step->host_tokens, (size_t) batch->n_tokens * sizeof *step->tokens,
						"uploading a batch");
	}
	m1b_cuda_upload(c, step->segments, step->host_segments, (size_t) batch->n_segments * sizeof *step->segments,
					"uploading a batch");
	m1b_cuda_upload(c, step->segment_of, step->host_segment_of, (size_t) batch->n_tokens * sizeof *step->segment_of,
					"uploading a batch");
	m1b_cuda_note(c, cudaEventRecord(step->uploaded, c->stream), "uploading a batch");
}

/* ---- the layers ---- */

static m1b_cuda_recording *
recording_of(m1b_cuda *c)
{
	return c->step.one_each && c->step.batch->n_tokens <= M1B_CUDA_RECORDINGS
			   ? &c->graphs.layers[c->step.batch->n_tokens]
			   : NULL;
}

void
m1b_cuda_start_layers(m1b_cuda *c)
{
	c->rounded.of = NULL;
	m1b_cuda_rotations(c);
}

bool
m1b_cuda_begin(m1b_backend *b, const m1b_batch *batch)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1b_cuda_loader_finish(c);
	c->step.batch = batch;
	c->rounded.of = NULL;
	upload_batch(c, batch);
	if (m1b_cuda_replay(c, recording_of(c)))
		return true;
	m1b_cuda_start_layers(c);
	return false;
}

bool
m1b_cuda_end(m1b_backend *b)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const bool recorded = m1b_cuda_end_recording(c);

	if (recorded)
		m1b_cuda_launch_recorded(c);
	else
		m1b_cuda_start_layers(c);
	return recorded;
}

/* ---- the end of a step ---- */

m1_status
m1b_cuda_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);

	m1b_cuda_loader_finish(c);
	if (!m1b_cuda_failed(c))
		m1b_cuda_download(c, host, device, n * sizeof *host, "reading results");
	m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "running a step");
	return m1b_cuda_status(c, err);
}
