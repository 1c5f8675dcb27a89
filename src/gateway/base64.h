/* base64.h - texts of headers that are written in base64 (RFC 4648, padded). */
#ifndef M1_GATEWAY_BASE64_H
#define M1_GATEWAY_BASE64_H

#include "base/buf.h"

/* Writes three quarters of text.len bytes at most. false when it is not base64. */
bool gw_base64_decode(m1_slice text, char *out, size_t *length);

#endif
