/*
 * safetensors_writer.h - writes a safetensors file: first what is to be known of it and the list of tensors, then their
 * data, in that order and streaming.
 *
 * The file appears under its name only when it is whole: see new_file.h. One thread.
 */
#ifndef M1_FILES_SAFETENSORS_WRITER_H
#define M1_FILES_SAFETENSORS_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "blocks/blocks.h"

typedef struct m1_safetensors_writer m1_safetensors_writer;

/* M1_E_INVALID_ARGUMENT when the file exists and is not to be replaced. */
m1_status m1_safetensors_writer_create(const char *path, bool replace, m1_safetensors_writer **out, m1_error *err);
void m1_safetensors_writer_free(m1_safetensors_writer *w);

/* An entry of __metadata__. It cannot fail: memory that runs out is told by m1_safetensors_writer_begin. */
void m1_safetensors_write_metadata(m1_safetensors_writer *w, const char *key, const char *text);

/*
 * Announces the next tensor, of a row-major shape and of type F32, F16 or BF16; neither can this fail. Tensors lie side
 * by side: those of F32 come before the others, so that all are aligned.
 */
void m1_safetensors_write_tensor(m1_safetensors_writer *w, const char *name, m1b_dtype type, const int64_t *shape,
								 int dims);

/* Ends the list, and takes the room that the whole file needs on the disk. */
m1_status m1_safetensors_writer_begin(m1_safetensors_writer *w, m1_error *err);
/* The next bytes of the data: tensors in the order in which they were announced, each in any number of pieces. */
m1_status m1_safetensors_writer_data(m1_safetensors_writer *w, const void *data, size_t bytes, m1_error *err);
/* The next n numbers of the data, rounded to the tensor's type. */
m1_status m1_safetensors_writer_floats(m1_safetensors_writer *w, const float *from, size_t n, m1_error *err);
/* All data is there: makes the file durable and gives it its name. */
m1_status m1_safetensors_writer_finish(m1_safetensors_writer *w, m1_error *err);

#endif
