/*
 * test_checkpoint.c - checkpoint folders that are wrong in every way we could think of give one
 * error that names the place; nothing is read outside the file.
 */
#define _GNU_SOURCE /* symlink */
#include "testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "files/checkpoint.h"
#include "model/config.h"
#include "model/model.h"

#define DIR TEST_BUILD "/test_checkpoint"
#define TINY "test/checkpoints/tiny-f32"

static void
remove_file(const char *name)
{
	char path[128];

	snprintf(path, sizeof path, DIR "/%s", name);
	unlink(path);
}

/* A safetensors file of a header and some bytes of data. */
static void
write_safetensors(const char *name, const char *header, size_t data_bytes)
{
	m1_buf file = {0};
	uint64_t length = strlen(header);

	m1_buf_append(&file, &length, 8);
	m1_buf_puts(&file, header);
	for (size_t i = 0; i < data_bytes; i++)
		m1_buf_append(&file, "", 1);
	test_write_file(DIR, name, file.data, file.len);
	m1_buf_free(&file);
}

static m1_status
open_folder(m1_error *err)
{
	m1_checkpoint *c;
	m1_status status = m1_checkpoint_open(DIR, &c, err);

	if (status == M1_OK)
		m1_checkpoint_close(c);
	return status;
}

static void
assert_refused(m1_status status, const m1_error *err, m1_status want, const char *says)
{
	if (status != want || strstr(err->message, says) == NULL)
		fail_msg("%s: \"%s\" where \"%s\" was expected", m1_status_name(status), err->message, says);
}

static void
test_headers(void **state)
{
	static const struct
	{
		const char *header, *says;
	} bad[] = {
		{"nonsense", "header is not a JSON object"},
		{"[1]", "header is not a JSON object"},
		{"{\"a\": 1}", "\"a\" has an unknown dtype"},
		{"{\"a\": {\"dtype\": \"F33\", \"shape\": [1], \"data_offsets\": [0, 4]}}", "\"a\" has an unknown dtype"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": 1, \"data_offsets\": [0, 4]}}", "\"a\" has no shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1,1], \"data_offsets\": [0, 4]}}",
		 "\"a\" has no shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [-1], \"data_offsets\": [0, 4]}}", "impossible shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [4611686018427387904, 16], \"data_offsets\": [0, 4]}}",
		 "impossible shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [4611686018427387905], \"data_offsets\": [0, 4]}}",
		 "do not match its shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1]}}", "malformed data_offsets"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 0]}}", "malformed data_offsets"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [-4, 0]}}", "malformed data_offsets"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 8]}}", "do not match its shape"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 12]}}", "beyond the end of the file"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [9223372036854775800, 9223372036854775804]}}",
		 "beyond the end of the file"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
		 " \"b\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [2, 6]}}",
		 "\"b\" overlaps another tensor"},
		{"{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]},"
		 " \"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [4, 8]}}",
		 "header is not a JSON object"},
	};
	m1_error err;

	(void) state;
	remove_file("model.safetensors"); /* a link, where a run was interrupted */
	remove_file("model.safetensors.index.json");
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
	{
		write_safetensors("model.safetensors", bad[i].header, 8);
		assert_refused(open_folder(&err), &err, M1_E_CORRUPT, bad[i].says);
	}
	write_safetensors(
		"model.safetensors",
		"{\"__metadata__\": {\"x\": \"y\"}, \"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}", 8);
	assert_int_equal(open_folder(&err), M1_OK);
}

static void
test_header_lengths(void **state)
{
	static const uint64_t lengths[] = {0, 1, 9, 1u << 30, UINT64_MAX, UINT64_MAX - 7, (uint64_t) 1 << 63};
	char file[16];
	m1_error err;

	(void) state;
	remove_file("model.safetensors.index.json");
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
	{
		memcpy(file, &lengths[i], 8);
		memset(file + 8, '{', 8);
		test_write_file(DIR, "model.safetensors", file, sizeof file);
		assert_refused(open_folder(&err), &err, M1_E_CORRUPT, "absurd header length");
	}
	test_write_file(DIR, "model.safetensors", file, 5);
	assert_refused(open_folder(&err), &err, M1_E_CORRUPT, "too short");
	remove_file("model.safetensors");
	assert_refused(open_folder(&err), &err, M1_E_NOT_FOUND, "model.safetensors");
}

static void
test_index(void **state)
{
	static const struct
	{
		const char *index;
		m1_status status;
		const char *says;
	} bad[] = {
		{"{", M1_E_CORRUPT, "not valid JSON"},
		{"{}", M1_E_CORRUPT, "weight_map"},
		{"{\"weight_map\": {}}", M1_E_CORRUPT, "weight_map"},
		{"{\"weight_map\": {\"a\": 1}}", M1_E_CORRUPT, "no plain file name"},
		{"{\"weight_map\": {\"a\": \"../../../etc/passwd\"}}", M1_E_CORRUPT, "no plain file name"},
		{"{\"weight_map\": {\"a\": \"missing.safetensors\"}}", M1_E_NOT_FOUND, "missing.safetensors"},
		{"{\"weight_map\": {\"zzz\": \"model.safetensors\"}}", M1_E_CORRUPT, "\"zzz\" is promised by the index"},
	};
	m1_error err;

	(void) state;
	write_safetensors("model.safetensors", "{\"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}",
					  4);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
	{
		test_write_file(DIR, "model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
		assert_refused(open_folder(&err), &err, bad[i].status, bad[i].says);
	}
	remove_file("model.safetensors.index.json");
}

/* jansson itself takes a NUL behind a number for nothing. */
static void
test_nul(void **state)
{
	static const char index[] = "{\"x\": 1\0, \"weight_map\": {\"a\": \"model.safetensors\"}}";
	static const char header[] = "{\"a\": {\"dtype\": \"F32\", \"shape\": [1\0], \"data_offsets\": [0, 1]}}";
	uint64_t length = sizeof header - 1;
	m1_buf file = {0};
	m1_error err;

	(void) state;
	test_write_file(DIR, "model.safetensors.index.json", index, sizeof index - 1);
	assert_refused(open_folder(&err), &err, M1_E_CORRUPT, "\"model.safetensors.index.json\" is not valid JSON");
	assert_string_equal(err.detail, "At byte 7: a NUL.");
	remove_file("model.safetensors.index.json");
	m1_buf_append(&file, &length, 8);
	m1_buf_append(&file, header, length + 1);
	test_write_file(DIR, "model.safetensors", file.data, file.len);
	assert_refused(open_folder(&err), &err, M1_E_CORRUPT, "\"model.safetensors\" is not valid JSON");
	m1_buf_free(&file);
}

/* The file's text with `find` replaced by `put`, written to the test folder. */
static void
edit_file(const char *name, const char *find, const char *put)
{
	char path[128];
	m1_buf text = {0};
	m1_buf edited = {0};
	FILE *f;
	const char *at;
	int c;

	snprintf(path, sizeof path, TINY "/%s", name);
	f = fopen(path, "rb");
	assert_non_null(f);
	while ((c = getc(f)) != EOF)
		m1_buf_append(&text, &(char){(char) c}, 1);
	fclose(f);
	at = strstr(m1_buf_cstr(&text), find);
	assert_non_null(at);
	m1_buf_append(&edited, text.data, (size_t) (at - text.data));
	m1_buf_puts(&edited, put);
	m1_buf_puts(&edited, at + strlen(find));
	test_write_file(DIR, name, edited.data, edited.len);
	m1_buf_free(&text);
	m1_buf_free(&edited);
}

#define ROPE(members) "\"rope_theta\": 10000000", "\"rope_parameters\": {" members "}"

static void
test_config(void **state)
{
	static const struct
	{
		const char *find, *put;
		m1_status status;
		const char *says;
	} edits[] = {
		{"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", M1_E_UNSUPPORTED, "hidden_act"},
		{"\"shared_intermediate_size\": 0", "\"shared_intermediate_size\": 64", M1_E_UNSUPPORTED,
		 "shared_intermediate_size"},
		{"\"sliding_window\": null", "\"sliding_window\": 4096", M1_E_UNSUPPORTED, "sliding_window"},
		{"\"use_cache\"", "\"rope_scaling\": {}, \"use_cache\"", M1_E_UNSUPPORTED, "rope_scaling"},
		{"\"use_cache\"", "\"qkv_bias\": true, \"use_cache\"", M1_E_UNSUPPORTED, "qkv_bias"},
		{"MiniMaxM1ForCausalLM", "LlamaForCausalLM", M1_E_UNSUPPORTED, "architectures"},
		{"\"hidden_size\": 64", "\"hidden_size\": -64", M1_E_CORRUPT, "hidden_size"},
		{"\"hidden_size\": 64", "\"hidden_size\": \"64\"", M1_E_CORRUPT, "hidden_size"},
		{"\"hidden_size\": 64,", "", M1_E_CORRUPT, "hidden_size is missing"},
		{"\"num_hidden_layers\": 8", "\"num_hidden_layers\": 9", M1_E_CORRUPT, "attn_type_list"},
		{"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", M1_E_CORRUPT, "num_key_value_heads"},
		{"\"rotary_dim\": 8", "\"rotary_dim\": 7", M1_E_CORRUPT, "rotary_dim"},
		{"\"rotary_dim\": 8", "\"rotary_dim\": 32", M1_E_CORRUPT, "rotary_dim"},
		{"\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5", M1_E_CORRUPT, "num_experts_per_tok"},
		{"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", M1_E_CORRUPT, "rms_norm_eps"},
		{"\"postnorm\": true", "\"postnorm\": 1", M1_E_CORRUPT, "postnorm"},
		/* what is not known might change the arithmetic */
		{"\"use_cache\"", "\"logit_scale\": 2.0, \"use_cache\"", M1_E_UNSUPPORTED, "logit_scale is not supported"},
		{"\"use_cache\"", "\"swiglu_limit\": 7, \"use_cache\"", M1_E_UNSUPPORTED, "swiglu_limit is not supported"},
		{"\"use_cache\"", "\"\": false, \"use_cache\"", M1_E_UNSUPPORTED, "is not supported"},
		{"\"use_cache\"", "\"pruned_heads\": {\"0\": [1]}, \"use_cache\"", M1_E_UNSUPPORTED, "pruned_heads"},
		{"\"use_cache\"", "\"add_cross_attention\": true, \"use_cache\"", M1_E_UNSUPPORTED, "add_cross_attention"},
		{"\"shared_intermediate_size\": 0", "\"shared_intermediate_size\": [0, 8]", M1_E_UNSUPPORTED,
		 "shared_intermediate_size"},
		{"\"use_cache\"", "\"layer_types\": [\"full_attention\"], \"use_cache\"", M1_E_UNSUPPORTED, "layer_types"},
		/* the base of the rotary angles, and how many dimensions have them */
		{ROPE("\"rope_type\": \"yarn\", \"factor\": 4.0, \"rope_theta\": 1e7"), M1_E_UNSUPPORTED,
		 "rope_parameters.rope_type"},
		{ROPE("\"type\": \"linear\", \"rope_theta\": 1e7"), M1_E_UNSUPPORTED, "rope_parameters.type"},
		{ROPE("\"rope_type\": \"default\", \"factor\": 4.0, \"rope_theta\": 1e7"), M1_E_UNSUPPORTED,
		 "rope_parameters.factor is not supported"},
		{ROPE("\"full_attention\": {\"rope_theta\": 1e7}"), M1_E_UNSUPPORTED, "rope_parameters.full_attention"},
		{ROPE("\"rope_type\": \"default\""), M1_E_CORRUPT, "rope_parameters.rope_theta is missing"},
		{ROPE("\"rope_theta\": \"1e7\""), M1_E_CORRUPT, "rope_theta must be a number"},
		{ROPE("\"rope_theta\": 1e7, \"partial_rotary_factor\": 0.25"), M1_E_UNSUPPORTED, "partial_rotary_factor"},
		{"\"rope_theta\"", "\"rope_parameters\": {\"rope_theta\": 1e6}, \"rope_theta\"", M1_E_UNSUPPORTED,
		 "rope_theta is not what rope_parameters says"},
		{"\"rope_theta\"", "\"rope_parameters\": [], \"rope_theta\"", M1_E_CORRUPT, "rope_parameters"},
		{"\"use_cache\"", "\"partial_rotary_factor\": 1.0, \"use_cache\"", M1_E_UNSUPPORTED, "partial_rotary_factor"},
		{"\"rotary_dim\": 8", "\"partial_rotary_factor\": 0.3", M1_E_UNSUPPORTED, "partial_rotary_factor"},
		{"\"rotary_dim\": 8", "\"partial_rotary_factor\": 2", M1_E_CORRUPT, "partial_rotary_factor"},
	};
	m1_config config;
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		edit_file("config.json", edits[i].find, edits[i].put);
		assert_refused(m1_config_load(DIR, &config, &err), &err, edits[i].status, edits[i].says);
	}
	assert_int_equal(m1_config_load(TINY, &config, &err), M1_OK);
	assert_int_equal(m1_config_load("build/no such folder", &config, &err), M1_E_NOT_FOUND);
}

/* The ways in which releases and libraries write the same config. */
static void
test_config_of_others(void **state)
{
	static const struct
	{
		const char *find, *put;
	} edits[] = {
		{ROPE("\"rope_theta\": 10000000.0, \"rope_type\": \"default\"")},
		{ROPE("\"rope_theta\": 1e7, \"rope_type\": \"default\", \"partial_rotary_factor\": 0.5")},
		{ROPE("\"rope_theta\": 1e7, \"type\": null, \"factor\": null")},
		{"\"rope_theta\": 10000000", "\"rope_theta\": 1e7, \"rope_parameters\": {\"rope_theta\": 10000000}"},
		{"\"rotary_dim\": 8", "\"partial_rotary_factor\": 0.5"},
		{"\"rotary_dim\": 8", "\"rotary_dim\": 8, \"partial_rotary_factor\": 0.5"},
		{"\"shared_intermediate_size\": 0", "\"shared_intermediate_size\": [0]"},
		{"\"MiniMaxM1ForCausalLM\"", "\"MiniMaxText01ForCausalLM\""},
		{"\"minimax_m1\"", "\"minimax_text_01\""},
		{"\"use_cache\"",
		 "\"layer_types\": [\"linear_attention\", \"linear_attention\", \"linear_attention\", \"linear_attention\", "
		 "\"linear_attention\", \"linear_attention\", \"linear_attention\", \"full_attention\"], \"use_cache\""},
		{"\"use_cache\"",
		 "\"auto_map\": {\"AutoConfig\": \"configuration_minimax_m1.MiniMaxM1Config\"}, \"transformers_version\": "
		 "\"4.45.2\", \"torch_dtype\": \"bfloat16\", \"use_cache\""},
		{"\"use_cache\"",
		 "\"_attn_implementation_autoset\": false, \"add_cross_attention\": false, \"cross_attention_hidden_size\": "
		 "null, "
		 "\"dtype\": \"float32\", \"is_decoder\": false, \"prefix\": null, \"pruned_heads\": {}, "
		 "\"tie_encoder_decoder\": "
		 "false, \"torchscript\": false, \"use_bfloat16\": false, \"a_future_one\": null, \"use_cache\""},
	};
	m1_config want;
	m1_config got;
	m1_error err;

	(void) state;
	assert_ok(m1_config_load(TINY, &want, &err));
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++)
	{
		edit_file("config.json", edits[i].find, edits[i].put);
		assert_ok(m1_config_load(DIR, &got, &err));
		assert_int_equal(got.rotary_dim, want.rotary_dim);
		assert_true(got.rope_theta == want.rope_theta);
		assert_memory_equal(got.attention, want.attention, (size_t) want.layers);
	}
}

static m1_status
open_model(m1_error *err)
{
	m1_model_options options = {
		.path = DIR, .device = "cpu", .threads = 1, .max_sequences = 1, .max_batch_tokens = 16, .max_context = 64};
	m1_model *m;
	m1_status status = m1_model_open(&options, &m, err);

	if (status == M1_OK)
		m1_model_close(m);
	return status;
}

/* A config that asks for other tensors than the file has. */
static void
test_weights(void **state)
{
	m1_error err;

	(void) state;
	test_link(TINY "/model.safetensors", DIR "/model.safetensors");
	edit_file("config.json", "\"vocab_size\": 320", "\"vocab_size\": 320");
	assert_int_equal(open_model(&err), M1_OK);
	edit_file("config.json", "\"vocab_size\": 320", "\"vocab_size\": 321");
	assert_refused(open_model(&err), &err, M1_E_CORRUPT, "\"model.embed_tokens.weight\" has the wrong shape");
	assert_non_null(strstr(err.detail, "[320, 64] in model.safetensors; config.json asks for [321, 64]"));
	edit_file("config.json", "\"num_local_experts\": 4", "\"num_local_experts\": 5");
	assert_refused(open_model(&err), &err, M1_E_CORRUPT, "\"model.layers.0.block_sparse_moe.gate.weight\"");
	edit_file("config.json", "\"attn_type_list\": [\n  0", "\"attn_type_list\": [\n  1");
	assert_refused(open_model(&err), &err, M1_E_NOT_FOUND, "\"model.layers.0.self_attn.q_proj.weight\" is missing");
	remove_file("model.safetensors");
}

/* The released slopes for a number of heads that is no power of two: those of 4 heads, then every second of 8. */
static void
test_decay(void **state)
{
	static m1_config c = {.layers = 9, .heads = 6};
	const double slopes[] = {0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125};

	(void) state;
	for (int h = 0; h < 6; h++)
		for (int layer = 0; layer < 9; layer++)
			assert_true(fabs(m1_config_decay(&c, layer, h) - slopes[h] * (1 - layer / 8.0 + 1e-5)) < 1e-7);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers), cmocka_unit_test(test_header_lengths), cmocka_unit_test(test_index),
		cmocka_unit_test(test_nul),		cmocka_unit_test(test_config),		   cmocka_unit_test(test_config_of_others),
		cmocka_unit_test(test_weights), cmocka_unit_test(test_decay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
