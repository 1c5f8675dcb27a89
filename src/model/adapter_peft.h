/*
 * adapter_peft.h - the two files of an adapter in PEFT's format, as one run of bytes: "m1peft01", the length of
 * adapter_config.json in four bytes, that file, and adapter_model.safetensors.
 *
 * The files are read and written by adapter_files.h, in a folder of memory that is there for as long as that takes. One
 * thread at a time for each adapter.
 */
#ifndef M1_MODEL_ADAPTER_PEFT_H
#define M1_MODEL_ADAPTER_PEFT_H

#include "base/buf.h"
#include "model/adapter_files.h"

/* Whether the bytes begin as such do. */
bool m1_adapter_is_peft(m1_slice bytes);
/* The errors are those of m1_adapter_load. */
m1_status m1_adapter_of_peft(m1_slice bytes, const m1_adapter_base *base, m1_adapter **out, m1_error *err);
/* Appends them. */
m1_status m1_adapter_put_peft(const m1_adapter *a, const m1_adapter_base *base, m1_buf *out, m1_error *err);

#endif
