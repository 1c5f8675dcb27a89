/* safetensors.c - checkpoints of one file, or of several with an index: no tensor lies outside of its file. */
#include "lib/fuzz.h"

#include <jansson.h>

#include "lib/schema_text.h"
#include "lib/tensors.h"

#define INDEX "model.safetensors.index.json"

static const char *const files[] = {"model.safetensors", "a.safetensors", "b.safetensors", "../a", "", ".b", NULL};
static const char *const names[] = {"a", "b", "c", "", "__metadata__", "model.layers.0.w", NULL};

/* ---- a file ---- */

static json_t *
tensor_entry(fuzz_input *in, size_t *offset)
{
	static const char *const types[] = {"F32", "F16", "BF16", "F8_E4M3", "I8", "U64", "Q4", NULL};
	static const unsigned sizes[] = {4, 2, 2, 1, 1, 8, 1};
	json_t *entry = json_object();
	const uint32_t type = fuzz_below(in, 7);
	size_t bytes = sizes[type];
	json_t *shape = json_array();

	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
	{
		const uint32_t rows = fuzz_below(in, 6);

		json_array_append_new(shape, json_integer(rows));
		bytes *= rows;
	}
	json_object_set_new(entry, "dtype", json_string(types[type]));
	json_object_set_new(entry, "shape", shape);
	json_object_set_new(entry, "data_offsets",
						json_pack("[I, I]", (json_int_t) *offset, (json_int_t) (*offset + bytes)));
	*offset += bytes;
	if (fuzz_below(in, 8) == 7)
	{
		static const char *const keys[] = {"dtype", "shape", "data_offsets", NULL};

		json_object_set_new(entry, fuzz_one_of(in, keys), json_value_make(in, 2));
	}
	return entry;
}

static void
put_length(m1_buf *file, uint64_t length)
{
	for (int i = 0; i < 8; i++, length >>= 8)
		m1_buf_append(file, &(char){(char) length}, 1);
}

static m1_buf
make_file(fuzz_input *in)
{
	json_t *header = json_object();
	m1_buf text;
	m1_buf file = {0};
	size_t offset = 0;

	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
		json_object_set_new(header, fuzz_one_of(in, names), tensor_entry(in, &offset));
	text = json_text_of(header);
	put_length(&file, fuzz_below(in, 16) == 15 ? fuzz_u64(in) : text.len);
	m1_buf_append(&file, text.data, text.len);
	offset = fuzz_below(in, 16) == 15 ? fuzz_below(in, 64) : offset;
	for (; offset > 0; offset--)
		m1_buf_append(&file, "w", 1);
	m1_buf_free(&text);
	return file;
}

static size_t
write_file(const char *name, fuzz_input *in)
{
	m1_buf file = make_file(in);
	const size_t len = file.len;

	fuzz_write_file(name, (m1_slice){file.data, file.len});
	m1_buf_free(&file);
	return len;
}

/* ---- the folder ---- */

static void
write_index(fuzz_input *in)
{
	json_t *index = json_object();
	json_t *map = json_object();
	m1_buf text;

	for (uint32_t n = fuzz_below(in, 5); n > 0; n--)
		json_object_set_new(map, fuzz_one_of(in, names), json_string(fuzz_one_of(in, files)));
	json_object_set_new(index, "weight_map", fuzz_below(in, 16) == 15 ? json_value_make(in, 2) : json_incref(map));
	text = json_text_of(index);
	fuzz_write_file(INDEX, (m1_slice){text.data, text.len});
	m1_buf_free(&text);
	json_decref(map);
}

static void
check_open(size_t bytes)
{
	m1_checkpoint *c;
	m1_error err;
	const m1_status status = m1_checkpoint_open(fuzz_folder(), &c, &err);

	if (status != M1_OK)
	{
		fuzz_check_error(status, &err);
		return;
	}
	check_tensors(c, bytes);
	m1_checkpoint_close(c);
}

void
fuzz_one(fuzz_input *in)
{
	const uint32_t kind = fuzz_below(in, 4);
	size_t bytes = 0;

	fuzz_remove_file(INDEX);
	fuzz_remove_file("a.safetensors");
	fuzz_remove_file("b.safetensors");
	if (kind == 3)
	{
		const m1_slice raw = fuzz_rest(in);

		fuzz_write_file("model.safetensors", raw);
		bytes = raw.len;
	}
	else
		bytes = write_file("model.safetensors", in);
	if (kind == 1)
	{
		bytes += write_file("a.safetensors", in) + write_file("b.safetensors", in);
		write_index(in);
	}
	else if (kind == 2)
		fuzz_write_file(INDEX, fuzz_rest(in));
	check_open(bytes);
}
