/*
 * adapter_bytes.h - an adapter as one run of bytes, to be kept in a database: what it changes, and all of its numbers
 * to the last bit; with a training, also what the optimizer keeps of them. In native byte order, for machines alike.
 *
 * Its beginning names the digest of the base, and is refused on another one. Any thread, each with its own adapter.
 */
#ifndef M1_MODEL_ADAPTER_BYTES_H
#define M1_MODEL_ADAPTER_BYTES_H

#include "base/buf.h"
#include "model/adapter.h"
#include "model/digest.h"

/* What the bytes say beside the numbers of the adapter. */
typedef struct m1_adapter_facts
{
	char base[M1_DIGEST_SIZE];
	int64_t updates; /* of its training; 0 where it has none */
	bool moments;	 /* twice as many numbers follow those of the adapter */
} m1_adapter_facts;

/* Appends what comes before the numbers. */
bool m1_adapter_put_head(const m1_adapter *a, const m1_adapter_facts *facts, m1_buf *out);

/*
 * The adapter of such bytes, and its facts; *moments is where they begin, maybe unaligned, NULL where there are none.
 * M1_E_CORRUPT for bytes that make no sense, M1_E_INVALID_ARGUMENT for those of another base.
 */
m1_status m1_adapter_of_bytes(m1_slice bytes, const char *base, const m1_config *config, m1_adapter **out,
							  m1_adapter_facts *facts, const char **moments, m1_error *err);

/* 16 hexadecimal digits of what it changes and of all of its numbers. */
void m1_adapter_digest(const m1_adapter *a, char text[M1_DIGEST_SIZE]);

#endif
