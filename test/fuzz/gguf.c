/*
 * gguf.c - GGUF files: nothing that an open one tells lies outside of it, and what their keys mean is checked by whoever
 * reads them.
 */
#include "lib/fuzz.h"

#include <string.h>

#include "files/gguf.h"
#include "lib/tensors.h"
#include "model/config.h"
#include "text/tokenizer.h"

#define FILE_NAME "model.gguf"

/* ---- a file ---- */

static void
put_number(m1_buf *file, uint64_t n, int bytes)
{
	for (; bytes > 0; bytes--, n >>= 8)
		m1_buf_append(file, &(char){(char) n}, 1);
}

static void
put_text(m1_buf *file, m1_slice text)
{
	put_number(file, text.len, 8);
	m1_buf_append(file, text.data, text.len);
}

static void
put_value(m1_buf *file, uint32_t type, fuzz_input *in)
{
	static const unsigned char sizes[M1_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
	static const char *const texts[] = {"gpt2", "minimax-01", "", "<end_of_sentence>", "minimax-m2", "a b", NULL};

	if (type == M1_GGUF_STRING)
		put_text(file, m1_slice_of(fuzz_one_of(in, texts)));
	else
		put_number(file, fuzz_below(in, 8) == 7 ? fuzz_u64(in) : fuzz_below(in, 40), sizes[type]);
}

static void
put_key(m1_buf *file, fuzz_input *in)
{
	static const char *const keys[] = {"general.architecture",
									   "general.alignment",
									   "minimax-01.block_count",
									   "minimax-01.embedding_length",
									   "minimax-01.attention.head_count",
									   "minimax-01.attention.head_count_kv",
									   "minimax-01.expert_count",
									   "minimax-01.context_length",
									   "tokenizer.ggml.model",
									   "tokenizer.ggml.pre",
									   "tokenizer.ggml.tokens",
									   "tokenizer.ggml.merges",
									   "tokenizer.ggml.token_type",
									   "tokenizer.ggml.eos_token_id",
									   "x",
									   NULL};
	const uint32_t type = fuzz_below(in, M1_GGUF_TYPES);

	put_text(file, m1_slice_of(fuzz_one_of(in, keys)));
	put_number(file, type, 4);
	if (type != M1_GGUF_ARRAY)
		put_value(file, type, in);
	else
	{
		const uint32_t element = fuzz_below(in, M1_GGUF_TYPES);
		const uint32_t n = fuzz_below(in, 6);

		put_number(file, element, 4);
		put_number(file, fuzz_below(in, 16) == 15 ? fuzz_u64(in) : n, 8);
		for (uint32_t i = 0; i < n && element != M1_GGUF_ARRAY; i++)
			put_value(file, element, in);
	}
}

static void
put_tensor(m1_buf *file, fuzz_input *in, uint64_t *offset)
{
	static const char *const names[] = {"output.weight", "token_embd.weight", "blk.0.attn_norm.weight", "x", NULL};
	const uint32_t dims = 1 + fuzz_below(in, 4);

	put_text(file, m1_slice_of(fuzz_one_of(in, names)));
	put_number(file, dims, 4);
	for (uint32_t i = 0; i < dims; i++)
		put_number(file, fuzz_below(in, 16) == 15 ? fuzz_u64(in) : 32 * fuzz_below(in, 4), 8);
	put_number(file, fuzz_below(in, 41), 4);
	put_number(file, fuzz_below(in, 16) == 15 ? fuzz_u64(in) : *offset, 8);
	*offset += 32 * fuzz_below(in, 20);
}

static m1_buf
make_file(fuzz_input *in)
{
	const uint32_t tensors = fuzz_below(in, 4);
	const uint32_t keys = fuzz_below(in, 6);
	uint64_t offset = 0;
	m1_buf file = {0};

	m1_buf_puts(&file, "GGUF");
	put_number(&file, 2 + fuzz_below(in, 2), 4);
	put_number(&file, tensors, 8);
	put_number(&file, keys, 8);
	for (uint32_t i = 0; i < keys; i++)
		put_key(&file, in);
	for (uint32_t i = 0; i < tensors; i++)
		put_tensor(&file, in, &offset);
	for (uint32_t n = fuzz_below(in, 4096); n > 0; n--)
		m1_buf_append(&file, "w", 1);
	return file;
}

/* ---- what it tells ---- */

static void
look_at_value(const m1_gguf_value *v)
{
	int64_t n;
	double x;
	size_t at = 0;

	for (size_t i = 0; i < v->count; i++)
		if (v->type == M1_GGUF_STRING)
		{
			const m1_slice text = m1_gguf_next_text(v, &at);
			volatile unsigned sum = 0;

			for (size_t k = 0; k < text.len; k++)
				sum = sum + (unsigned char) text.data[k];
		}
		else if (m1_gguf_integer(v, i, &n))
			fuzz_check(m1_gguf_real(v, i, &x), "%s: an integer that is no number", v->key);
	fuzz_check(!m1_gguf_integer(v, v->count, &n), "%s: an element behind the last", v->key);
}

static void
look_at(const m1_gguf *g, size_t bytes)
{
	const m1_gguf_value *keys;
	const size_t n = m1_gguf_keys(g, &keys);
	m1_checkpoint *c;
	m1_tokenizer *t;
	m1_config config;
	m1_error err;
	m1_status status;

	for (size_t i = 0; i < n; i++)
	{
		fuzz_check(m1_gguf_find(g, keys[i].key) == &keys[i], "key \"%s\" is not found", keys[i].key);
		look_at_value(&keys[i]);
	}
	if ((status = m1_checkpoint_open_gguf(g, &c, &err)) != M1_OK)
		fuzz_check_error(status, &err);
	else
	{
		check_tensors(c, bytes);
		m1_checkpoint_close(c);
	}
	if ((status = m1_config_load_gguf(g, &config, &err)) != M1_OK)
		fuzz_check_error(status, &err);
	if ((status = m1_tokenizer_open_gguf(g, 600, &t, &err)) != M1_OK)
		fuzz_check_error(status, &err);
	else
		m1_tokenizer_close(t);
}

void
fuzz_one(fuzz_input *in)
{
	m1_buf file = {0};
	m1_gguf *g;
	m1_error err;
	m1_status status;

	if (fuzz_below(in, 4) == 3)
	{
		const m1_slice raw = fuzz_rest(in);

		m1_buf_append(&file, raw.data, raw.len);
	}
	else
		file = make_file(in);
	fuzz_write_file(FILE_NAME, (m1_slice){file.len > 0 ? file.data : "", file.len});
	if ((status = m1_gguf_open(fuzz_folder(), FILE_NAME, &g, &err)) != M1_OK)
		fuzz_check_error(status, &err);
	else
	{
		look_at(g, file.len);
		m1_gguf_close(g);
	}
	m1_buf_free(&file);
}
