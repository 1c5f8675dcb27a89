/* utf8.c - bytes in pieces become valid UTF-8, the same however they are cut; what is valid stays as it is. */
#include "lib/fuzz.h"

#include <string.h>

#include "base/utf8.h"

/* By the value of each character, not by ranges of its bytes. */
static bool
is_valid(m1_slice s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	for (size_t i = 0; i < s.len;)
	{
		const unsigned char lead = (unsigned char) s.data[i];
		const size_t n = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
		uint32_t c = n == 1 ? lead : n > 0 ? lead & (0x7Fu >> n) : 0;

		if (n == 0 || n > s.len - i)
			return false;
		for (size_t k = 1; k < n; k++)
		{
			if (((unsigned char) s.data[i + k] & 0xC0) != 0x80)
				return false;
			c = c << 6 | ((unsigned char) s.data[i + k] & 63);
		}
		if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
			return false;
		i += n;
	}
	return true;
}

static m1_buf
push_in_pieces(m1_slice bytes, fuzz_input *cuts)
{
	m1_utf8 u = {0};
	m1_buf out = {0};

	while (bytes.len > 0)
	{
		const size_t n = 1 + fuzz_random_below(cuts, 5) % bytes.len;
		const size_t len = n < bytes.len ? n : bytes.len;

		fuzz_check(m1_utf8_push(&u, (m1_slice){bytes.data, len}, &out), "out of memory");
		fuzz_check(is_valid((m1_slice){out.data, out.len}), "part of the text is not UTF-8");
		bytes.data += len;
		bytes.len -= len;
	}
	fuzz_check(m1_utf8_finish(&u, &out), "out of memory");
	return out;
}

void
fuzz_one(fuzz_input *in)
{
	fuzz_input cuts = {.random = in->random};
	const m1_slice bytes = fuzz_rest(in);
	const bool valid = is_valid(bytes);
	m1_buf whole = fuzz_text(bytes);
	m1_buf pieces = push_in_pieces(bytes, &cuts);

	fuzz_check(m1_utf8_valid(bytes) == valid, "m1_utf8_valid says %d", !valid);
	fuzz_check(is_valid((m1_slice){whole.data, whole.len}), "the text is not UTF-8");
	fuzz_check(whole.len == 0 || memchr(whole.data, '\0', whole.len) == NULL, "the text has a NUL");
	fuzz_check(whole.len <= 3 * bytes.len, "%zu bytes of %zu", whole.len, bytes.len);
	fuzz_check(pieces.len == whole.len && (whole.len == 0 || memcmp(pieces.data, whole.data, whole.len) == 0),
			   "other pieces, another text");
	if (valid && (bytes.len == 0 || memchr(bytes.data, '\0', bytes.len) == NULL))
		fuzz_check(whole.len == bytes.len && (bytes.len == 0 || memcmp(whole.data, bytes.data, bytes.len) == 0),
				   "a valid text changed");
	m1_buf_free(&whole);
	m1_buf_free(&pieces);
}
