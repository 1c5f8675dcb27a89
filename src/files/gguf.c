/* gguf.c - see gguf.h. */
#define _GNU_SOURCE /* strndup */
#include "files/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "base/utf8.h"
#include "blocks/blocks.h"
#include "files/mapped.h"

#define MAX_KEYS 65536
#define MAX_TENSORS ((uint64_t) 1 << 20)
#define MAX_KEY_BYTES 65535 /* the format's own limits */
#define MAX_NAME_BYTES 64
#define MAX_ALIGNMENT ((uint64_t) 1 << 20)
#define MAX_FILE_DIMS 4
#define MIN_KEY_BYTES 14	/* length, one letter, type, one byte */
#define MIN_TENSOR_BYTES 33 /* length, one letter, dimensions, one size, type, offset */

struct m1_gguf
{
	char *name;
	m1_mapped file;
	m1_gguf_value *keys; /* sorted by key */
	size_t n_keys;
	m1_tensor *tensors; /* sorted by place */
	size_t n_tensors;
	uint64_t alignment;
};

/* ---- reading the header ---- */

/* Takes the header apart from front to back. The first failure is kept; after it, everything read is zero or empty. */
typedef struct reader
{
	const char *file;
	const unsigned char *data;
	size_t size;
	size_t at;
	const char *subject; /* what is being read, for errors */
	char next[160];		 /* the subject while its name is not known */
	m1_status status;
	m1_error *err;
} reader;

static void
refuse(reader *r, m1_status code, const char *why)
{
	if (r->status == M1_OK)
		r->status = m1_fail(r->err, code, "%s: %s %s", r->file, r->subject, why);
}

/* The next n bytes, or NULL when the file ends before. */
static const unsigned char *
take(reader *r, uint64_t n)
{
	const unsigned char *bytes = r->data + r->at;

	if (r->status != M1_OK)
		return NULL;
	if (n > r->size - r->at)
	{
		refuse(r, M1_E_CORRUPT, "goes beyond the end of the file");
		m1_error_detail(r->err, "It needs %llu bytes from byte %zu on; the file has %zu. It may be truncated.",
						(unsigned long long) n, r->at, r->size);
		return NULL;
	}
	r->at += (size_t) n;
	return bytes;
}

static uint64_t
little_endian(const unsigned char *bytes, int n)
{
	uint64_t x = 0;

	while (n-- > 0)
		x = x << 8 | bytes[n];
	return x;
}

static uint32_t
take_u32(reader *r)
{
	const unsigned char *bytes = take(r, 4);

	return bytes != NULL ? (uint32_t) little_endian(bytes, 4) : 0;
}

static uint64_t
take_u64(reader *r)
{
	const unsigned char *bytes = take(r, 8);

	return bytes != NULL ? little_endian(bytes, 8) : 0;
}

static m1_slice
take_text(reader *r)
{
	uint64_t len = take_u64(r);
	const unsigned char *bytes = take(r, len);

	return bytes != NULL ? (m1_slice){(const char *) bytes, (size_t) len} : (m1_slice){NULL, 0};
}

/* The next subject comes after the one of that name, or is the first. */
static void
expect_after(reader *r, const char *kind, const char *name)
{
	if (name == NULL)
		snprintf(r->next, sizeof r->next, "the first %s", kind);
	else
		snprintf(r->next, sizeof r->next, "the %s after \"%.100s\"", kind, name);
	r->subject = r->next;
}

static void
now_reading(reader *r, const char *kind, const char *name)
{
	snprintf(r->next, sizeof r->next, "%s \"%.100s\"", kind, name);
	r->subject = r->next;
}

/* A copy of a name of 1 to most bytes, printable in an error; NULL after a failure. */
static char *
take_name(reader *r, size_t most)
{
	m1_slice text = take_text(r);
	char *copy;

	if (r->status != M1_OK)
		return NULL;
	if (text.len == 0 || text.len > most || memchr(text.data, '\0', text.len) != NULL || !m1_utf8_valid(text))
	{
		refuse(r, M1_E_CORRUPT, "has an impossible name");
		m1_error_detail(r->err, "It has %zu bytes; names have 1 to %zu, and are UTF-8 text.", text.len, most);
		return NULL;
	}
	if ((copy = strndup(text.data, text.len)) == NULL)
		refuse(r, M1_E_NO_MEMORY, "finds no memory");
	return copy;
}

/* Bytes of one element; 0 for types without a fixed size. */
static size_t
element_size(m1_gguf_type type)
{
	static const unsigned char sizes[M1_GGUF_TYPES] = {
		[M1_GGUF_U8] = 1,  [M1_GGUF_I8] = 1,  [M1_GGUF_U16] = 2, [M1_GGUF_I16] = 2,
		[M1_GGUF_U32] = 4, [M1_GGUF_I32] = 4, [M1_GGUF_F32] = 4, [M1_GGUF_BOOL] = 1,
		[M1_GGUF_U64] = 8, [M1_GGUF_I64] = 8, [M1_GGUF_F64] = 8,
	};

	return sizes[type];
}

/* ---- keys ---- */

static m1_gguf_type
take_type(reader *r)
{
	uint32_t type = take_u32(r);

	if (type >= M1_GGUF_TYPES)
	{
		refuse(r, M1_E_CORRUPT, "has an unknown type of value");
		m1_error_detail(r->err, "The type is %u.", type);
		return M1_GGUF_U8;
	}
	return (m1_gguf_type) type;
}

static void
read_value(reader *r, m1_gguf_value *v)
{
	uint64_t count = 1;
	uint64_t bytes = 0;

	v->type = take_type(r);
	if (v->type == M1_GGUF_ARRAY)
	{
		v->is_array = true;
		v->type = take_type(r);
		count = take_u64(r);
	}
	if (v->type == M1_GGUF_ARRAY)
		refuse(r, M1_E_UNSUPPORTED, "is an array of arrays");
	v->data = r->data + r->at;
	if (v->type == M1_GGUF_STRING)
		for (uint64_t i = 0; i < count && r->status == M1_OK; i++)
			take_text(r);
	else if (__builtin_mul_overflow(count, (uint64_t) element_size(v->type), &bytes))
		refuse(r, M1_E_CORRUPT, "has an absurd number of elements");
	else
		take(r, bytes);
	v->count = (size_t) count;
}

static int
by_key(const void *a, const void *b)
{
	return strcmp(((const m1_gguf_value *) a)->key, ((const m1_gguf_value *) b)->key);
}

static void
read_keys(reader *r, m1_gguf *g, uint64_t n)
{
	if ((g->keys = calloc((size_t) n + 1, sizeof *g->keys)) == NULL)
		refuse(r, M1_E_NO_MEMORY, "finds no memory for the keys");
	while (r->status == M1_OK && g->n_keys < n)
	{
		m1_gguf_value *v = &g->keys[g->n_keys];

		expect_after(r, "key", g->n_keys == 0 ? NULL : v[-1].key);
		if ((v->key = take_name(r, MAX_KEY_BYTES)) == NULL)
			break;
		g->n_keys++;
		now_reading(r, "key", v->key);
		read_value(r, v);
	}
	if (r->status != M1_OK)
		return;
	m1_sort(g->keys, g->n_keys, sizeof *g->keys, by_key);
	for (size_t i = 1; i < g->n_keys; i++)
		if (strcmp(g->keys[i - 1].key, g->keys[i].key) == 0)
		{
			now_reading(r, "key", g->keys[i].key);
			refuse(r, M1_E_CORRUPT, "is there twice");
		}
}

static void
read_alignment(reader *r, m1_gguf *g)
{
	const m1_gguf_value *v = m1_gguf_find(g, "general.alignment");
	int64_t n = 32;

	now_reading(r, "key", "general.alignment");
	if (v != NULL && (v->is_array || !m1_gguf_integer(v, 0, &n)))
		n = 0;
	if (n < 8 || n > (int64_t) MAX_ALIGNMENT || (n & (n - 1)) != 0)
		refuse(r, M1_E_CORRUPT, "must be a power of two, 8 at least");
	g->alignment = (uint64_t) n;
}

/* ---- tensors ---- */

typedef struct tensor_type
{
	const char *name;
	bool usable;
	m1b_dtype type;
} tensor_type;

/* Every type that the format has had, so that what is not supported is refused by its name. */
static const tensor_type tensor_types[] = {
	[0] = {"F32", true, M1B_F32},	 [1] = {"F16", true, M1B_F16},	  [2] = {"Q4_0", true, M1B_Q4_0},
	[3] = {.name = "Q4_1"},			 [6] = {.name = "Q5_0"},		  [7] = {.name = "Q5_1"},
	[8] = {"Q8_0", true, M1B_Q8_0},	 [9] = {.name = "Q8_1"},		  [10] = {.name = "Q2_K"},
	[11] = {.name = "Q3_K"},		 [12] = {"Q4_K", true, M1B_Q4_K}, [13] = {"Q5_K", true, M1B_Q5_K},
	[14] = {"Q6_K", true, M1B_Q6_K}, [15] = {.name = "Q8_K"},		  [16] = {.name = "IQ2_XXS"},
	[17] = {.name = "IQ2_XS"},		 [18] = {.name = "IQ3_XXS"},	  [19] = {.name = "IQ1_S"},
	[20] = {.name = "IQ4_NL"},		 [21] = {.name = "IQ3_S"},		  [22] = {.name = "IQ2_S"},
	[23] = {.name = "IQ4_XS"},		 [24] = {.name = "I8"},			  [25] = {.name = "I16"},
	[26] = {.name = "I32"},			 [27] = {.name = "I64"},		  [28] = {.name = "F64"},
	[29] = {.name = "IQ1_M"},		 [30] = {"BF16", true, M1B_BF16}, [34] = {.name = "TQ1_0"},
	[35] = {.name = "TQ2_0"},		 [39] = {.name = "MXFP4"},
};
#define N_TENSOR_TYPES (sizeof tensor_types / sizeof *tensor_types)

uint32_t
m1_gguf_tensor_type(m1b_dtype type)
{
	uint32_t number = 0;

	while (!tensor_types[number].usable || tensor_types[number].type != type)
		number++;
	return number;
}

static void
read_tensor_type(reader *r, m1_tensor *t)
{
	uint32_t number = take_u32(r);

	if (r->status != M1_OK)
		return;
	if (number >= N_TENSOR_TYPES || tensor_types[number].name == NULL)
	{
		refuse(r, M1_E_UNSUPPORTED, "has an unknown type");
		m1_error_detail(r->err, "It is number %u, which this version does not know.", number);
	}
	else if (!tensor_types[number].usable)
	{
		refuse(r, M1_E_UNSUPPORTED, "has a type that is not supported");
		m1_error_detail(r->err, "It is %s; supported are F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K.",
						tensor_types[number].name);
	}
	else
	{
		t->usable = true;
		t->type = tensor_types[number].type;
		t->type_name = tensor_types[number].name;
	}
}

/* Fills dims and shape; the weights' number. */
static uint64_t
read_shape(reader *r, m1_tensor *t)
{
	uint32_t dims = take_u32(r);
	uint64_t elements = 1;

	if (r->status == M1_OK && (dims < 1 || dims > MAX_FILE_DIMS))
		refuse(r, M1_E_CORRUPT, "does not have 1 to 4 dimensions");
	for (uint32_t i = 0; i < dims && r->status == M1_OK; i++)
	{
		uint64_t n = take_u64(r);

		if (r->status == M1_OK && (n < 1 || n > INT64_MAX || __builtin_mul_overflow(elements, n, &elements)))
			refuse(r, M1_E_CORRUPT, "has an impossible shape");
		t->shape[dims - 1 - i] = (int64_t) n;
	}
	t->dims = (int) dims;
	return elements;
}

/* One entry of the list. Until the list's end is known, data holds only the offset. */
static void
read_tensor(reader *r, const m1_gguf *g, m1_tensor *t)
{
	uint64_t elements = read_shape(r, t);
	uint64_t offset;
	uint64_t blocks;
	uint64_t bytes;

	read_tensor_type(r, t);
	offset = take_u64(r);
	if (r->status != M1_OK)
		return;
	if (t->shape[t->dims - 1] % m1b_block_weights(t->type) != 0)
	{
		refuse(r, M1_E_CORRUPT, "has rows that are no whole number of blocks");
		m1_error_detail(r->err, "A row has %lld weights; a block of %s has %d.", (long long) t->shape[t->dims - 1],
						t->type_name, m1b_block_weights(t->type));
		return;
	}
	blocks = elements / (uint64_t) m1b_block_weights(t->type);
	if (__builtin_mul_overflow(blocks, (uint64_t) m1b_block_bytes(t->type), &bytes) || bytes > r->size)
		refuse(r, M1_E_CORRUPT, "is larger than the file");
	else if (offset % g->alignment != 0)
		refuse(r, M1_E_CORRUPT, "is not aligned");
	else if (offset > r->size)
		refuse(r, M1_E_CORRUPT, "lies beyond the end of the file");
	t->bytes = (size_t) bytes;
	t->data = (const void *) (uintptr_t) offset;
}

/* Offsets count from the first aligned byte after the header. */
static void
place_tensors(reader *r, m1_gguf *g)
{
	const uint64_t start = (r->at + g->alignment - 1) / g->alignment * g->alignment;

	for (size_t i = 0; i < g->n_tensors && r->status == M1_OK; i++)
	{
		m1_tensor *t = &g->tensors[i];
		const uint64_t begin = start + (uintptr_t) t->data;

		now_reading(r, "tensor", t->name);
		if (begin > r->size || t->bytes > r->size - begin)
		{
			refuse(r, M1_E_CORRUPT, "lies beyond the end of the file");
			m1_error_detail(r->err, "It takes %zu bytes from byte %llu on; the file has %zu. It may be truncated.",
							t->bytes, (unsigned long long) begin, r->size);
		}
		else
			t->data = r->data + begin;
	}
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const m1_tensor *) a)->name, ((const m1_tensor *) b)->name);
}

static int
by_place(const void *a, const void *b)
{
	const char *x = ((const m1_tensor *) a)->data;
	const char *y = ((const m1_tensor *) b)->data;

	return x < y ? -1 : x > y;
}

static void
check_tensors(reader *r, m1_gguf *g)
{
	m1_tensor *t = g->tensors;

	if (r->status != M1_OK)
		return;
	m1_sort(t, g->n_tensors, sizeof *t, by_name);
	for (size_t i = 1; i < g->n_tensors; i++)
		if (by_name(&t[i - 1], &t[i]) == 0)
		{
			now_reading(r, "tensor", t[i].name);
			refuse(r, M1_E_CORRUPT, "is there twice");
		}
	m1_sort(t, g->n_tensors, sizeof *t, by_place);
	for (size_t i = 1; i < g->n_tensors && r->status == M1_OK; i++)
		if ((const char *) t[i - 1].data + t[i - 1].bytes > (const char *) t[i].data)
		{
			now_reading(r, "tensor", t[i].name);
			refuse(r, M1_E_CORRUPT, "overlaps another tensor");
			m1_error_detail(r->err, "The other is \"%s\".", t[i - 1].name);
		}
}

static void
read_tensors(reader *r, m1_gguf *g, uint64_t n)
{
	if (r->status == M1_OK && (g->tensors = calloc((size_t) n + 1, sizeof *g->tensors)) == NULL)
		refuse(r, M1_E_NO_MEMORY, "finds no memory for the tensors");
	while (r->status == M1_OK && g->n_tensors < n)
	{
		m1_tensor *t = &g->tensors[g->n_tensors];

		expect_after(r, "tensor", g->n_tensors == 0 ? NULL : t[-1].name);
		if ((t->name = take_name(r, MAX_NAME_BYTES)) == NULL)
			break;
		g->n_tensors++;
		t->file = g->name;
		now_reading(r, "tensor", t->name);
		read_tensor(r, g, t);
	}
	place_tensors(r, g);
	check_tensors(r, g);
}

/* ---- the file ---- */

static void
read_version(reader *r)
{
	uint32_t version;

	r->subject = "the header";
	version = take_u32(r);
	if (r->status != M1_OK)
		return;
	if (version == 2 || version == 3)
		return;
	refuse(r, M1_E_UNSUPPORTED, "has a version that is not supported");
	if ((version & 0xffff) == 0)
		m1_error_detail(r->err, "The file is big-endian.");
	else
		m1_error_detail(r->err, "The version is %u; supported are 2 and 3.", version);
}

static m1_status
read_file(m1_gguf *g, m1_error *err)
{
	reader r = {.file = g->name, .data = g->file.data, .size = g->file.size, .status = M1_OK, .err = err};
	uint64_t n_tensors;
	uint64_t n_keys;

	if (r.size < 4 || memcmp(r.data, "GGUF", 4) != 0)
		return m1_fail(err, M1_E_CORRUPT, "%s: this is not a GGUF file", g->name);
	r.at = 4;
	read_version(&r);
	n_tensors = take_u64(&r);
	n_keys = take_u64(&r);
	if (n_tensors > MAX_TENSORS || n_tensors > r.size / MIN_TENSOR_BYTES)
		refuse(&r, M1_E_CORRUPT, "tells an absurd number of tensors");
	if (n_keys > MAX_KEYS || n_keys > r.size / MIN_KEY_BYTES)
		refuse(&r, M1_E_CORRUPT, "tells an absurd number of keys");
	if (r.status == M1_OK)
		read_keys(&r, g, n_keys);
	if (r.status == M1_OK)
		read_alignment(&r, g);
	if (r.status == M1_OK)
		read_tensors(&r, g, n_tensors);
	return r.status;
}

m1_status
m1_gguf_open(const char *dir, const char *name, m1_gguf **out, m1_error *err)
{
	m1_gguf *g = calloc(1, sizeof *g);
	m1_status status;

	*out = NULL;
	if (g == NULL || (g->name = strdup(name)) == NULL)
	{
		free(g);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for \"%.120s\"", name);
	}
	if ((status = m1_mapped_open(dir, name, &g->file, err)) != M1_OK || (status = read_file(g, err)) != M1_OK)
	{
		m1_gguf_close(g);
		return status;
	}
	*out = g;
	return M1_OK;
}

void
m1_gguf_close(m1_gguf *g)
{
	if (g == NULL)
		return;
	for (size_t i = 0; i < g->n_keys; i++)
		free((char *) g->keys[i].key);
	for (size_t i = 0; i < g->n_tensors; i++)
		free((char *) g->tensors[i].name);
	free(g->keys);
	free(g->tensors);
	m1_mapped_close(&g->file);
	free(g->name);
	free(g);
}

/* ---- looking up ---- */

const char *
m1_gguf_file(const m1_gguf *g)
{
	return g->name;
}

size_t
m1_gguf_keys(const m1_gguf *g, const m1_gguf_value **keys)
{
	*keys = g->keys;
	return g->n_keys;
}

const m1_gguf_value *
m1_gguf_find(const m1_gguf *g, const char *key)
{
	m1_gguf_value wanted = {.key = key};

	if (g->n_keys == 0)
		return NULL;
	return bsearch(&wanted, g->keys, g->n_keys, sizeof *g->keys, by_key);
}

bool
m1_gguf_integer(const m1_gguf_value *v, size_t i, int64_t *n)
{
	const size_t size = element_size(v->type);
	uint64_t x;

	if (i >= v->count || v->type == M1_GGUF_F32 || v->type == M1_GGUF_F64 || v->type == M1_GGUF_STRING)
		return false;
	x = little_endian(v->data + i * size, (int) size);
	switch (v->type)
	{
		case M1_GGUF_I8:
			*n = (int8_t) x;
			return true;
		case M1_GGUF_I16:
			*n = (int16_t) x;
			return true;
		case M1_GGUF_I32:
			*n = (int32_t) x;
			return true;
		case M1_GGUF_BOOL:
			*n = x != 0;
			return true;
		default:
			*n = (int64_t) x;
			return v->type == M1_GGUF_I64 || x <= INT64_MAX;
	}
}

bool
m1_gguf_real(const m1_gguf_value *v, size_t i, double *x)
{
	int64_t n;

	if (i < v->count && v->type == M1_GGUF_F32)
	{
		float f;

		memcpy(&f, v->data + i * sizeof f, sizeof f);
		*x = f;
		return true;
	}
	if (i < v->count && v->type == M1_GGUF_F64)
	{
		memcpy(x, v->data + i * sizeof *x, sizeof *x);
		return true;
	}
	if (!m1_gguf_integer(v, i, &n))
		return false;
	*x = (double) n;
	return true;
}

m1_slice
m1_gguf_next_text(const m1_gguf_value *v, size_t *at)
{
	const unsigned char *place = v->data + *at;
	const size_t len = (size_t) little_endian(place, 8);

	*at += 8 + len;
	return (m1_slice){(const char *) place + 8, len};
}

m1_slice
m1_gguf_text(const m1_gguf_value *v)
{
	size_t at = 0;

	if (v == NULL || v->is_array || v->type != M1_GGUF_STRING)
		return (m1_slice){NULL, 0};
	return m1_gguf_next_text(v, &at);
}

size_t
m1_gguf_tensors(const m1_gguf *g, const m1_tensor **tensors)
{
	*tensors = g->tensors;
	return g->n_tensors;
}
