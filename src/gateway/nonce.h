/*
 * nonce.h - texts that nobody can foresee.
 */
#ifndef M1_GATEWAY_NONCE_H
#define M1_GATEWAY_NONCE_H

#include <stddef.h>

#define GW_NONCE_SIZE 33 /* of 128 bits */

/* Random bits in hexadecimal: an even number of digits, and a NUL, of that size together; GW_NONCE_SIZE at most. */
void gw_make_nonce(char *nonce, size_t size);

#endif
