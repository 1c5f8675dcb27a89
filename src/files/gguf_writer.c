/* gguf_writer.c - see gguf_writer.h. */
#include "files/gguf_writer.h"

#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "files/new_file.h"

#define ALIGNMENT 32 /* the format's default, which needs no key */

struct m1_gguf_writer
{
	m1_new_file file;
	m1_buf keys;
	uint64_t n_keys;
	m1_buf list; /* of tensors */
	uint64_t n_tensors;
	size_t *sizes; /* of the tensors' data */
	size_t cap_sizes;
	uint64_t data_bytes; /* of all tensors, aligned */

	uint64_t current; /* the tensor that the next data belongs to */
	size_t written;	  /* of it */
};

/* ---- the file ---- */

m1_status
m1_gguf_writer_create(const char *path, bool replace, m1_gguf_writer **out, m1_error *err)
{
	m1_gguf_writer *w = calloc(1, sizeof *w);
	m1_status status;

	*out = NULL;
	if (w == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for \"%.150s\"", path);
	if ((status = m1_new_file_create(path, replace, &w->file, err)) != M1_OK)
	{
		m1_gguf_writer_free(w);
		return status;
	}
	*out = w;
	return M1_OK;
}

void
m1_gguf_writer_free(m1_gguf_writer *w)
{
	if (w == NULL)
		return;
	m1_new_file_drop(&w->file);
	m1_buf_free(&w->keys);
	m1_buf_free(&w->list);
	free(w->sizes);
	free(w);
}

/* ---- keys ---- */

static void
put(m1_buf *b, uint64_t n, int bytes)
{
	char little_endian[8];

	for (int i = 0; i < bytes; i++)
		little_endian[i] = (char) (n >> 8 * i & 0xff);
	m1_buf_append(b, little_endian, (size_t) bytes);
}

static void
put_text(m1_buf *b, m1_slice text)
{
	put(b, text.len, 8);
	m1_buf_append(b, text.data, text.len);
}

static void
put_key(m1_gguf_writer *w, const char *key, m1_gguf_type type)
{
	put_text(&w->keys, m1_slice_of(key));
	put(&w->keys, type, 4);
	w->n_keys++;
}

void
m1_gguf_write_text(m1_gguf_writer *w, const char *key, m1_slice text)
{
	put_key(w, key, M1_GGUF_STRING);
	put_text(&w->keys, text);
}

void
m1_gguf_write_u32(m1_gguf_writer *w, const char *key, uint32_t n)
{
	put_key(w, key, M1_GGUF_U32);
	put(&w->keys, n, 4);
}

void
m1_gguf_write_f32(m1_gguf_writer *w, const char *key, float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	put_key(w, key, M1_GGUF_F32);
	put(&w->keys, bits, 4);
}

void
m1_gguf_write_bool(m1_gguf_writer *w, const char *key, bool truth)
{
	put_key(w, key, M1_GGUF_BOOL);
	put(&w->keys, truth, 1);
}

void
m1_gguf_write_array(m1_gguf_writer *w, const char *key, m1_gguf_type type, size_t count)
{
	put_key(w, key, M1_GGUF_ARRAY);
	put(&w->keys, type, 4);
	put(&w->keys, count, 8);
}

void
m1_gguf_write_text_element(m1_gguf_writer *w, m1_slice text)
{
	put_text(&w->keys, text);
}

void
m1_gguf_write_i32_element(m1_gguf_writer *w, int32_t n)
{
	put(&w->keys, (uint32_t) n, 4);
}

void
m1_gguf_write_bool_element(m1_gguf_writer *w, bool truth)
{
	put(&w->keys, truth, 1);
}

/* ---- tensors ---- */

static uint64_t
aligned(uint64_t n)
{
	return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void
m1_gguf_write_tensor(m1_gguf_writer *w, const char *name, m1b_dtype type, const int64_t *shape, int dims)
{
	size_t weights = 1;

	if (w->n_tensors == w->cap_sizes)
	{
		const size_t cap = w->cap_sizes == 0 ? 256 : 2 * w->cap_sizes;
		size_t *grown = realloc(w->sizes, cap * sizeof *grown);

		if (grown == NULL)
		{
			w->list.failed = true;
			return;
		}
		w->sizes = grown;
		w->cap_sizes = cap;
	}
	put_text(&w->list, m1_slice_of(name));
	put(&w->list, (uint64_t) dims, 4);
	for (int i = dims - 1; i >= 0; i--)
	{
		put(&w->list, (uint64_t) shape[i], 8);
		weights *= (size_t) shape[i];
	}
	put(&w->list, m1_gguf_tensor_type(type), 4);
	put(&w->list, w->data_bytes, 8);
	w->sizes[w->n_tensors] = m1b_bytes(type, weights);
	w->data_bytes += aligned(w->sizes[w->n_tensors]);
	w->n_tensors++;
}

m1_status
m1_gguf_writer_begin(m1_gguf_writer *w, m1_error *err)
{
	static const char zeros[ALIGNMENT];
	m1_buf header = {0};
	uint64_t bytes;
	m1_status status;

	m1_buf_append(&header, "GGUF", 4);
	put(&header, 3, 4);
	put(&header, w->n_tensors, 8);
	put(&header, w->n_keys, 8);
	m1_buf_append(&header, w->keys.data, w->keys.len);
	m1_buf_append(&header, w->list.data, w->list.len);
	bytes = aligned(header.len);
	m1_buf_append(&header, zeros, (size_t) bytes - header.len);
	if (header.failed || w->keys.failed || w->list.failed)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the header of \"%.150s\"", w->file.path);
	else if ((status = m1_new_file_reserve(&w->file, bytes + w->data_bytes, err)) == M1_OK)
		status = m1_new_file_write(&w->file, header.data, header.len, err);
	m1_buf_free(&header);
	m1_buf_free(&w->keys);
	m1_buf_free(&w->list);
	return status;
}

m1_status
m1_gguf_writer_data(m1_gguf_writer *w, const void *data, size_t bytes, m1_error *err)
{
	static const char zeros[ALIGNMENT];
	m1_status status;
	size_t size;

	if (w->current == w->n_tensors || bytes > (size = w->sizes[w->current]) - w->written)
		return m1_fail(err, M1_E_INTERNAL, "more data than tensors were announced for \"%.150s\"", w->file.path);
	if ((status = m1_new_file_write(&w->file, data, bytes, err)) != M1_OK)
		return status;
	w->written += bytes;
	if (w->written < size)
		return M1_OK;
	w->written = 0;
	w->current++;
	return m1_new_file_write(&w->file, zeros, (size_t) (aligned(size) - size), err);
}

m1_status
m1_gguf_writer_finish(m1_gguf_writer *w, m1_error *err)
{
	if (w->current != w->n_tensors)
		return m1_fail(err, M1_E_INTERNAL, "tensors without data in \"%.150s\"", w->file.path);
	return m1_new_file_finish(&w->file, err);
}
