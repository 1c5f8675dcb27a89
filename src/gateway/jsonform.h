/*
 * jsonform.h - JSON that the gateway writes: a form in which values are filled in.
 *
 * Values of requests and of the database go through unchanged: numbers digit by digit, keys in their order.
 */
#ifndef M1_GATEWAY_JSONFORM_H
#define M1_GATEWAY_JSONFORM_H

#include "text/jsonparse.h"

/*
 * Appends the form, in which ' is written as the double quote, and each of these as the argument in its turn:
 *
 *   %s  const char *     a string; null where it is NULL
 *   %t  m1_slice         a string
 *   %j  const m1_json *  a value as it was read; null where it is NULL
 *   %r  m1_slice         JSON as it is, on one line
 *   %d  int64_t          a whole number
 *   %b  int              true or false
 *
 * What is no UTF-8 in a string becomes U+FFFD. When memory runs out, out->failed is set.
 */
void gw_json(m1_buf *out, const char *form, ...);

#endif
