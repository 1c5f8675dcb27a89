/* base64.c - see base64.h. */
#include "gateway/base64.h"

#include <string.h>

static int
value_of(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c == '\0' ? NULL : strchr(digits, c);

	return at == NULL ? -1 : (int) (at - digits);
}

bool
gw_base64_decode(m1_slice text, char *out, size_t *length)
{
	size_t padding = 0;
	unsigned bits = 0;

	*length = 0;
	if (text.len % 4 != 0)
		return false;
	while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=')
		padding++;
	for (size_t i = 0; i < text.len - padding; i++)
	{
		const int value = value_of(text.data[i]);

		if (value < 0)
			return false;
		bits = bits << 6 | (unsigned) value;
		if (i % 4 > 0)
			out[(*length)++] = (char) (bits >> (6 - 2 * (i % 4)));
	}
	return true;
}
