/*
 * convert.h - any model that can be loaded, written as one GGUF file for this engine and for llama.cpp: config,
 * tokenizer and weights, the large matrices quantized.
 *
 * Streaming: memory is bounded by one chunk of a tensor, whatever the model's size.
 */
#ifndef M1_MODEL_CONVERT_H
#define M1_MODEL_CONVERT_H

#include "model/quantize.h"

typedef struct m1_convert_progress
{
	const char *tensor; /* that is being written */
	uint64_t done;		/* bytes read */
	uint64_t total;		/* of bytes to read */
} m1_convert_progress;

typedef struct m1_convert_options
{
	const char *in;		 /* path of a model */
	const char *out;	 /* path of the file to write */
	const char *adapter; /* folder of one that is merged into the weights; NULL for none */
	bool replace;		 /* an existing file */
	m1_weight_format format;
	int threads;		  /* 0 = all cores */
	uint64_t shard_bytes; /* of each file of a folder, about; 0 = 5 GB. The converter writes one file */
	/* Called often; false ends the work with M1_E_CANCELLED. May be NULL. */
	bool (*progress)(void *context, const m1_convert_progress *p);
	void *context;
} m1_convert_options;

/* On failure, and when cancelled, nothing is left behind. */
m1_status m1_convert(const m1_convert_options *options, m1_error *err);

#endif
