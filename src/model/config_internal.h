/*
 * config_internal.h - what the two sources of a config share: fields under the names
 * of config.json, checked in one place.
 *
 *   config.c       the fields; config.json
 *   config_gguf.c  the keys of a GGUF file, as fields
 */
#ifndef M1_MODEL_CONFIG_INTERNAL_H
#define M1_MODEL_CONFIG_INTERNAL_H

#include <jansson.h>

#include "model/config.h"

/* Fills config from the fields. Errors name the file, and fields as spell gives them (NULL: as they are). */
m1_status m1_config_read(const json_t *fields, const char *file, const char *(*spell)(const char *field),
						 m1_config *config, m1_error *err);

#endif
