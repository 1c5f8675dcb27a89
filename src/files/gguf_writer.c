/* gguf_writer.c - see gguf_writer.h. */
#define _GNU_SOURCE /* fallocate, O_CLOEXEC, PATH_MAX */
#include "files/gguf_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocks/blocks.h"

#define ALIGNMENT 32 /* the format's default, which needs no key */

struct m1_gguf_writer
{
	char path[PATH_MAX];
	char temporary[PATH_MAX]; /* "": there is none */
	bool replace;
	int fd;
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

static m1_status
refuse_existing(const m1_gguf_writer *w, m1_error *err)
{
	struct stat st;

	if (stat(w->path, &st) != 0)
		return M1_OK;
	if (!S_ISREG(st.st_mode))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" exists and is not a file", w->path);
	if (w->replace)
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" exists already", w->path);
	m1_error_hint(err, "Use {force} to replace it.");
	return M1_E_INVALID_ARGUMENT;
}

m1_status
m1_gguf_writer_create(const char *path, bool replace, m1_gguf_writer **out, m1_error *err)
{
	m1_gguf_writer *w = calloc(1, sizeof *w);
	m1_status status;

	*out = NULL;
	if (w == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for \"%.150s\"", path);
	w->fd = -1;
	w->replace = replace;
	if (snprintf(w->path, sizeof w->path, "%s", path) >= (int) sizeof w->path ||
		snprintf(w->temporary, sizeof w->temporary, "%s.%d.tmp", path, (int) getpid()) >= (int) sizeof w->temporary)
	{
		free(w);
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the file to write is too long");
	}
	if ((status = refuse_existing(w, err)) == M1_OK &&
		(w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0)
		status = m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", w->temporary, strerror(errno));
	if (status != M1_OK)
	{
		w->temporary[0] = '\0';
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
	if (w->fd >= 0)
		close(w->fd);
	if (w->temporary[0] != '\0')
		unlink(w->temporary);
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

static m1_status
write_all(m1_gguf_writer *w, const void *data, size_t bytes, m1_error *err)
{
	const char *at = data;

	while (bytes > 0)
	{
		const ssize_t n = write(w->fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return m1_fail(err, M1_E_IO, "could not write \"%.150s\": %s", w->temporary, strerror(errno));
		at += n;
		bytes -= (size_t) n;
	}
	return M1_OK;
}

/* Better now than after an hour. A file system that cannot do this tells of a full disk later. */
static m1_status
take_room(m1_gguf_writer *w, uint64_t bytes, m1_error *err)
{
	if (fallocate(w->fd, 0, 0, (off_t) bytes) == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG))
		return M1_OK;
	m1_fail(err, M1_E_IO, "no room for \"%.150s\": %s", w->path, strerror(errno));
	m1_error_detail(err, "The file will have %llu bytes.", (unsigned long long) bytes);
	return M1_E_IO;
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
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the header of \"%.150s\"", w->path);
	else if ((status = take_room(w, bytes + w->data_bytes, err)) == M1_OK)
		status = write_all(w, header.data, header.len, err);
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
		return m1_fail(err, M1_E_INTERNAL, "more data than tensors were announced for \"%.150s\"", w->path);
	if ((status = write_all(w, data, bytes, err)) != M1_OK)
		return status;
	w->written += bytes;
	if (w->written < size)
		return M1_OK;
	w->written = 0;
	w->current++;
	return write_all(w, zeros, (size_t) (aligned(size) - size), err);
}

/* The new name is durable when its folder is. */
static m1_status
sync_folder(const m1_gguf_writer *w, m1_error *err)
{
	char dir[PATH_MAX];
	char *slash;
	m1_status status = M1_OK;
	int fd;

	snprintf(dir, sizeof dir, "%s", w->path);
	slash = strrchr(dir, '/');
	if (slash == NULL)
		snprintf(dir, sizeof dir, ".");
	else
		slash[slash == dir] = '\0';
	if ((fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || (fsync(fd) != 0 && errno != EINVAL))
		status = m1_fail(err, M1_E_IO, "could not make \"%.150s\" durable: %s", w->path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return status;
}

m1_status
m1_gguf_writer_finish(m1_gguf_writer *w, m1_error *err)
{
	m1_status status;
	int closed;

	if (w->current != w->n_tensors)
		return m1_fail(err, M1_E_INTERNAL, "tensors without data in \"%.150s\"", w->path);
	if ((status = refuse_existing(w, err)) != M1_OK)
		return status;
	closed = fsync(w->fd) == 0 ? 0 : -1;
	closed = close(w->fd) == 0 ? closed : -1;
	w->fd = -1;
	if (closed != 0)
		return m1_fail(err, M1_E_IO, "could not write \"%.150s\": %s", w->temporary, strerror(errno));
	if (rename(w->temporary, w->path) != 0)
		return m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", w->path, strerror(errno));
	w->temporary[0] = '\0';
	return sync_folder(w, err);
}
