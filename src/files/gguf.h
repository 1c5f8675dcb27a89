/*
 * gguf.h - a GGUF file, versions 2 and 3: its keys and its tensors.
 *
 * Opening checks everything that the file says about itself: each length, count and offset against the file's size,
 * names for validity, tensors for overlaps. After that, nothing that these functions return lies outside the mapped
 * file, which stays mapped until close. What the keys mean is the business of others.
 */
#ifndef M1_FILES_GGUF_H
#define M1_FILES_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"
#include "files/tensor.h"

/* Types of values, as the format numbers them. */
typedef enum m1_gguf_type
{
	M1_GGUF_U8,
	M1_GGUF_I8,
	M1_GGUF_U16,
	M1_GGUF_I16,
	M1_GGUF_U32,
	M1_GGUF_I32,
	M1_GGUF_F32,
	M1_GGUF_BOOL,
	M1_GGUF_STRING,
	M1_GGUF_ARRAY,
	M1_GGUF_U64,
	M1_GGUF_I64,
	M1_GGUF_F64,
	M1_GGUF_TYPES
} m1_gguf_type;

/* One key: a scalar is an array of one. */
typedef struct m1_gguf_value
{
	const char *key;
	bool is_array;
	m1_gguf_type type; /* of the elements; never M1_GGUF_ARRAY */
	size_t count;
	const unsigned char *data; /* as in the file */
} m1_gguf_value;

typedef struct m1_gguf m1_gguf;

/* Opens dir/name. The error names the file and the key or tensor. */
m1_status m1_gguf_open(const char *dir, const char *name, m1_gguf **out, m1_error *err);
void m1_gguf_close(m1_gguf *g);

/* The file's name, for errors. */
const char *m1_gguf_file(const m1_gguf *g);

/* Keys in order of the alphabet. */
size_t m1_gguf_keys(const m1_gguf *g, const m1_gguf_value **keys);
/* NULL when there is no such key. */
const m1_gguf_value *m1_gguf_find(const m1_gguf *g, const char *key);

/* Element i as a number; false for strings, and for integers that int64_t does not hold. Booleans are 0 and 1. */
bool m1_gguf_integer(const m1_gguf_value *v, size_t i, int64_t *n);
bool m1_gguf_real(const m1_gguf_value *v, size_t i, double *x);
/* The text of a scalar string; {NULL, 0} for other values. */
m1_slice m1_gguf_text(const m1_gguf_value *v);
/* Walks an array of strings: *at is 0 for the first, and then the place of the next. */
m1_slice m1_gguf_next_text(const m1_gguf_value *v, size_t *at);

/* Tensors in order of their place in the file; shapes are row-major, so that their order is opposite to the file's. */
size_t m1_gguf_tensors(const m1_gguf *g, const m1_tensor **tensors);

/* The format's number of a weight type. */
uint32_t m1_gguf_tensor_type(m1b_dtype type);

#endif
