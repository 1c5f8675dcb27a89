/* safetensors_writer.c - see safetensors_writer.h. */
#include "files/safetensors_writer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "files/new_file.h"

#define ALIGNMENT 64	   /* of the data's beginning: a cache line */
#define CHUNK_FLOATS 16384 /* converted at a time */

/* What the data will be. */
typedef struct part
{
	m1b_dtype type;
	size_t bytes;
} part;

struct m1_safetensors_writer
{
	m1_new_file file;
	json_t *header;	   /* NULL once it is written */
	m1_status failure; /* of what cannot fail at once */
	part *parts;
	size_t n_parts;
	size_t cap_parts;
	uint64_t data_bytes; /* of all tensors */

	size_t current; /* the tensor that the next data belongs to */
	size_t written; /* bytes of it */
};

m1_status
m1_safetensors_writer_create(const char *path, bool replace, m1_safetensors_writer **out, m1_error *err)
{
	m1_safetensors_writer *w = calloc(1, sizeof *w);
	m1_status status;

	*out = NULL;
	if (w == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for \"%.150s\"", path);
	if ((w->header = json_object()) == NULL)
		w->failure = M1_E_NO_MEMORY;
	if ((status = m1_new_file_create(path, replace, &w->file, err)) != M1_OK)
	{
		m1_safetensors_writer_free(w);
		return status;
	}
	*out = w;
	return M1_OK;
}

void
m1_safetensors_writer_free(m1_safetensors_writer *w)
{
	if (w == NULL)
		return;
	m1_new_file_drop(&w->file);
	json_decref(w->header);
	free(w->parts);
	free(w);
}

/* ---- the header ---- */

void
m1_safetensors_write_metadata(m1_safetensors_writer *w, const char *key, const char *text)
{
	json_t *metadata = json_object_get(w->header, "__metadata__");

	if (metadata == NULL)
		json_object_set_new(w->header, "__metadata__", metadata = json_object());
	if (json_object_set_new(metadata, key, json_string(text)) != 0)
		w->failure = M1_E_NO_MEMORY;
}

static const char *
type_name(m1b_dtype type)
{
	return type == M1B_F32 || type == M1B_F16 || type == M1B_BF16 ? m1b_dtype_name(type) : NULL;
}

static bool
add_part(m1_safetensors_writer *w, part p)
{
	if (w->n_parts == w->cap_parts)
	{
		const size_t cap = w->cap_parts == 0 ? 256 : 2 * w->cap_parts;
		part *grown = realloc(w->parts, cap * sizeof *grown);

		if (grown == NULL)
			return false;
		w->parts = grown;
		w->cap_parts = cap;
	}
	w->parts[w->n_parts++] = p;
	return true;
}

void
m1_safetensors_write_tensor(m1_safetensors_writer *w, const char *name, m1b_dtype type, const int64_t *shape, int dims)
{
	const json_int_t begin = (json_int_t) w->data_bytes;
	json_t *list = json_array();
	json_t *entry;
	size_t n = 1;

	for (int i = 0; i < dims; i++)
	{
		n *= (size_t) shape[i];
		json_array_append_new(list, json_integer(shape[i]));
	}
	n = m1b_bytes(type, n);
	entry = json_pack("{s:s?, s:o, s:[I, I]}", "dtype", type_name(type), "shape", list, "data_offsets", begin,
					  begin + (json_int_t) n);
	if (type_name(type) == NULL || json_object_get(w->header, name) != NULL)
		w->failure = M1_E_INTERNAL; /* a second entry of a name would hide the first one's data */
	if (json_object_set_new(w->header, name, entry) != 0 || !add_part(w, (part){type, n}))
		w->failure = M1_E_NO_MEMORY;
	w->data_bytes += n;
}

/* Tensors without numbers have no data to wait for. */
static void
skip_empty(m1_safetensors_writer *w)
{
	while (w->current < w->n_parts && w->written == w->parts[w->current].bytes)
	{
		w->current++;
		w->written = 0;
	}
}

/* Blanks behind the text make the data begin where memory is aligned. */
static m1_status
write_header(m1_safetensors_writer *w, const char *text, size_t len, m1_error *err)
{
	const uint64_t padded = (8 + len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - 8;
	char length[8];
	char blanks[ALIGNMENT];
	m1_status status;

	for (int i = 0; i < 8; i++)
		length[i] = (char) (padded >> 8 * i & 0xff);
	memset(blanks, ' ', sizeof blanks);
	if ((status = m1_new_file_reserve(&w->file, 8 + padded + w->data_bytes, err)) != M1_OK ||
		(status = m1_new_file_write(&w->file, length, sizeof length, err)) != M1_OK ||
		(status = m1_new_file_write(&w->file, text, len, err)) != M1_OK)
		return status;
	return m1_new_file_write(&w->file, blanks, (size_t) (padded - len), err);
}

m1_status
m1_safetensors_writer_begin(m1_safetensors_writer *w, m1_error *err)
{
	char *text;
	m1_status status;

	if (w->failure == M1_E_INTERNAL)
		return m1_fail(err, M1_E_INTERNAL, "a tensor twice, or of no type for \"%.150s\"", w->file.path);
	text = w->failure == M1_OK ? json_dumps(w->header, JSON_COMPACT) : NULL;
	if (text == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the header of \"%.150s\"", w->file.path);
	status = write_header(w, text, strlen(text), err);
	free(text);
	json_decref(w->header);
	w->header = NULL;
	skip_empty(w);
	return status;
}

/* ---- the data ---- */

m1_status
m1_safetensors_writer_data(m1_safetensors_writer *w, const void *data, size_t bytes, m1_error *err)
{
	m1_status status;

	if (bytes == 0)
		return M1_OK;
	if (w->current == w->n_parts || bytes > w->parts[w->current].bytes - w->written)
		return m1_fail(err, M1_E_INTERNAL, "more data than tensors were announced for \"%.150s\"", w->file.path);
	if ((status = m1_new_file_write(&w->file, data, bytes, err)) != M1_OK)
		return status;
	w->written += bytes;
	skip_empty(w);
	return M1_OK;
}

m1_status
m1_safetensors_writer_floats(m1_safetensors_writer *w, const float *from, size_t n, m1_error *err)
{
	const m1b_dtype type = w->current < w->n_parts ? w->parts[w->current].type : M1B_F32;
	uint16_t chunk[CHUNK_FLOATS];
	m1_status status = M1_OK;

	if (type == M1B_F32)
		return m1_safetensors_writer_data(w, from, n * sizeof *from, err);
	for (size_t at = 0, some; status == M1_OK && at < n; at += some)
	{
		some = n - at < CHUNK_FLOATS ? n - at : CHUNK_FLOATS;
		for (size_t i = 0; i < some; i++)
			chunk[i] = type == M1B_BF16 ? m1b_float_to_bf16(from[at + i]) : m1b_float_to_half(from[at + i]);
		status = m1_safetensors_writer_data(w, chunk, some * sizeof *chunk, err);
	}
	return status;
}

m1_status
m1_safetensors_writer_finish(m1_safetensors_writer *w, m1_error *err)
{
	if (w->current != w->n_parts)
		return m1_fail(err, M1_E_INTERNAL, "tensors without data in \"%.150s\"", w->file.path);
	return m1_new_file_finish(&w->file, err);
}
