/*
 * http.c - requests of HTTP: a head is refused, incomplete, or read, the same however it comes; what is read stands in
 * the bytes. A body in chunks is the same, whole or cut anywhere.
 */
#include "lib/fuzz.h"

#include <string.h>

#include "gateway/base64.h"
#include "gateway/http_parse.h"

#define MOST_BODY 1000

static gw_http_head head;

/* Without the controls that would end it, or hide something. */
static void
check_text(const char *text)
{
	for (; *text != '\0'; text++)
		fuzz_check((unsigned char) *text >= ' ' || *text == '\t', "a control character in \"%s\"", text);
}

static void
check_head(m1_slice bytes, size_t used)
{
	fuzz_check(used <= bytes.len && used <= GW_HTTP_MAX_HEAD && memcmp(bytes.data + used - 4, "\r\n\r\n", 4) == 0,
			   "a head of %zu bytes", used);
	check_text(head.method);
	check_text(head.path);
	fuzz_check(head.path[0] == '/' && head.method[0] != '\0', "\"%s\" of \"%s\"", head.method, head.path);
	fuzz_check(head.query == NULL || head.query > head.path, "the query");
	for (int i = 0; i < head.n_fields; i++)
	{
		check_text(head.fields[i].name);
		check_text(head.fields[i].value);
		fuzz_check(strpbrk(head.fields[i].name, " \t:") == NULL, "a field \"%s\"", head.fields[i].name);
		fuzz_check(gw_http_field_of(&head, head.fields[i].name) != NULL, "a field that is not found");
	}
	fuzz_check(!head.chunked || head.content_length == 0, "chunks beside a length");
	fuzz_check(head.http10 || gw_http_field_of(&head, "host") != NULL, "no host");
}

/* What is a whole head was not one, nor refused for other reasons than its length, without its last byte. */
static void
check_prefix(m1_slice bytes, size_t used)
{
	size_t none;
	const int status = gw_http_read_head((m1_slice){bytes.data, used - 1}, &head, &none);

	fuzz_check(status == 0 && none == 0, "a head that is not complete: %d", status);
}

static int
read_in_pieces(m1_slice bytes, fuzz_input *cuts, m1_buf *body, bool *done)
{
	gw_http_chunks chunks = {0};
	m1_buf pending = {0};
	int status = 0;

	while (bytes.len > 0 && status == 0 && !chunks.done)
	{
		const size_t n = 1 + fuzz_random_below(cuts, 7) % bytes.len;
		size_t used;

		m1_buf_append(&pending, bytes.data, n);
		bytes.data += n;
		bytes.len -= n;
		status = gw_http_read_chunks(&chunks, (m1_slice){pending.data, pending.len}, MOST_BODY, body, &used);
		m1_buf_consume(&pending, used);
	}
	*done = chunks.done;
	m1_buf_free(&pending);
	return status;
}

static void
check_chunks(m1_slice bytes, fuzz_input *cuts)
{
	gw_http_chunks chunks = {0};
	m1_buf whole = {0};
	m1_buf pieces = {0};
	size_t used = 0;
	const int status = gw_http_read_chunks(&chunks, bytes, MOST_BODY, &whole, &used);
	bool done;
	const int in_pieces = read_in_pieces(bytes, cuts, &pieces, &done);

	fuzz_check(used <= bytes.len && whole.len <= MOST_BODY && whole.len <= bytes.len, "%zu bytes", whole.len);
	fuzz_check(status == in_pieces && done == chunks.done, "%d whole, %d in pieces", status, in_pieces);
	fuzz_check(status != 0 ||
				   (whole.len == pieces.len && (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0)),
			   "another body in pieces");
	m1_buf_free(&whole);
	m1_buf_free(&pieces);
}

static void
check_base64(m1_slice bytes)
{
	char *out = malloc(bytes.len + 1);
	size_t length;

	fuzz_check(out != NULL, "out of memory");
	if (gw_base64_decode(bytes, out, &length))
		fuzz_check(length <= bytes.len / 4 * 3, "%zu bytes of %zu", length, bytes.len);
	free(out);
}

void
fuzz_one(fuzz_input *in)
{
	fuzz_input cuts = {.random = in->random};
	const m1_slice bytes = fuzz_rest(in);
	size_t used = 0;
	const int status = gw_http_read_head(bytes, &head, &used);

	fuzz_check(status == 0 || status == 400 || status == 415 || status == 417 || status == 431 || status == 501 ||
				   status == 505,
			   "status %d", status);
	if (status == 0 && used > 0)
	{
		check_head(bytes, used);
		check_prefix(bytes, used);
	}
	check_chunks((m1_slice){bytes.data + used, bytes.len - used}, &cuts);
	check_base64(bytes);
}
