/*
 * test_convert.c - models as GGUF files: what comes back from the file is what went in, whatever the format cannot
 * hold is refused, damaged keys are refused by name, and a failure leaves nothing behind.
 */
#define _GNU_SOURCE /* pwrite, memmem, setrlimit */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocks/blocks.h"
#include "model/convert.h"
#include "model/model.h"
#include "text/tokenizer_internal.h"

#define SCRATCH TEST_BUILD "/test_convert"
#define NANO "models/m1-nano"
#define TINY "test/checkpoints/tiny-f32"
#define ODD "test/checkpoints/tiny-odd"

static m1_status
convert(const char *in, const char *out, m1_weight_format format, m1_error *err)
{
	m1_convert_options options = {.in = in, .out = out, .replace = true, .format = format, .threads = 2};

	mkdir("build", 0777);
	mkdir(SCRATCH, 0777);
	return m1_convert(&options, err);
}

static m1_source *
open_source(const char *path, m1_config *config)
{
	m1_source *s;
	m1_error err;

	assert_ok(m1_source_open(path, &s, &err));
	assert_ok(m1_source_config(s, config, &err));
	return s;
}

/* ---- what comes back ---- */

static void
assert_same_config(m1_config a, m1_config b)
{
	memcpy(a.architecture, b.architecture, sizeof a.architecture);
	assert_memory_equal(&a, &b, sizeof a);
}

/* Every weight of both, as floats. */
static void
assert_same_weights(const m1_checkpoint *a, const m1_checkpoint *b, const m1_config *c)
{
	m1_role roles[M1_ROLES];
	m1_error err;

	for (int layer = 0; layer < c->layers; layer++)
		for (int r = m1_roles_of_layer(c, layer, roles) - 1; r >= 0; r--)
			for (int e = 0; e < (m1_role_of_expert(roles[r]) ? c->experts : 1); e++)
			{
				m1_weight x, y;
				float *p, *q;
				size_t n;

				assert_ok(m1_role_find(roles[r], a, c, layer, e, &x, &err));
				assert_ok(m1_role_find(roles[r], b, c, layer, e, &y, &err));
				n = (size_t) x.rows * (size_t) (x.cols > 0 ? x.cols : 1);
				p = malloc(n * sizeof *p);
				q = malloc(n * sizeof *q);
				assert_true(p != NULL && q != NULL);
				m1b_dequantize(x.type, x.data, n, p);
				m1b_dequantize(y.type, y.data, n, q);
				assert_memory_equal(p, q, n * sizeof *p);
				free(p);
				free(q);
			}
}

static void
test_stored(void **state)
{
	static const char *const models[] = {NANO, TINY, ODD, "test/checkpoints/tiny-bf16-sharded"};
	static m1_config from, to;
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
	{
		m1_source *a = open_source(models[i], &from);
		m1_source *b;
		m1_checkpoint *x;
		m1_checkpoint *y;

		assert_ok(convert(models[i], SCRATCH "/stored.gguf", M1_WEIGHTS_STORED, &err));
		b = open_source(SCRATCH "/stored.gguf", &to);
		assert_string_equal(m1_source_name(b), "stored");
		assert_same_config(from, to);
		assert_ok(m1_source_checkpoint(a, &x, &err));
		assert_ok(m1_source_checkpoint(b, &y, &err));
		assert_same_weights(x, y, &from);
		m1_checkpoint_close(x);
		m1_checkpoint_close(y);
		m1_source_close(a);
		m1_source_close(b);
	}
}

static void
assert_same_ids(const m1_tokenizer *a, const m1_tokenizer *b, m1_slice text, m1_added_tokens added)
{
	m1_ids x = {0};
	m1_ids y = {0};
	m1_error err;

	assert_ok(m1_tokenizer_encode(a, text, added, &x, NULL, NULL, &err));
	assert_ok(m1_tokenizer_encode(b, text, added, &y, NULL, NULL, &err));
	assert_int_equal(x.len, y.len);
	if (x.len > 0)
		assert_memory_equal(x.data, y.data, x.len * sizeof *x.data);
	m1_ids_free(&x);
	m1_ids_free(&y);
}

static void
test_tokenizer(void **state)
{
	json_t *cases = json_load_file("test/data/tokenizer_cases.json", JSON_ALLOW_NUL, NULL);
	json_t *chats = json_load_file(NANO "/greedy_cases.json", 0, NULL);
	static m1_config from, to;
	m1_source *source_a = open_source(NANO, &from);
	m1_source *source_b;
	m1_tokenizer *a;
	m1_tokenizer *b;
	m1_error err;
	size_t i;
	json_t *c;

	(void) state;
	assert_ok(convert(NANO, SCRATCH "/nano.gguf", M1_WEIGHTS_Q8_0, &err));
	source_b = open_source(SCRATCH "/nano.gguf", &to);
	assert_ok(m1_source_tokenizer(source_a, from.vocab_size, &a, &err));
	assert_ok(m1_source_tokenizer(source_b, to.vocab_size, &b, &err));
	m1_source_close(source_a);
	m1_source_close(source_b); /* an open tokenizer needs it no longer */
	for (int32_t id = 0; id < from.vocab_size; id++)
	{
		m1_slice x = m1_tokenizer_piece(a, id);
		m1_slice y = m1_tokenizer_piece(b, id);

		assert_int_equal(x.data == NULL, y.data == NULL);
		assert_int_equal(x.len, y.len);
		if (x.data != NULL)
			assert_memory_equal(x.data, y.data, x.len);
		assert_int_equal(m1_tokenizer_is_special(a, id), m1_tokenizer_is_special(b, id));
	}
	assert_int_equal(m1_tokenizer_eos(a), m1_tokenizer_eos(b));
	assert_int_equal(m1_tokenizer_added_id(a, "<think>"), m1_tokenizer_added_id(b, "<think>"));
	assert_true(json_array_size(cases) > 30 && json_array_size(chats) > 5);
	json_array_foreach (cases, i, c)
	{
		const json_t *text = json_object_get(c, "text");
		const m1_slice s = {json_string_value(text), json_string_length(text)};

		assert_same_ids(a, b, s, M1_ADDED_NONE);
		assert_same_ids(a, b, s, M1_ADDED_ALL);
	}
	json_array_foreach (chats, i, c)
		assert_same_ids(a, b, m1_slice_of(json_string_value(json_object_get(c, "user"))), M1_ADDED_ALL);
	assert_same_ids(a, b, m1_slice_of("<think>a</think><end_of_sentence>"), M1_ADDED_PLAIN);
	m1_tokenizer_close(a);
	m1_tokenizer_close(b);
	json_decref(cases);
	json_decref(chats);
}

/* The released tokenizer, all 200,064 rows of it, by way of a file that holds nothing else. */
static void
test_released_tokenizer(void **state)
{
	json_t *cases = json_load_file("test/data/tokenizer_cases.json", JSON_ALLOW_NUL, NULL);
	m1_tokenizer *t;
	m1_tokenizer *back;
	m1_gguf_writer *w;
	m1_gguf *g;
	m1_error err;
	size_t i;
	json_t *c;

	(void) state;
	mkdir("build", 0777);
	mkdir(SCRATCH, 0777);
	assert_ok(m1_tokenizer_open("test/data", 200064, &t, &err));
	assert_ok(m1_gguf_writer_create(SCRATCH "/tokenizer.gguf", true, &w, &err));
	assert_ok(m1_tokenizer_write_gguf(t, w, &err));
	assert_ok(m1_gguf_writer_begin(w, &err));
	assert_ok(m1_gguf_writer_finish(w, &err));
	m1_gguf_writer_free(w);
	assert_ok(m1_gguf_open(SCRATCH, "tokenizer.gguf", &g, &err));
	assert_ok(m1_tokenizer_open_gguf(g, 200064, &back, &err));
	m1_gguf_close(g);
	json_array_foreach (cases, i, c)
	{
		const json_t *text = json_object_get(c, "text");
		const json_t *want = json_object_get(c, "ids");
		m1_ids got = {0};

		assert_ok(m1_tokenizer_encode(back, (m1_slice){json_string_value(text), json_string_length(text)},
									  M1_ADDED_NONE, &got, NULL, NULL, &err));
		assert_int_equal(got.len, json_array_size(want));
		for (size_t k = 0; k < got.len; k++)
			assert_int_equal(got.data[k], json_integer_value(json_array_get(want, k)));
		m1_ids_free(&got);
	}
	assert_int_equal(m1_tokenizer_eos(back), 200020);
	assert_int_equal(m1_tokenizer_added_id(back, "<begin_of_document>"), 200034);
	assert_null(m1_tokenizer_piece(back, 200030).data);
	m1_tokenizer_close(t);
	m1_tokenizer_close(back);
	json_decref(cases);
}

/* ---- quantized ---- */

/* Others find M1's chat form in the file, as it is in the folder; m1-nano has it, too. */
static void
test_chat_template(void **state)
{
	json_t *config = json_load_file(NANO "/tokenizer_config.json", 0, NULL);
	const char *template = json_string_value(json_object_get(config, "chat_template"));
	m1_source *s;
	m1_config read;
	m1_error err;
	m1_slice text;

	(void) state;
	assert_non_null(template);
	assert_non_null(strstr(template, "<beginning_of_sentence>ai name=assistant"));
	assert_ok(convert(NANO, SCRATCH "/template.gguf", M1_WEIGHTS_Q8_0, &err));
	s = open_source(SCRATCH "/template.gguf", &read);
	text = m1_gguf_text(m1_gguf_find(m1_source_gguf(s), "tokenizer.chat_template"));
	assert_int_equal(text.len, strlen(template));
	assert_memory_equal(text.data, template, text.len);
	m1_source_close(s);
	json_decref(config);
}

/* The converter and quantizing on load give the same weights, bit by bit. */
static void
test_same_as_on_load(void **state)
{
	static const m1_weight_format formats[] = {M1_WEIGHTS_Q8_0, M1_WEIGHTS_Q4};
	m1_error err;

	(void) state;
	for (size_t f = 0; f < 2; f++)
	{
		m1_model_options options = {
			.path = NANO, .device = "cpu", .threads = 2, .max_sequences = 1, .max_batch_tokens = 16, .max_context = 64};
		m1_model *loaded;
		m1_model *converted;

		options.weight_format = formats[f];
		assert_ok(m1_model_open(&options, &loaded, &err));
		assert_ok(convert(NANO, SCRATCH "/quantized.gguf", formats[f], &err));
		options.path = SCRATCH "/quantized.gguf";
		options.weight_format = M1_WEIGHTS_STORED;
		assert_ok(m1_model_open(&options, &converted, &err));
		assert_int_equal(loaded->weight_bytes, converted->weight_bytes);
		assert_int_equal(loaded->weights.parameters, converted->weights.parameters);
		assert_int_equal(loaded->weights.layers[0].qkv.type, formats[f] == M1_WEIGHTS_Q8_0 ? M1B_Q8_0 : M1B_Q4_0);
		assert_int_equal(converted->weights.layers[7].w2[3].type, loaded->weights.layers[0].qkv.type);
		assert_int_equal(loaded->weights.head.type, M1B_BF16);
		assert_int_equal(loaded->weights.embed.type, M1B_BF16);
		assert_int_equal(loaded->weights.layers[0].router.type, M1B_F32);
		m1_model_close(loaded);
		m1_model_close(converted);
		/* a file that is quantized stays as it is */
		options.weight_format = M1_WEIGHTS_Q4;
		assert_ok(m1_model_open(&options, &loaded, &err));
		assert_int_equal(loaded->weights.layers[0].qkv.type, formats[f] == M1_WEIGHTS_Q8_0 ? M1B_Q8_0 : M1B_Q4_0);
		m1_model_close(loaded);
	}
}

static void
test_types(void **state)
{
	m1_weight w = {.type = M1B_BF16, .rows = 8, .cols = 512};

	(void) state;
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_W1, &w), M1B_Q4_K);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q8_0, M1_ROLE_QKV, &w), M1B_Q8_0);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_STORED, M1_ROLE_QKV, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_ROUTER, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_HEAD, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_EMBED, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_FP8, M1_ROLE_W1, &w), M1B_F8_E4M3);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_FP8, M1_ROLE_ROUTER, &w), M1B_BF16);
	w.cols = 96;
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_FP8, M1_ROLE_W1, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_W1, &w), M1B_Q4_0);
	w.cols = 40; /* no block divides it */
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q4, M1_ROLE_W1, &w), M1B_BF16);
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q8_0, M1_ROLE_W1, &w), M1B_BF16);
	w.cols = 512;
	w.type = M1B_Q6_K;
	assert_int_equal(m1_weight_format_type(M1_WEIGHTS_Q8_0, M1_ROLE_W1, &w), M1B_Q6_K);
}

/* ---- what is refused ---- */

static int
files_in_folder(void)
{
	DIR *folder = opendir(SCRATCH "/empty");
	const struct dirent *entry;
	int n = 0;

	assert_non_null(folder);
	while ((entry = readdir(folder)) != NULL)
		n += entry->d_name[0] != '.';
	closedir(folder);
	return n;
}

static bool
stop_halfway(void *context, const m1_convert_progress *p)
{
	uint64_t *seen = context;

	assert_true(p->done >= *seen && p->done <= p->total);
	*seen = p->done;
	return p->done < p->total / 2;
}

static void
test_failures_leave_nothing(void **state)
{
	m1_convert_options options = {
		.in = TINY, .out = SCRATCH "/empty/out.gguf", .format = M1_WEIGHTS_Q8_0, .threads = 2};
	struct rlimit limit;
	struct rlimit small;
	uint64_t seen = 0;
	m1_error err;

	(void) state;
	mkdir("build", 0777);
	mkdir(SCRATCH, 0777);
	mkdir(SCRATCH "/empty", 0777);
	unlink(options.out);
	options.progress = stop_halfway;
	options.context = &seen;
	assert_int_equal(m1_convert(&options, &err), M1_E_CANCELLED);
	assert_true(seen > 0);
	options.progress = NULL;
	assert_int_equal(files_in_folder(), 0);

	/* a disk without room */
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){100000, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(m1_convert(&options, &err), M1_E_IO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_non_null(strstr(err.message, "no room for"));
	assert_int_equal(files_in_folder(), 0);

	assert_ok(m1_convert(&options, &err));
	assert_int_equal(files_in_folder(), 1);
	assert_int_equal(m1_convert(&options, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "exists already"));
	options.replace = true;
	assert_ok(m1_convert(&options, &err));
	options.in = options.out;
	assert_int_equal(m1_convert(&options, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "is quantized already"));
	options.format = M1_WEIGHTS_STORED; /* which may even replace what it reads */
	assert_ok(m1_convert(&options, &err));
	assert_int_equal(files_in_folder(), 1);
	options.out = SCRATCH "/no such folder/out.gguf";
	assert_int_equal(m1_convert(&options, &err), M1_E_IO);
	options.out = SCRATCH "/empty";
	assert_int_equal(m1_convert(&options, &err), M1_E_INVALID_ARGUMENT);
	options.in = "build/no such model";
	assert_int_equal(m1_convert(&options, &err), M1_E_NOT_FOUND);
}

/* The tiny checkpoint with one text of its config.json replaced, or with a weight that is no number. */
static void
make_folder(const char *find, const char *put)
{
	json_error_t why;
	json_t *root = json_load_file(TINY "/config.json", 0, &why);
	json_t *edit = json_loads(put, JSON_DECODE_ANY, &why);

	assert_true(root != NULL && edit != NULL);
	json_object_set_new(root, find, edit);
	mkdir(SCRATCH, 0777);
	mkdir(SCRATCH "/folder", 0777);
	assert_int_equal(json_dump_file(root, SCRATCH "/folder/config.json", 0), 0);
	json_decref(root);
	test_link(TINY "/model.safetensors", SCRATCH "/folder/model.safetensors");
}

static void
test_unsupported_configs(void **state)
{
	static const struct
	{
		const char *find, *put, *says;
	} edits[] = {
		{"layernorm_mlp_alpha", "1.25", "residual weights"},
		{"layernorm_full_attention_alpha", "1.25", "residual weights"},
		{"layernorm_linear_attention_beta", "0.5", "residual weights"},
		{"postnorm", "false", "postnorm"},
	};
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		make_folder(edits[i].find, edits[i].put);
		assert_int_equal(convert(SCRATCH "/folder", SCRATCH "/refused.gguf", M1_WEIGHTS_Q8_0, &err), M1_E_UNSUPPORTED);
		assert_non_null(strstr(err.message, edits[i].says));
		assert_int_not_equal(access(SCRATCH "/refused.gguf", F_OK), 0);
	}
}

static void
copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb");
	FILE *out = fopen(to, "wb");
	char block[65536];
	size_t n;

	assert_true(in != NULL && out != NULL);
	while ((n = fread(block, 1, sizeof block, in)) > 0)
		assert_int_equal(fwrite(block, 1, n, out), n);
	fclose(in);
	fclose(out);
}

/* Overwrites bytes of a file, at an offset after the first place of a text in its first 64 kB. */
static void
patch(const char *path, const char *find, size_t after, const void *bytes, size_t n)
{
	const int fd = open(path, O_RDWR);
	char *head = malloc(65536);
	const ssize_t got = fd >= 0 && head != NULL ? pread(fd, head, 65536, 0) : -1;
	const char *at = got > 0 ? memmem(head, (size_t) got, find, strlen(find)) : NULL;

	assert_non_null(at);
	assert_int_equal(pwrite(fd, bytes, n, at - head + (ssize_t) (strlen(find) + after)), n);
	free(head);
	close(fd);
}

static m1_status
open_model(const char *path, m1_weight_format format, m1_error *err)
{
	m1_model_options options = {.path = path,
								.device = "cpu",
								.threads = 1,
								.max_sequences = 1,
								.max_batch_tokens = 16,
								.max_context = 64,
								.weight_format = format};
	m1_model *m;
	m1_status status = m1_model_open(&options, &m, err);

	m1_model_close(m);
	return status;
}

static void
test_not_a_number(void **state)
{
	static const float nan_bits = NAN;
	m1_error err;

	(void) state;
	make_folder("use_cache", "true");
	unlink(SCRATCH "/folder/model.safetensors");
	copy_file(TINY "/model.safetensors", SCRATCH "/folder/model.safetensors");
	{
		m1_checkpoint *c;
		const m1_tensor *t;
		const m1_tensor *first;
		const int fd = open(SCRATCH "/folder/model.safetensors", O_RDWR);
		long header = 0;

		assert_int_equal(pread(fd, &header, sizeof header, 0), sizeof header);
		assert_ok(m1_checkpoint_open(SCRATCH "/folder", &c, &err));
		t = m1_checkpoint_find(c, "model.layers.2.self_attn.qkv_proj.weight");
		first = m1_checkpoint_tensor(c, 0);
		for (size_t i = 0; i < m1_checkpoint_tensors(c); i++)
			if (m1_checkpoint_tensor(c, i)->data < first->data)
				first = m1_checkpoint_tensor(c, i);
		assert_int_equal(pwrite(fd, &nan_bits, sizeof nan_bits,
								8 + header + ((const char *) t->data - (const char *) first->data) + 400),
						 sizeof nan_bits);
		m1_checkpoint_close(c);
		close(fd);
	}
	assert_int_equal(convert(SCRATCH "/folder", SCRATCH "/refused.gguf", M1_WEIGHTS_Q8_0, &err), M1_E_CORRUPT);
	assert_non_null(strstr(err.message, "\"model.layers.2.self_attn.qkv_proj.weight\" cannot be quantized"));
	assert_int_not_equal(access(SCRATCH "/refused.gguf", F_OK), 0);
	assert_int_equal(open_model(SCRATCH "/folder", M1_WEIGHTS_Q4, &err), M1_E_CORRUPT);
	assert_non_null(strstr(err.message, "cannot be quantized"));
	unlink(SCRATCH "/folder/model.safetensors");
}

/* Keys of a good file, changed in place: a value after the key's name and its type, or a letter of the name. */
static void
test_damaged_keys(void **state)
{
	static const struct
	{
		const char *find;
		size_t after;
		const char *bytes;
		size_t n;
		m1_status status;
		const char *says;
	} edits[] = {
		{"general.architecture", 12, "llama", 5, M1_E_UNSUPPORTED, "general.architecture names no architecture"},
		{"minimax-01.block_count", 4, "\0", 1, M1_E_CORRUPT, "minimax-01.block_count must be a whole number"},
		{"minimax-01.block_count", 4, "\x09", 1, M1_E_NOT_FOUND, "\"blk.8.attn_"},
		{"minimax-01.block_count", 4, "\x07", 1, M1_E_UNSUPPORTED, "\"blk.7."},
		{"minimax-01.block_coun", 0, "x", 1, M1_E_CORRUPT, "minimax-01.block_count is missing"},
		{"minimax-01.expert_used_count", 4, "\xff", 1, M1_E_CORRUPT, "minimax-01.expert_used_count must be"},
		{"minimax-01.expert_count", 4, "\x09", 1, M1_E_CORRUPT, "\"blk.0.ffn_gate_inp.weight\" has the wrong shape"},
		{"minimax-01.attention.head_count_kv", 4, "\x03", 1, M1_E_CORRUPT,
		 "minimax-01.attention.head_count_kv must divide"},
		{"minimax-01.attention.value_length", 4, "\x03", 1, M1_E_UNSUPPORTED, "minimax-01.attention.value_length"},
		{"minimax-01.attention.key_length", 4, "\x03", 1, M1_E_CORRUPT, "minimax-01.rope.dimension_count"},
		{"minimax-01.rope.freq_base", 7, "\x7f\x7f", 1, M1_E_CORRUPT, "minimax-01.rope.freq_base must be a number"},
		{"minimax-01.residual_scale", 4, "\xff\xff\xff\xff", 4, M1_E_CORRUPT,
		 "minimax-01.residual_scale must be a number"},
		{"minimax-01.residual_scal", 0, "x", 1, M1_E_CORRUPT, "minimax-01.residual_scale is missing"},
		{"minimax-01.full_attention_interval", 4, "\0", 1, M1_E_CORRUPT, "full_attention_interval must be"},
		{"minimax-01.full_attention_interval", 4, "\x04", 1, M1_E_NOT_FOUND, "\"blk.3.attn_q.weight\" is missing"},
		{"minimax-01.full_attention_interva", 0, "x", 1, M1_E_UNSUPPORTED, "full_attention_intervax is not supported"},
		{"minimax-01.vocab_size", 4, "\x01", 1, M1_E_CORRUPT, "tokenizer.ggml.tokens does not fit"},
		{"blk.3.attn_qk", 0, "x", 1, M1_E_NOT_FOUND, "\"blk.3.attn_qkv.weight\" is missing"},
		{"tokenizer.ggml.model", 12, "gpt3", 4, M1_E_UNSUPPORTED, "tokenizer.ggml.model must be gpt2"},
		{"tokenizer.ggml.pre", 12, "minimax-m9", 10, M1_E_UNSUPPORTED, "tokenizer.ggml.pre names no"},
		{"tokenizer.ggml.eos_token_id", 4, "\x05\0", 2, M1_E_CORRUPT, "tokenizer.ggml.eos_token_id is not the id"},
		{"tokenizer.ggml.token_typ", 0, "x", 1, M1_E_CORRUPT, "tokenizer.ggml.token_type is missing"},
		{"tokenizer.ggml.token_type", 16, "\x09", 1, M1_E_CORRUPT, "token 0 has an unknown type"},
		{"tokenizer.ggml.token_type", 16, "\x05", 1, M1_E_CORRUPT, "no token for byte 0"},
		{"tokenizer.ggml.token_type", 16 + 4 * 256, "\x05", 1, M1_E_CORRUPT, "names an unknown token"},
		{"tokenizer.ggml.token", 0, "x", 1, M1_E_CORRUPT, "tokenizer.ggml.tokens is missing"},
		{"tokenizer.ggml.merges", 24, "ee", 2, M1_E_CORRUPT, "merge 0"},
		{"tokenizer.ggml.mode", 0, "x", 1, M1_OK, NULL}, /* without a tokenizer it takes ids */
	};
	m1_error err;

	(void) state;
	assert_ok(convert(NANO, SCRATCH "/good.gguf", M1_WEIGHTS_Q4, &err));
	assert_ok(open_model(SCRATCH "/good.gguf", M1_WEIGHTS_STORED, &err));
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		m1_status status;

		copy_file(SCRATCH "/good.gguf", SCRATCH "/damaged.gguf");
		patch(SCRATCH "/damaged.gguf", edits[i].find, edits[i].after, edits[i].bytes, edits[i].n);
		status = open_model(SCRATCH "/damaged.gguf", M1_WEIGHTS_STORED, &err);
		if (status != edits[i].status || (edits[i].says != NULL && strstr(err.message, edits[i].says) == NULL))
			fail_msg("%s: %s \"%s\" (%s)", edits[i].find, m1_status_name(status), err.message, err.detail);
	}
}

/* A path may be the file, or a folder with just that file. */
static void
test_paths(void **state)
{
	m1_error err;
	m1_source *s;

	(void) state;
	mkdir(SCRATCH, 0777);
	mkdir(SCRATCH "/one", 0777);
	unlink(SCRATCH "/one/b.gguf");
	unlink(SCRATCH "/one/config.json");
	assert_ok(convert(TINY, SCRATCH "/one/a.gguf", M1_WEIGHTS_Q8_0, &err));
	assert_ok(open_model(SCRATCH "/one", M1_WEIGHTS_STORED, &err));
	assert_ok(open_model(SCRATCH "/one/", M1_WEIGHTS_STORED, &err));
	assert_ok(m1_source_open(SCRATCH "/one/", &s, &err));
	assert_string_equal(m1_source_name(s), "one");
	m1_source_close(s);
	copy_file(SCRATCH "/one/a.gguf", SCRATCH "/one/b.gguf");
	assert_int_equal(open_model(SCRATCH "/one", M1_WEIGHTS_STORED, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "several GGUF files"));
	/* with a config it is a folder like any other */
	copy_file(TINY "/config.json", SCRATCH "/one/config.json");
	assert_int_equal(open_model(SCRATCH "/one", M1_WEIGHTS_STORED, &err), M1_E_NOT_FOUND);
	assert_int_equal(open_model(TINY "/config.json", M1_WEIGHTS_STORED, &err), M1_E_CORRUPT);
	assert_non_null(strstr(err.message, "not a GGUF file"));
	assert_int_equal(open_model("/dev/null", M1_WEIGHTS_STORED, &err), M1_E_INVALID_ARGUMENT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stored),
		cmocka_unit_test(test_tokenizer),
		cmocka_unit_test(test_released_tokenizer),
		cmocka_unit_test(test_chat_template),
		cmocka_unit_test(test_same_as_on_load),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_failures_leave_nothing),
		cmocka_unit_test(test_unsupported_configs),
		cmocka_unit_test(test_not_a_number),
		cmocka_unit_test(test_damaged_keys),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
