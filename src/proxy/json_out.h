/*
 * json_out.h - the members of a JSON object, as the dialects write them. Failures are the buffer's to tell.
 */
#ifndef M1_PROXY_JSON_OUT_H
#define M1_PROXY_JSON_OUT_H

#include "base/buf.h"

/* Each writes a comma first unless the object or array has just been opened. */
void m1_out_key(m1_buf *out, const char *key);
void m1_out_text(m1_buf *out, const char *key, m1_slice text);
void m1_out_int(m1_buf *out, const char *key, int64_t n);
void m1_out_real(m1_buf *out, const char *key, double x);
void m1_out_flag(m1_buf *out, const char *key, bool flag);
void m1_out_ids(m1_buf *out, const char *key, const int32_t *ids, size_t n);
/* JSON as it is. */
void m1_out_raw(m1_buf *out, const char *key, const char *json);

/* A string by which servers keep owners apart; nothing for 0, which shares with everybody. */
void m1_out_owner(m1_buf *out, const char *key, uint64_t owner);
/* A seed that every server takes: 31 bits of it and of a number. */
int64_t m1_out_seed(uint64_t seed, unsigned number);

#endif
