/*
 * http_parse.h - the head of an HTTP/1.1 request, and a body in chunks (RFC 9112), from bytes that anybody may send.
 *
 * Strict: what two readers could take for different things is refused, not guessed. No state is shared; nothing here
 * waits or allocates.
 */
#ifndef M1_GATEWAY_HTTP_PARSE_H
#define M1_GATEWAY_HTTP_PARSE_H

#include "base/buf.h"

#define GW_HTTP_MAX_HEAD 16384
#define GW_HTTP_MAX_FIELDS 64

typedef struct gw_http_field
{
	const char *name, *value;
} gw_http_field;

/* A head that was read. Its texts are in `text`, each ended by NUL. */
typedef struct gw_http_head
{
	char text[GW_HTTP_MAX_HEAD + 1];
	const char *method;
	char *path;	 /* without the query */
	char *query; /* behind the ?; or NULL */
	gw_http_field fields[GW_HTTP_MAX_FIELDS];
	int n_fields;
	bool http10;
	bool keep_alive;
	bool chunked;
	bool expects; /* to be told to go on before it sends the body */
	size_t content_length;
} gw_http_head;

/*
 * Reads a head at the beginning of the bytes. *used is its length, 0 while it is not complete. Returns 0, or the status
 * that refuses it: 400, 415, 417, 431, 501, 505.
 */
int gw_http_read_head(m1_slice bytes, gw_http_head *head, size_t *used);

/* A field's value; the name in any case. NULL where it is absent. */
const char *gw_http_field_of(const gw_http_head *head, const char *name);

/* Where a body in chunks is. Zero-initialised is its beginning. */
typedef struct gw_http_chunks
{
	size_t left; /* bytes of the chunk that are to come */
	int state;
	int trailers; /* lines behind the last chunk */
	bool done;
} gw_http_chunks;

/*
 * Appends to body what the bytes hold of it, of which *used are done with. Returns 0; or 400; or 413 when the body
 * would be longer than `most`.
 */
int gw_http_read_chunks(gw_http_chunks *chunks, m1_slice bytes, size_t most, m1_buf *body, size_t *used);

#endif
