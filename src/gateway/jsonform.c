/* jsonform.c - see jsonform.h. */
#include "gateway/jsonform.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jsontext.h"

/* A database whose encoding is SQL_ASCII may hold any bytes. */
static void
put_string(m1_buf *out, m1_slice text)
{
	m1_utf8 state = {0};
	m1_buf valid = {0};

	if (m1_utf8_valid(text))
	{
		m1_json_write_string(out, text);
		return;
	}
	if (m1_utf8_push(&state, text, &valid) && m1_utf8_finish(&state, &valid))
		m1_json_write_string(out, (m1_slice){valid.data, valid.len});
	else
		out->failed = true;
	m1_buf_free(&valid);
}

static void
put_cstr(m1_buf *out, const char *text)
{
	if (text == NULL)
		m1_buf_puts(out, "null");
	else
		put_string(out, m1_slice_of(text));
}

static void
put_value(m1_buf *out, const m1_json *value)
{
	if (value == NULL)
		m1_buf_puts(out, "null");
	else
		m1_json_write(out, value, M1_JSON_AS_GIVEN);
}

/* Line breaks are outside of strings, which write theirs as \n. */
static void
put_raw(m1_buf *out, m1_slice json)
{
	const size_t from = out->len;

	if (!m1_buf_append(out, json.data, json.len))
		return;
	for (size_t i = from; i < out->len; i++)
		if (out->data[i] == '\n' || out->data[i] == '\r')
			out->data[i] = ' ';
}

static void
put_whole(m1_buf *out, int64_t n)
{
	char text[32];

	snprintf(text, sizeof text, "%" PRId64, n);
	m1_buf_puts(out, text);
}

void
gw_json(m1_buf *out, const char *form, ...)
{
	va_list values;

	va_start(values, form);
	for (; *form != '\0'; form++)
	{
		const size_t plain = strcspn(form, "'%");

		if (plain > 0)
		{
			m1_buf_append(out, form, plain);
			form += plain - 1;
			continue;
		}
		if (*form == '\'')
		{
			m1_buf_puts(out, "\"");
			continue;
		}
		switch (*++form)
		{
			case 's':
				put_cstr(out, va_arg(values, const char *));
				break;
			case 't':
				put_string(out, va_arg(values, m1_slice));
				break;
			case 'j':
				put_value(out, va_arg(values, const m1_json *));
				break;
			case 'r':
				put_raw(out, va_arg(values, m1_slice));
				break;
			case 'd':
				put_whole(out, va_arg(values, int64_t));
				break;
			default:
				m1_buf_puts(out, va_arg(values, int) ? "true" : "false");
				break;
		}
	}
	va_end(values);
}
