/* nonce.c - see nonce.h. */
#include "gateway/nonce.h"

#include <event2/util.h>
#include <stdio.h>

void
gw_make_nonce(char *nonce, size_t size)
{
	unsigned char random[GW_NONCE_SIZE / 2];

	evutil_secure_rng_get_bytes(random, size / 2);
	for (size_t i = 0; i < size / 2; i++)
		snprintf(nonce + 2 * i, 3, "%02x", random[i]);
}
