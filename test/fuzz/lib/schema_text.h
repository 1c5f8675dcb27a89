/* schema_text.h - JSON Schemas made of the bytes of an input: any keyword beside any other. */
#ifndef M1_FUZZ_SCHEMA_TEXT_H
#define M1_FUZZ_SCHEMA_TEXT_H

#include <jansson.h>

#include "fuzz.h"

/* The caller frees it. */
m1_buf schema_text_make(fuzz_input *in);
/* Any value, some levels deep. */
json_t *json_value_make(fuzz_input *in, int depth);
/* As text, which the caller frees. The value is the caller's no longer. */
m1_buf json_text_of(json_t *value);

#endif
