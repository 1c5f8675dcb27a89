/*
 * cuda_weights.c - weights and constants on their way to the device.
 *
 * They pass through a ring of pinned buffers: the pool's threads copy rows from the
 * mapped file into one buffer (which reads the disk, and changes layouts where the
 * device's differs) while the buffers before it are on their way to the device. The
 * ring exists until the first step.
 */
#define _GNU_SOURCE /* madvise */
#include "backend/cuda/cuda_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blocks/blocks.h"

#define BUFFERS 4
#define LARGEST_BUFFER ((size_t) 32 << 20)
#define SMALLEST_BUFFER ((size_t) 1 << 20)
#define PIECE_BYTES ((size_t) 1 << 20) /* what one thread copies at a time */

/* The two enumerations are one. */
_Static_assert((int) M1B_F32 == (int) M1K_F32 && (int) M1B_F16 == (int) M1K_F16 && (int) M1B_BF16 == (int) M1K_BF16 &&
				   (int) M1B_Q8_0 == (int) M1K_Q8_0 && (int) M1B_Q4_0 == (int) M1K_Q4_0 &&
				   (int) M1B_Q4_K == (int) M1K_Q4_K && (int) M1B_Q5_K == (int) M1K_Q5_K &&
				   (int) M1B_Q6_K == (int) M1K_Q6_K && (int) M1B_F8_E4M3 == (int) M1K_F8_E4M3,
			   "kernels and backend number the weight types alike");

typedef struct m1b_cuda_loader
{
	m1_pool *pool;
	bool own_pool;
	cudaStream_t stream;
	char *buffers[BUFFERS];
	size_t buffer_bytes; /* of each */
	cudaEvent_t sent[BUFFERS];
	int next;
} m1b_cuda_loader;

/* ---- the ring ---- */

/* Pinning takes a device's driver its time: not more than all weights need. */
static size_t
buffer_bytes_for(size_t weights)
{
	const size_t rounded = (weights + SMALLEST_BUFFER - 1) / SMALLEST_BUFFER * SMALLEST_BUFFER;

	return rounded < SMALLEST_BUFFER ? SMALLEST_BUFFER : rounded < LARGEST_BUFFER ? rounded : LARGEST_BUFFER;
}

m1_status
m1b_cuda_loader_create(m1b_cuda *c, m1_pool *pool, m1_error *err)
{
	m1b_cuda_loader *l = calloc(1, sizeof *l);
	cudaError_t error;
	m1_status status;

	c->loader = l;
	if (l == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the loader");
	l->buffer_bytes = buffer_bytes_for(c->plan.weights);
	l->own_pool = pool == NULL;
	l->pool = pool;
	if (l->own_pool && (status = m1_pool_create(0, &l->pool, err)) != M1_OK)
		return status;
	error = cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking);
	for (int i = 0; i < BUFFERS && error == cudaSuccess; i++)
	{
		void *buffer = NULL;

		error = cudaHostAlloc(&buffer, l->buffer_bytes, cudaHostAllocDefault);
		l->buffers[i] = buffer;
		if (error == cudaSuccess)
			error = m1b_cuda_event_create(&l->sent[i]);
		if (error == cudaSuccess)
			error = cudaEventRecord(l->sent[i], l->stream);
	}
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "allocating pinned memory", err);
}

void
m1b_cuda_loader_finish(m1b_cuda *c)
{
	m1b_cuda_loader *l = c->loader;

	if (l == NULL)
		return;
	if (l->stream != NULL)
	{
		m1b_cuda_note(c, cudaStreamSynchronize(l->stream), "loading weights");
		cudaStreamDestroy(l->stream);
	}
	for (int i = 0; i < BUFFERS; i++)
	{
		m1b_cuda_event_free(l->sent[i]);
		cudaFreeHost(l->buffers[i]);
	}
	if (l->own_pool)
		m1_pool_free(l->pool);
	free(l);
	c->loader = NULL;
}

/* The next buffer, once it has been sent. */
static char *
free_buffer(m1b_cuda *c)
{
	m1b_cuda_loader *l = c->loader;

	m1b_cuda_note(c, cudaEventSynchronize(l->sent[l->next]), "loading weights");
	return l->buffers[l->next];
}

static void
send_buffer(m1b_cuda *c, void *to, size_t bytes)
{
	m1b_cuda_loader *l = c->loader;

	m1b_cuda_note(c, cudaMemcpyAsync(to, l->buffers[l->next], bytes, cudaMemcpyHostToDevice, l->stream),
				  "loading weights");
	m1b_cuda_note(c, cudaEventRecord(l->sent[l->next], l->stream), "loading weights");
	/* what is computed from now on finds it there */
	m1b_cuda_note(c, cudaStreamWaitEvent(c->stream, l->sent[l->next], 0), "loading weights");
	l->next = (l->next + 1) % BUFFERS;
}

/* ---- rows ---- */

/* Of a row of weights on the device. */
static size_t
row_bytes_of(m1b_dtype type, int cols)
{
	return (m1b_bytes(type, (size_t) cols) + M1K_ROW_ALIGNMENT - 1) / M1K_ROW_ALIGNMENT * M1K_ROW_ALIGNMENT;
}

/* Quants of all blocks first, then their scales: block = scale, then `bytes` of quants. */
static void
split_scales(const uint8_t *from, size_t blocks, size_t scale, size_t bytes, uint8_t *to)
{
	for (size_t i = 0; i < blocks; i++, from += scale + bytes)
	{
		memcpy(to + blocks * bytes + scale * i, from, scale);
		memcpy(to + i * bytes, from + scale, bytes);
	}
}

static void
split_q6_k(const uint8_t *from, size_t blocks, uint8_t *to)
{
	uint8_t *high = to + blocks * 128;
	uint8_t *scales = high + blocks * 64;
	uint8_t *factors = scales + blocks * 16;

	for (size_t i = 0; i < blocks; i++, from += 210)
	{
		memcpy(to + i * 128, from, 128);
		memcpy(high + i * 64, from + 128, 64);
		memcpy(scales + i * 16, from + 192, 16);
		memcpy(factors + i * 2, from + 208, 2);
	}
}

/* One row from the file's layout to the device's (m1k.h). */
static void
convert_row(m1b_dtype type, const uint8_t *from, size_t cols, size_t row_bytes, uint8_t *to)
{
	const size_t bytes = m1b_bytes(type, cols);

	switch (type)
	{
		case M1B_Q8_0:
			split_scales(from, cols / 32, 2, 32, to);
			break;
		case M1B_Q4_0:
			split_scales(from, cols / 32, 2, 16, to);
			break;
		case M1B_Q6_K:
			split_q6_k(from, cols / 256, to);
			break;
		case M1B_F8_E4M3:
			split_scales(from, cols / 128, 4, 128, to);
			break;
		default:
			memcpy(to, from, bytes);
			break;
	}
	memset(to + bytes, 0, row_bytes - bytes);
}

typedef struct rows_job
{
	m1b_dtype type;
	const uint8_t *from;
	size_t stored_bytes; /* of a row, in the file */
	size_t row_bytes;	 /* and on the device */
	size_t cols;
	size_t rows;
	size_t rows_per_piece;
	uint8_t *to;
} rows_job;

static void
convert_piece(void *arg, int piece, int worker)
{
	const rows_job *job = arg;
	size_t row = (size_t) piece * job->rows_per_piece;
	size_t end = row + job->rows_per_piece < job->rows ? row + job->rows_per_piece : job->rows;

	(void) worker;
	for (; row < end; row++)
		convert_row(job->type, job->from + row * job->stored_bytes, job->cols, job->row_bytes,
					job->to + row * job->row_bytes);
}

/* Tells the system which pages of a file will be read, so that the disk does not wait for the threads. */
static void
read_ahead(const void *from, size_t bytes)
{
	const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
	const uintptr_t begin = (uintptr_t) from / page * page;

	madvise((void *) begin, (uintptr_t) from + bytes - begin, MADV_WILLNEED); /* only advice */
}

/* Rows of `cols` weights each; from one to the next it is stored_bytes in the file. */
static void
send_rows(m1b_cuda *c, const void *host, size_t stored_bytes, m1b_dtype type, int rows, int cols, char *to)
{
	rows_job job = {
		.type = type,
		.from = host,
		.stored_bytes = stored_bytes,
		.row_bytes = row_bytes_of(type, cols),
		.cols = (size_t) cols,
	};
	const size_t per_buffer = c->loader->buffer_bytes / job.row_bytes;

	read_ahead(host, stored_bytes * (size_t) (rows - 1) + m1b_bytes(type, (size_t) cols));
	job.rows_per_piece = PIECE_BYTES / job.row_bytes > 0 ? PIECE_BYTES / job.row_bytes : 1;
	for (size_t row = 0; row < (size_t) rows; row += per_buffer)
	{
		job.rows = (size_t) rows - row < per_buffer ? (size_t) rows - row : per_buffer;
		job.from = (const uint8_t *) host + row * job.stored_bytes;
		job.to = (uint8_t *) free_buffer(c);
		m1_pool_run(c->loader->pool, (int) ((job.rows + job.rows_per_piece - 1) / job.rows_per_piece), convert_piece,
					&job);
		send_buffer(c, to + row * job.row_bytes, job.rows * job.row_bytes);
	}
}

/* ---- what the model asks for ---- */

static m1_status
refuse(const m1b_cuda *c, const m1b_stored_matrix *p, m1_error *err)
{
	if (p->split == M1B_WHOLE || c->ranks == 1)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "a weight matrix of %d columns is not supported on CUDA", p->cols);
		m1_error_detail(err, "Rows must be whole blocks of %s, and multiples of 8.", m1b_dtype_name(p->type));
		m1_error_hint(err, "Set {device} to \"cpu\".");
		return M1_E_UNSUPPORTED;
	}
	m1_fail(err, M1_E_UNSUPPORTED, "a weight matrix of %d rows and %d columns cannot be divided among %d GPUs", p->rows,
			p->cols, c->ranks);
	m1_error_detail(err, "It is divided by %s; rows must be whole blocks of %s (%d weights), and multiples of 8.",
					p->split == M1B_SPLIT_ROWS ? "rows" : "columns", m1b_dtype_name(p->type),
					m1b_block_weights(p->type));
	m1_error_hint(err, "Lower {gpus}, or use weights of another type.");
	return M1_E_UNSUPPORTED;
}

m1_status
m1b_cuda_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const bool by_rows = p->split == M1B_SPLIT_ROWS;
	const bool by_cols = p->split == M1B_SPLIT_COLS;
	/* the part of this rank */
	const int rows = by_rows ? p->rows / c->ranks : p->rows;
	const int cols = by_cols ? p->cols / c->ranks : p->cols;
	const size_t stored_bytes = m1b_bytes(p->type, (size_t) p->cols);
	const size_t row_bytes = row_bytes_of(p->type, cols);
	const int block = m1b_block_weights(p->type);
	const uint8_t *from = p->host;
	void *to;

	if (p->cols % block != 0 || cols % block != 0 || cols % 8 != 0 || row_bytes > LARGEST_BUFFER ||
		(by_rows && p->rows % c->ranks != 0) || (by_cols && p->cols % c->ranks != 0))
		return refuse(c, p, err);
	/* a row that is longer than a buffer is more than all weights were planned to be */
	if (row_bytes > c->loader->buffer_bytes || (to = m1b_cuda_take(&c->arena, row_bytes * (size_t) rows)) == NULL)
	{
		m1_fail(err, M1_E_NO_MEMORY, "the weights are larger than was planned");
		m1_error_detail(err, "Planned were %zu bytes; a matrix of %zu bytes is left over.", c->plan.weights,
						row_bytes * (size_t) rows);
		return M1_E_NO_MEMORY;
	}
	if (by_rows)
		from += stored_bytes * (size_t) rows * (size_t) c->rank;
	if (by_cols)
		from += m1b_bytes(p->type, (size_t) cols) * (size_t) c->rank;
	send_rows(c, from, stored_bytes, p->type, rows, cols, to);
	*out = (m1b_matrix){.data = to,
						.type = p->type,
						.use = p->use,
						.split = c->ranks > 1 ? p->split : M1B_WHOLE,
						.rows = rows,
						.cols = cols};
	*borrowed = false;
	return m1b_cuda_status(c, err);
}

float *
m1b_cuda_scratch(m1b_backend *b, size_t n, const float *host)
{
	m1b_cuda *c = m1b_cuda_of(b);
	char *to;

	/* nothing can be loaded once steps run */
	if ((host != NULL && c->loader == NULL) || n > SIZE_MAX / sizeof(float) ||
		(to = m1b_cuda_take(&c->arena, n * sizeof(float))) == NULL)
		return NULL;
	if (host == NULL)
		m1b_cuda_zero(c, to, n * sizeof(float), "clearing memory");
	for (size_t at = 0, bytes; host != NULL && at < n * sizeof(float); at += bytes)
	{
		bytes = n * sizeof(float) - at;
		if (bytes > c->loader->buffer_bytes)
			bytes = c->loader->buffer_bytes;

		memcpy(free_buffer(c), (const char *) host + at, bytes);
		send_buffer(c, to + at, bytes);
	}
	return (float *) (void *) to;
}

m1k_matrix
m1b_cuda_kernel_matrix(const m1b_matrix *m)
{
	return (m1k_matrix){.data = m->data,
						.type = (m1k_type) m->type,
						.rows = m->rows,
						.cols = m->cols,
						.row_bytes = row_bytes_of(m->type, m->cols)};
}
