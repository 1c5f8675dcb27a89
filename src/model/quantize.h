/*
 * quantize.h - weights from one stored type to another, in parallel: for quantizing on load, and for the converter.
 *
 * One caller at a time. Memory is a row of floats for each thread.
 */
#ifndef M1_MODEL_QUANTIZE_H
#define M1_MODEL_QUANTIZE_H

#include "model/adapter.h"

/* What becomes of the large matrices of a checkpoint that has them as floats. */
typedef enum m1_weight_format
{
	M1_WEIGHTS_STORED, /* as they are */
	M1_WEIGHTS_Q8_0,
	M1_WEIGHTS_FP8, /* F8_E4M3 */
	M1_WEIGHTS_Q4,	/* Q4_K where rows are whole superblocks of 256, else Q4_0 */
	M1_WEIGHT_FORMATS
} m1_weight_format;

/* "stored", "q8_0", "fp8", "q4"; false when there is no such format */
bool m1_weight_format_parse(const char *name, m1_weight_format *format);

/*
 * The type that a weight gets. Norms, router, embedding and head keep theirs; so do weights that are quantized
 * already, and those whose rows no block divides.
 */
m1b_dtype m1_weight_format_type(m1_weight_format format, m1_role role, const m1_weight *weight);

typedef struct m1_quantizer m1_quantizer;

m1_status m1_quantizer_create(int threads, m1_quantizer **out, m1_error *err);
void m1_quantizer_free(m1_quantizer *q);

/* Whether m1_quantizer_run makes this type. */
bool m1_quantizer_makes(m1b_dtype type);

/*
 * Writes rows [first, first + n) of the weight (a vector has one row) as type `to`: F32, F16, BF16, or one that
 * m1b_can_quantize. change: what an adapter makes of the weight; NULL: it stays what it is, and one whose scales are
 * apart only gets them into its blocks, as F8_E4M3. M1_E_CORRUPT names the tensor with a value that cannot be.
 */
m1_status m1_quantizer_run(m1_quantizer *q, const m1_weight *weight, const m1_adapter_target *change, int first, int n,
						   m1b_dtype to, void *out, m1_error *err);

#endif
