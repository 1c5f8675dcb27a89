/*
 * tensor.h - one tensor of a checkpoint file, as safetensors and GGUF files have in common.
 *
 * Owned by whoever opened the file; data points into the mapped file, maybe unaligned.
 */
#ifndef M1_FILES_TENSOR_H
#define M1_FILES_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blocks/blocks.h"

#define M1_MAX_DIMS 8

typedef struct m1_tensor
{
	const char *name;
	const char *file;	   /* name of the file it is in */
	bool usable;		   /* false: of a type that weights cannot have, see type_name */
	m1b_dtype type;		   /* F8_E4M3: only the numbers, their scales are in another tensor */
	const char *type_name; /* as the file spells it */
	int dims;
	int64_t shape[M1_MAX_DIMS]; /* row-major: the last changes fastest */
	const void *data;
	size_t bytes;
} m1_tensor;

#endif
