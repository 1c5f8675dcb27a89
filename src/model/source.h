/*
 * source.h - what the path of a model names: a folder with config.json and safetensors files, a GGUF file, or a folder
 * that holds one GGUF file. Nobody else needs to know which.
 *
 * What is opened from a source may point into its files: the source is closed last.
 */
#ifndef M1_MODEL_SOURCE_H
#define M1_MODEL_SOURCE_H

#include "files/checkpoint.h"
#include "model/config.h"
#include "text/tokenizer.h"

typedef struct m1_source m1_source;

m1_status m1_source_open(const char *path, m1_source **out, m1_error *err);
void m1_source_close(m1_source *s);

/* For people: the last component of the path, without ".gguf". */
const char *m1_source_name(const m1_source *s);
/* The folder, of a model that is one; else NULL. */
const char *m1_source_dir(const m1_source *s);
/* The file, of a model that is one; else NULL. */
const m1_gguf *m1_source_gguf(const m1_source *s);

m1_status m1_source_config(const m1_source *s, m1_config *config, m1_error *err);
m1_status m1_source_checkpoint(const m1_source *s, m1_checkpoint **out, m1_error *err);
/* M1_E_NOT_FOUND when the model has none: it still takes token ids. */
m1_status m1_source_tokenizer(const m1_source *s, int vocab_rows, m1_tokenizer **out, m1_error *err);

#endif
