/*
 * utf8.h - turns bytes that arrive in arbitrary pieces into valid UTF-8 text.
 *
 * Tokens cut characters anywhere, so the tail of an unfinished character is held back until it is complete. Bytes that
 * can never form a character, and NUL (which SQL text cannot hold), become U+FFFD.
 */
#ifndef M1_BASE_UTF8_H
#define M1_BASE_UTF8_H

#include "base/buf.h"
#include "base/work.h"

typedef struct m1_utf8
{
	unsigned char pending[4]; /* an unfinished character */
	int n_pending;
} m1_utf8;

/* Appends to out what is complete after these bytes. false when out ran out of memory. */
bool m1_utf8_push(m1_utf8 *u, m1_slice bytes, m1_buf *out);
/* The input has ended: an unfinished character becomes U+FFFD. */
bool m1_utf8_finish(m1_utf8 *u, m1_buf *out);
/* True when text is well-formed UTF-8 (no surrogates, no overlong forms, at most U+10FFFF). */
bool m1_utf8_valid(m1_slice text);
/* The same of a text that may be long. false, too, when the work does not go on. */
bool m1_utf8_valid_while(m1_slice text, m1_work *work);
/* 0 to 15, or -1 when c is no hexadecimal digit. */
int m1_hex_digit(char c);

#endif
