/*
 * adapter_files.c
 *	  What a training has made, before it becomes a version that others use: that
 *	  it is an adapter at all, whatever the engine says.
 *
 *	  The bytes are "m1peft01", the length of the config in four bytes, the config,
 *	  and the safetensors file: the length of its header in eight bytes, the
 *	  header, and numbers, of which the engine writes 32-bit ones.
 */
#include "pg/learning/adapter_files.h"

#include <math.h>

#include "text/jsonparse.h"

#define MAGIC		"m1peft01"
#define MOST_RANK	9999		/* as import_adapter() reads it */

/* ---- the parts ---- */

/* Takes so many bytes off the front; false: there are not as many. */
static bool
take(m1_slice *rest, uint64 n, m1_slice *part)
{
	if (n > rest->len)
		return false;
	*part = (m1_slice) {rest->data, n};
	rest->data += n;
	rest->len -= n;
	return true;
}

/* Of what is behind its length, a number of so many bytes, the lowest first. */
static bool
take_counted(m1_slice *rest, int of_length, m1_slice *part)
{
	m1_slice	length;
	uint64		n = 0;

	if (!take(rest, of_length, &length))
		return false;
	for (int i = of_length; i-- > 0;)
		n = n << 8 | (unsigned char) length.data[i];
	return take(rest, n, part);
}

static bool
divide(m1_slice files, m1_slice *config, m1_slice *header, m1_slice *numbers)
{
	m1_slice	magic;

	if (!take(&files, strlen(MAGIC), &magic) || memcmp(magic.data, MAGIC, magic.len) != 0 ||
		!take_counted(&files, 4, config) || !take_counted(&files, 8, header))
		return false;
	*numbers = files;
	return true;
}

/* ---- what they say ---- */

static bool
is_config(const m1_json *config)
{
	int64_t		rank;

	return m1_json_is(config, M1_JSON_OBJECT) && m1_json_is_text(m1_json_get(config, "peft_type"), "LORA") &&
		m1_json_is_int64(m1_json_get(config, "r"), &rank) && rank >= 1 && rank <= MOST_RANK;
}

/* How many numbers a tensor of this shape has, if they are at most so many. */
static bool
count_numbers(const m1_json *shape, int64_t most, int64_t *n)
{
	*n = 1;
	m1_json_foreach(shape, size)
	{
		int64_t		of_dimension;

		if (!m1_json_is_int64(size, &of_dimension) || of_dimension < 1 || of_dimension > most / *n)
			return false;
		*n *= of_dimension;
	}
	return m1_json_is(shape, M1_JSON_ARRAY) && *n <= most;
}

/* Tensors stand one behind the other, as the engine writes them; *at: where the next one begins. */
static bool
is_tensor(const m1_json *tensor, int64_t end, int64_t *at)
{
	const m1_json *offsets = m1_json_get(tensor, "data_offsets");
	int64_t		from;
	int64_t		to;
	int64_t		n;

	if (!m1_json_is_text(m1_json_get(tensor, "dtype"), "F32") || m1_json_size(offsets) != 2 ||
		!m1_json_is_int64(m1_json_at(offsets, 0), &from) || !m1_json_is_int64(m1_json_at(offsets, 1), &to) ||
		from != *at || to < from || to > end ||
		!count_numbers(m1_json_get(tensor, "shape"), end / (int64_t) sizeof(float), &n))
		return false;
	*at = to;
	return to - from == n * (int64_t) sizeof(float);
}

static const char *
wrong_with_header(const m1_json *header, int64_t bytes, m1_slice base)
{
	const m1_json *facts = m1_json_get(header, "__metadata__");
	const m1_slice of_base = m1_json_text(m1_json_get(facts, "base_digest"));
	int64_t		at = 0;

	if (of_base.len != base.len || memcmp(of_base.data, base.data, base.len) != 0)
		return "They name another model than the training's state.";
	m1_json_foreach(header, member)
	{
		if (member != facts && !is_tensor(member, bytes, &at))
			return "They have a tensor that is not where, or what, it is said to be.";
	}
	return at > 0 && at == bytes ? NULL : "They have other numbers than they say.";
}

static bool
are_finite(m1_slice numbers)
{
	for (size_t i = 0; i + sizeof(float) <= numbers.len; i += sizeof(float))
	{
		float		number;

		memcpy(&number, numbers.data + i, sizeof number);
		if (!isfinite(number))
			return false;
	}
	return true;
}

/* ---- all of it ---- */

const char *
m1pg_wrong_with_adapter(m1_slice files, m1_slice base)
{
	const char *wrong = "They are not the files of an adapter.";
	m1_slice	parts[3];
	m1_json_doc config = {0};
	m1_json_doc header = {0};
	m1_error	unused;

	if (!divide(files, &parts[0], &parts[1], &parts[2]))
		return wrong;
	if (m1_json_parse(parts[0], "config", NULL, &config, &unused) == M1_OK && is_config(config.root) &&
		m1_json_parse(parts[1], "header", NULL, &header, &unused) == M1_OK)
		wrong = wrong_with_header(header.root, (int64_t) parts[2].len, base);
	m1_json_free(&config);
	m1_json_free(&header);
	if (wrong == NULL && !are_finite(parts[2]))
		wrong = "They hold values that are not finite numbers.";
	return wrong;
}
