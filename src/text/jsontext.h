/*
 * jsontext.h - writes JSON the way the model saw it in training: as Python's json.dumps(value, ensure_ascii=False)
 * does, separators and numbers included; numbers that m1_json_parse kept as text are written as they were.
 */
#ifndef M1_TEXT_JSONTEXT_H
#define M1_TEXT_JSONTEXT_H

#include <jansson.h>

#include "base/buf.h"

typedef enum m1_json_order
{
	M1_JSON_AS_GIVEN,
	M1_JSON_TOOL, /* well-known keys of tool definitions first, in the order they are usually written in */
} m1_json_order;

/* Appends value to out. false when memory ran out. */
bool m1_json_write(m1_buf *out, const json_t *value, m1_json_order order);

#endif
