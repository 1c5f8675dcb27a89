/*
 * jsonfile.h - reads a JSON file of a checkpoint, with its failures as m1_error.
 */
#ifndef M1_FILES_JSONFILE_H
#define M1_FILES_JSONFILE_H

#include <jansson.h>

#include "base/status.h"

/*
 * Whether the bytes that are to be JSON have a NUL: jansson takes one behind a number for nothing, and what follows for
 * the rest of the text. M1_E_CORRUPT then; `name` is the file's.
 */
m1_status m1_json_refuse_nul(const void *data, size_t len, const char *name, m1_error *err);

/*
 * Loads dir/name. The caller owns *out (json_decref). M1_E_NOT_FOUND when the file is absent,
 * M1_E_IO when it cannot be read, M1_E_CORRUPT with line and column when it is not JSON or not an object.
 */
m1_status m1_json_load_object(const char *dir, const char *name, json_t **out, m1_error *err);

#endif
