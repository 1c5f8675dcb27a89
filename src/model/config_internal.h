/*
 * config_internal.h - what the two sources of a config share: fields under the names of config.json, checked in one
 * place. And the way back, for the converter.
 *
 *   config.c       the fields; config.json
 *   config_gguf.c  the keys of a GGUF file, as fields
 */
#ifndef M1_MODEL_CONFIG_INTERNAL_H
#define M1_MODEL_CONFIG_INTERNAL_H

#include <jansson.h>

#include "files/gguf_writer.h"
#include "model/config.h"

/* Fills config from the fields. Errors name the file, and fields as spell gives them (NULL: as they are). */
m1_status m1_config_read(const json_t *fields, const char *file, const char *(*spell)(const char *field),
						 m1_config *config, m1_error *err);

/* Writes the keys. M1_E_UNSUPPORTED when the format has no words for this config. */
m1_status m1_config_write_gguf(const m1_config *config, m1_gguf_writer *w, m1_error *err);

#endif
