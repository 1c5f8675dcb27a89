/*
 * jsontext.h - writes JSON the way the model saw it in training: with the separators and escapes of Python's
 * json.dumps(value, ensure_ascii=False). Numbers are written as they were.
 */
#ifndef M1_TEXT_JSONTEXT_H
#define M1_TEXT_JSONTEXT_H

#include "text/jsonparse.h"

typedef enum m1_json_order
{
	M1_JSON_AS_GIVEN,
	M1_JSON_TOOL, /* well-known keys of tool definitions first, in the order they are usually written in */
} m1_json_order;

/* Both append to out. false when memory ran out. */
bool m1_json_write(m1_buf *out, const m1_json *value, m1_json_order order);
bool m1_json_write_string(m1_buf *out, m1_slice text);

#endif
