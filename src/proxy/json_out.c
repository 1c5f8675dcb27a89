/* json_out.c - see json_out.h. */
#include "proxy/json_out.h"

#include <inttypes.h>
#include <stdio.h>

#include "text/jsontext.h"

void
m1_out_key(m1_buf *out, const char *key)
{
	const char last = out->len > 0 ? out->data[out->len - 1] : '\0';

	if (last != '{' && last != '[' && last != '\0')
		m1_buf_puts(out, ",");
	m1_buf_puts(out, "\"");
	m1_buf_puts(out, key);
	m1_buf_puts(out, "\":");
}

void
m1_out_raw(m1_buf *out, const char *key, const char *json)
{
	m1_out_key(out, key);
	m1_buf_puts(out, json);
}

void
m1_out_text(m1_buf *out, const char *key, m1_slice text)
{
	m1_out_key(out, key);
	m1_json_write_string(out, text);
}

void
m1_out_int(m1_buf *out, const char *key, int64_t n)
{
	char text[32];

	snprintf(text, sizeof text, "%" PRId64, n);
	m1_out_raw(out, key, text);
}

void
m1_out_real(m1_buf *out, const char *key, double x)
{
	char text[40];

	snprintf(text, sizeof text, "%.9g", x);
	m1_out_raw(out, key, text);
}

void
m1_out_flag(m1_buf *out, const char *key, bool flag)
{
	m1_out_raw(out, key, flag ? "true" : "false");
}

void
m1_out_ids(m1_buf *out, const char *key, const int32_t *ids, size_t n)
{
	char text[16];

	m1_out_raw(out, key, "[");
	for (size_t i = 0; i < n; i++)
	{
		snprintf(text, sizeof text, "%s%d", i > 0 ? "," : "", ids[i]);
		m1_buf_puts(out, text);
	}
	m1_buf_puts(out, "]");
}

void
m1_out_owner(m1_buf *out, const char *key, uint64_t owner)
{
	char text[32];

	if (owner == 0)
		return;
	snprintf(text, sizeof text, "m1-%016" PRIx64, owner);
	m1_out_text(out, key, m1_slice_of(text));
}

int64_t
m1_out_seed(uint64_t seed, unsigned number)
{
	return (int64_t) ((seed ^ seed >> 31 ^ seed >> 62) + number) & 0x7FFFFFFF;
}
