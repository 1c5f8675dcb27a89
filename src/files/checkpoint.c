/* checkpoint.c - see checkpoint.h. */
#define _GNU_SOURCE /* strdup */
#include "files/checkpoint.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "files/jsonfile.h"
#include "files/mapped.h"

#define INDEX_FILE "model.safetensors.index.json"
#define SINGLE_FILE "model.safetensors"
#define MAX_HEADER ((uint64_t) 100 << 20) /* bytes of a header; the format's own limit */

typedef struct shard
{
	char *name;
	json_t *header; /* owns the tensors' names */
	m1_mapped file;
} shard;

struct m1_checkpoint
{
	shard *shards;
	size_t n_shards;
	m1_tensor *tensors; /* sorted by name */
	size_t n_tensors;
	size_t cap_tensors;
	m1_naming naming;
};

/* ---- one tensor entry of a header ---- */

/* Bytes of an element of that type, 0 when there is no such type; says in t whether weights may have it. */
static size_t
element_size(m1_tensor *t)
{
	static const struct
	{
		const char *name;
		size_t size;
		bool usable;
		m1b_dtype type;
	} types[] = {
		{"F32", 4, true, M1B_F32},	 {"F16", 2, true, M1B_F16},		 {"BF16", 2, true, M1B_BF16},
		{.name = "F64", .size = 8},	 {.name = "I64", .size = 8},	 {.name = "I32", .size = 4},
		{.name = "I16", .size = 2},	 {.name = "I8", .size = 1},		 {.name = "U64", .size = 8},
		{.name = "U32", .size = 4},	 {.name = "U16", .size = 2},	 {.name = "U8", .size = 1},
		{.name = "BOOL", .size = 1}, {.name = "F8_E5M2", .size = 1}, {"F8_E4M3", 1, true, M1B_F8_E4M3},
	};

	for (size_t i = 0; t->type_name != NULL && i < sizeof types / sizeof *types; i++)
		if (strcmp(types[i].name, t->type_name) == 0)
		{
			t->usable = types[i].usable;
			t->type = types[i].type;
			return types[i].size;
		}
	return 0;
}

static m1_status
bad_tensor(m1_error *err, const char *file, const char *tensor, const char *why)
{
	return m1_fail(err, M1_E_CORRUPT, "%s: tensor \"%.120s\" %s", file, tensor, why);
}

/* Fills shape and *elements. */
static m1_status
read_shape(const json_t *shape, m1_tensor *t, uint64_t *elements, m1_error *err)
{
	if (!json_is_array(shape) || json_array_size(shape) > M1_MAX_DIMS)
		return bad_tensor(err, t->file, t->name, "has no shape of at most 8 dimensions");
	*elements = 1;
	t->dims = (int) json_array_size(shape);
	for (int i = 0; i < t->dims; i++)
	{
		const json_t *dim = json_array_get(shape, (size_t) i);
		json_int_t n = json_integer_value(dim);

		if (!json_is_integer(dim) || n < 0 || __builtin_mul_overflow(*elements, (uint64_t) n, elements))
			return bad_tensor(err, t->file, t->name, "has an impossible shape");
		t->shape[i] = n;
	}
	return M1_OK;
}

static m1_status
read_tensor(const char *file, const char *name, const json_t *entry, const char *data, size_t data_size, m1_tensor *t,
			m1_error *err)
{
	const json_t *offsets = json_object_get(entry, "data_offsets");
	const json_t *begin = json_array_get(offsets, 0);
	const json_t *end = json_array_get(offsets, 1);
	uint64_t elements = 0;
	uint64_t bytes;
	size_t unit;
	m1_status status;

	*t = (m1_tensor){.name = name, .file = file};
	t->type_name = json_string_value(json_object_get(entry, "dtype"));
	if ((unit = element_size(t)) == 0)
		return bad_tensor(err, file, name, "has an unknown dtype");
	if ((status = read_shape(json_object_get(entry, "shape"), t, &elements, err)) != M1_OK)
		return status;
	if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end) ||
		json_integer_value(begin) < 0 || json_integer_value(end) < json_integer_value(begin))
		return bad_tensor(err, file, name, "has malformed data_offsets");
	if ((uint64_t) json_integer_value(end) > data_size)
	{
		bad_tensor(err, file, name, "lies beyond the end of the file");
		m1_error_detail(err, "It ends at byte %lld of the data; the file holds %zu. The file may be truncated.",
						(long long) json_integer_value(end), data_size);
		return M1_E_CORRUPT;
	}
	t->bytes = (size_t) (json_integer_value(end) - json_integer_value(begin));
	if (__builtin_mul_overflow(elements, unit, &bytes) || bytes != t->bytes)
		return bad_tensor(err, file, name, "has data_offsets that do not match its shape");
	t->data = data + json_integer_value(begin);
	return M1_OK;
}

/* ---- one file ---- */

static m1_status
parse_header(shard *s, const char **data, size_t *data_size, m1_error *err)
{
	const m1_mapped *f = &s->file;
	uint64_t length = 0;
	json_error_t why;

	if (f->size < 8)
		return m1_fail(err, M1_E_CORRUPT, "%s is too short to be a safetensors file", s->name);
	for (int i = 7; i >= 0; i--)
		length = length << 8 | f->data[i];
	if (length < 2 || length > MAX_HEADER || length > f->size - 8)
	{
		m1_fail(err, M1_E_CORRUPT, "%s: absurd header length %llu", s->name, (unsigned long long) length);
		m1_error_detail(err, "The file has %zu bytes; it may be truncated or not a safetensors file.", f->size);
		return M1_E_CORRUPT;
	}
	if (m1_json_refuse_nul(f->data + 8, (size_t) length, s->name, err) != M1_OK)
		return M1_E_CORRUPT;
	s->header = json_loadb((const char *) f->data + 8, (size_t) length, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(s->header))
	{
		m1_fail(err, M1_E_CORRUPT, "%s: the header is not a JSON object", s->name);
		m1_error_detail(err, "At byte %d: %s.", why.position, why.text);
		return M1_E_CORRUPT;
	}
	*data = (const char *) f->data + 8 + length;
	*data_size = f->size - 8 - (size_t) length;
	return M1_OK;
}

static int
by_place(const void *a, const void *b)
{
	const m1_tensor *x = a;
	const m1_tensor *y = b;

	if (x->data != y->data)
		return x->data < y->data ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static m1_status
refuse_overlaps(m1_tensor *tensors, size_t n, m1_error *err)
{
	m1_sort(tensors, n, sizeof *tensors, by_place);
	for (size_t i = 1; i < n; i++)
		if ((const char *) tensors[i - 1].data + tensors[i - 1].bytes > (const char *) tensors[i].data)
		{
			bad_tensor(err, tensors[i].file, tensors[i].name, "overlaps another tensor");
			m1_error_detail(err, "The other is \"%.120s\".", tensors[i - 1].name);
			return M1_E_CORRUPT;
		}
	return M1_OK;
}

static m1_status
grow_tensors(m1_checkpoint *c, size_t extra, m1_error *err)
{
	m1_tensor *grown;

	if (c->n_tensors + extra <= c->cap_tensors)
		return M1_OK;
	grown = realloc(c->tensors, (c->n_tensors + extra) * sizeof *grown);
	if (grown == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of tensors");
	c->tensors = grown;
	c->cap_tensors = c->n_tensors + extra;
	return M1_OK;
}

static m1_status
open_shard(m1_checkpoint *c, const char *dir, const char *name, m1_error *err)
{
	shard *s = &c->shards[c->n_shards++];
	size_t first = c->n_tensors;
	const char *data;
	size_t data_size;
	const char *key;
	json_t *entry;
	m1_status status;

	if ((s->name = strdup(name)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of files");
	if ((status = m1_mapped_open(dir, s->name, &s->file, err)) != M1_OK ||
		(status = parse_header(s, &data, &data_size, err)) != M1_OK ||
		(status = grow_tensors(c, json_object_size(s->header), err)) != M1_OK)
		return status;
	json_object_foreach (s->header, key, entry)
	{
		m1_tensor *t = &c->tensors[c->n_tensors];

		if (strcmp(key, "__metadata__") == 0)
			continue;
		if ((status = read_tensor(s->name, key, entry, data, data_size, t, err)) != M1_OK)
			return status;
		c->n_tensors++;
	}
	return c->n_tensors == first ? M1_OK : refuse_overlaps(c->tensors + first, c->n_tensors - first, err);
}

/* ---- the folder ---- */

/* A shard's name comes from a file: it must stay inside the folder. */
static bool
plain_file_name(const char *name)
{
	return name != NULL && name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static m1_status
open_indexed(m1_checkpoint *c, const char *dir, const json_t *weight_map, m1_error *err)
{
	json_t *seen = json_object();
	const char *tensor;
	json_t *file;
	m1_status status = M1_OK;

	c->shards = calloc(json_object_size(weight_map) + 1, sizeof *c->shards);
	if (c->shards == NULL || seen == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of files");
	if (status == M1_OK && json_object_size(weight_map) == 0)
		status = m1_fail(err, M1_E_CORRUPT, INDEX_FILE ": weight_map is missing or empty");
	if (status == M1_OK)
		json_object_foreach ((json_t *) weight_map, tensor, file)
		{
			const char *name = json_string_value(file);

			if (!plain_file_name(name))
			{
				status = m1_fail(err, M1_E_CORRUPT, INDEX_FILE ": no plain file name for tensor \"%.120s\"", tensor);
				break;
			}
			if (json_object_get(seen, name) != NULL)
				continue;
			json_object_set_new(seen, name, json_true());
			if ((status = open_shard(c, dir, name, err)) != M1_OK)
				break;
		}
	json_decref(seen);
	return status;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const m1_tensor *) a)->name, ((const m1_tensor *) b)->name);
}

/* Sorts the tensors for look-up; the same name in two files is ambiguous. */
static m1_status
index_tensors(m1_checkpoint *c, m1_error *err)
{
	if (c->n_tensors > 0)
		m1_sort(c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
	for (size_t i = 1; i < c->n_tensors; i++)
		if (by_name(&c->tensors[i - 1], &c->tensors[i]) == 0)
			return bad_tensor(err, c->tensors[i].file, c->tensors[i].name, "is in two files");
	return M1_OK;
}

/* Every tensor that the index promises must be in the file it names. */
static m1_status
check_promises(const m1_checkpoint *c, const json_t *weight_map, m1_error *err)
{
	const char *name;
	json_t *file;

	json_object_foreach ((json_t *) weight_map, name, file)
	{
		const m1_tensor *t = m1_checkpoint_find(c, name);

		if (t == NULL || strcmp(t->file, json_string_value(file)) != 0)
			return bad_tensor(err, json_string_value(file), name, "is promised by the index but not in the file");
	}
	return M1_OK;
}

static m1_status
finish_open(m1_checkpoint *c, m1_status status, m1_checkpoint **out, m1_error *err)
{
	if (status == M1_OK)
		status = index_tensors(c, err);
	if (status != M1_OK)
	{
		m1_checkpoint_close(c);
		return status;
	}
	*out = c;
	return M1_OK;
}

m1_status
m1_checkpoint_open_file(const char *dir, const char *name, m1_checkpoint **out, m1_error *err)
{
	m1_checkpoint *c = calloc(1, sizeof *c);

	*out = NULL;
	if (c == NULL || (c->shards = calloc(1, sizeof *c->shards)) == NULL)
	{
		free(c);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of files");
	}
	return finish_open(c, open_shard(c, dir, name, err), out, err);
}

m1_status
m1_checkpoint_open(const char *dir, m1_checkpoint **out, m1_error *err)
{
	m1_checkpoint *c;
	json_t *index;
	const json_t *weight_map;
	m1_status status;

	*out = NULL;
	status = m1_json_load_object(dir, INDEX_FILE, &index, err);
	if (status == M1_E_NOT_FOUND)
		return m1_checkpoint_open_file(dir, SINGLE_FILE, out, err);
	if (status != M1_OK)
		return status;
	weight_map = json_object_get(index, "weight_map");
	if ((c = calloc(1, sizeof *c)) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of files");
	else
		status = finish_open(c, open_indexed(c, dir, weight_map, err), &c, err);
	if (status == M1_OK && (status = check_promises(c, weight_map, err)) != M1_OK)
		m1_checkpoint_close(c);
	json_decref(index);
	if (status == M1_OK)
		*out = c;
	return status;
}

m1_status
m1_checkpoint_promised(const char *dir, uint64_t *bytes, m1_error *err)
{
	json_t *index;
	const m1_status status = m1_json_load_object(dir, INDEX_FILE, &index, err);
	json_int_t n;

	*bytes = 0;
	if (status != M1_OK)
		return status == M1_E_NOT_FOUND ? M1_OK : status;
	n = json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size"));
	*bytes = n > 0 ? (uint64_t) n : 0;
	json_decref(index);
	return M1_OK;
}

m1_status
m1_checkpoint_open_gguf(const m1_gguf *gguf, m1_checkpoint **out, m1_error *err)
{
	m1_checkpoint *c = calloc(1, sizeof *c);
	const m1_tensor *tensors;
	const size_t n = m1_gguf_tensors(gguf, &tensors);
	m1_status status;

	*out = NULL;
	if (c == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of tensors");
	c->naming = M1_NAMES_GGUF;
	status = grow_tensors(c, n, err);
	for (size_t i = 0; status == M1_OK && i < n; i++)
		c->tensors[c->n_tensors++] = tensors[i];
	return finish_open(c, status, out, err);
}

void
m1_checkpoint_close(m1_checkpoint *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->n_shards; i++)
	{
		shard *s = &c->shards[i];

		m1_mapped_close(&s->file);
		json_decref(s->header);
		free(s->name);
	}
	free(c->shards);
	free(c->tensors);
	free(c);
}

const m1_tensor *
m1_checkpoint_find(const m1_checkpoint *c, const char *name)
{
	m1_tensor key = {.name = name};

	if (c->n_tensors == 0)
		return NULL;
	return bsearch(&key, c->tensors, c->n_tensors, sizeof *c->tensors, by_name);
}

m1_naming
m1_checkpoint_naming(const m1_checkpoint *c)
{
	return c->naming;
}

const char *
m1_checkpoint_metadata(const m1_checkpoint *c, const char *key)
{
	return c->n_shards == 0
			   ? NULL
			   : json_string_value(json_object_get(json_object_get(c->shards[0].header, "__metadata__"), key));
}

size_t
m1_checkpoint_tensors(const m1_checkpoint *c)
{
	return c->n_tensors;
}

const m1_tensor *
m1_checkpoint_tensor(const m1_checkpoint *c, size_t i)
{
	return &c->tensors[i];
}
