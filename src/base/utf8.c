/* utf8.c - see utf8.h. */
#include "base/utf8.h"

#include <string.h>

#define LOOK_EACH 65536 /* characters, whether it is still wanted */

static const char replacement[] = "\xEF\xBF\xBD";

/* Length of the character that a byte begins, or 0 when no character begins with it. */
static int
sequence_length(unsigned char lead)
{
	if (lead < 0x80)
		return 1;
	if (lead >= 0xC2 && lead <= 0xDF)
		return 2;
	if (lead >= 0xE0 && lead <= 0xEF)
		return 3;
	if (lead >= 0xF0 && lead <= 0xF4)
		return 4;
	return 0;
}

/* Whether c may stand at place i >= 1 of a character that begins with lead. */
static bool
continues(unsigned char lead, int i, unsigned char c)
{
	if (i == 1)
		switch (lead)
		{
			case 0xE0: /* shorter forms exist below */
				return c >= 0xA0 && c <= 0xBF;
			case 0xED: /* surrogates above */
				return c >= 0x80 && c <= 0x9F;
			case 0xF0:
				return c >= 0x90 && c <= 0xBF;
			case 0xF4: /* beyond U+10FFFF above */
				return c >= 0x80 && c <= 0x8F;
			default:
				break;
		}
	return (c & 0xC0) == 0x80;
}

static bool
give_up_pending(m1_utf8 *u, m1_buf *out)
{
	if (u->n_pending == 0)
		return true;
	u->n_pending = 0;
	return m1_buf_puts(out, replacement);
}

static bool
push_byte(m1_utf8 *u, unsigned char c, m1_buf *out)
{
	if (u->n_pending > 0)
	{
		if (continues(u->pending[0], u->n_pending, c))
		{
			u->pending[u->n_pending++] = c;
			if (u->n_pending < sequence_length(u->pending[0]))
				return true;
			m1_buf_append(out, u->pending, (size_t) u->n_pending);
			u->n_pending = 0;
			return !out->failed;
		}
		give_up_pending(u, out);
	}
	if (c == 0 || sequence_length(c) == 0)
		return m1_buf_puts(out, replacement);
	if (sequence_length(c) == 1)
		return m1_buf_append(out, &c, 1);
	u->pending[u->n_pending++] = c;
	return !out->failed;
}

bool
m1_utf8_push(m1_utf8 *u, m1_slice bytes, m1_buf *out)
{
	for (size_t i = 0; i < bytes.len; i++)
		if (!push_byte(u, (unsigned char) bytes.data[i], out))
			return false;
	return true;
}

bool
m1_utf8_finish(m1_utf8 *u, m1_buf *out)
{
	return give_up_pending(u, out);
}

/* The bytes of the character that a text, which is not empty, begins with; 0: it begins with none. */
static size_t
first_character(const char *text, size_t len)
{
	const unsigned char lead = (unsigned char) text[0];
	const int n = sequence_length(lead);

	if (len < (size_t) n)
		return 0;
	for (int i = 1; i < n; i++)
		if (!continues(lead, i, (unsigned char) text[i]))
			return 0;
	return (size_t) n;
}

bool
m1_utf8_valid_while(m1_slice text, m1_work *work)
{
	size_t characters = 0;

	for (size_t i = 0, n; i < text.len; i += n)
		if ((n = first_character(text.data + i, text.len - i)) == 0 ||
			(++characters % LOOK_EACH == 0 && !m1_work_goes_on(work, 0)))
			return false;
	return true;
}

bool
m1_utf8_valid(m1_slice text)
{
	return m1_utf8_valid_while(text, NULL);
}

int
m1_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
