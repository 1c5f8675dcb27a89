/*
 * gguf_writer.h - writes a GGUF file, version 3: first all keys, then the list of tensors, then their data, in that
 * order and streaming.
 *
 * The file appears under its name only when it is whole: until then it is a temporary file beside it, which
 * m1_gguf_writer_free removes. One thread.
 */
#ifndef M1_FILES_GGUF_WRITER_H
#define M1_FILES_GGUF_WRITER_H

#include "files/gguf.h"

typedef struct m1_gguf_writer m1_gguf_writer;

/* M1_E_INVALID_ARGUMENT when the file exists and is not to be replaced. */
m1_status m1_gguf_writer_create(const char *path, bool replace, m1_gguf_writer **out, m1_error *err);
void m1_gguf_writer_free(m1_gguf_writer *w);

/* Keys. They cannot fail: memory that runs out is told by m1_gguf_writer_begin. */
void m1_gguf_write_text(m1_gguf_writer *w, const char *key, m1_slice text);
void m1_gguf_write_u32(m1_gguf_writer *w, const char *key, uint32_t n);
void m1_gguf_write_f32(m1_gguf_writer *w, const char *key, float x);
void m1_gguf_write_bool(m1_gguf_writer *w, const char *key, bool truth);
/* An array: its head, then exactly `count` elements of its type. */
void m1_gguf_write_array(m1_gguf_writer *w, const char *key, m1_gguf_type type, size_t count);
void m1_gguf_write_text_element(m1_gguf_writer *w, m1_slice text);
void m1_gguf_write_i32_element(m1_gguf_writer *w, int32_t n);
void m1_gguf_write_bool_element(m1_gguf_writer *w, bool truth);

/* Announces the next tensor, of a row-major shape. */
void m1_gguf_write_tensor(m1_gguf_writer *w, const char *name, m1b_dtype type, const int64_t *shape, int dims);

/* Ends keys and list, and takes the room that the whole file needs on the disk. */
m1_status m1_gguf_writer_begin(m1_gguf_writer *w, m1_error *err);
/* The next bytes of the data: tensors in the order in which they were announced, each in any number of pieces. */
m1_status m1_gguf_writer_data(m1_gguf_writer *w, const void *data, size_t bytes, m1_error *err);
/* All data is there: makes the file durable and gives it its name. */
m1_status m1_gguf_writer_finish(m1_gguf_writer *w, m1_error *err);

#endif
