/*
 * jsonparse.h - parses JSON without losing numbers: those that neither 64-bit integers nor 64-bit reals hold exactly
 * are kept as their text, where jansson refuses or rounds them.
 *
 * Such a number is a JSON string that begins with U+0000, which no parsed string does otherwise. json_is_string is true
 * for it, json_is_number is not: whoever reads a value that m1_json_parse made asks the functions below instead.
 */
#ifndef M1_TEXT_JSONPARSE_H
#define M1_TEXT_JSONPARSE_H

#include <jansson.h>

#include "base/buf.h"

/* As json_loadb with the flags. NULL with *where, also when memory ran out. */
json_t *m1_json_parse(m1_slice text, size_t flags, json_error_t *where);

/* The text of a number that was kept as such; no data for any other value. */
m1_slice m1_json_number_text(const json_t *value);

bool m1_json_is_string(const json_t *value);
bool m1_json_is_number(const json_t *value);
/* The nearest 64-bit real, infinite beyond them; 0 of what is no number. */
double m1_json_real(const json_t *value);
/* A number without a fraction, 1.0 and 1e400 among them. */
bool m1_json_is_whole(const json_t *value);

#endif
