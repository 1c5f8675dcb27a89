/*
 * test_fp8.c - checkpoints whose large matrices are F8_E4M3 with a scale for each 128 x 128 weights: they give what the
 * same numbers give as F32, to the bit; and every way in which numbers, scales and config do not belong together is one
 * error that names the place.
 */
#include "adapter_testing.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocks/blocks.h"
#include "base/buf.h"
#include "model/digest.h"
#include "model/forward.h"
#include "model/merge.h"
#include "model/model.h"

#define DIR TEST_BUILD "/test_fp8"
#define LAYERS 2
#define TOKENS 11
#define VOCAB 64

/* One lightning and one softmax layer; rows of 128, 256 and 384, and matrices whose last rows fill no block. */
#define CONFIG_OF_WIDTH(width, more)                                                                              \
	"{\"architectures\": [\"MiniMaxM1ForCausalLM\"], \"vocab_size\": 64, \"hidden_size\": 256, "                  \
	"\"num_hidden_layers\": 2, \"attn_type_list\": [0, 1], \"num_attention_heads\": 4, "                          \
	"\"num_key_value_heads\": 1, \"head_dim\": 32, \"rotary_dim\": 16, \"intermediate_size\": " width ", "        \
	"\"num_local_experts\": 2, \"num_experts_per_tok\": 1, \"postnorm\": true, \"max_position_embeddings\": 64, " \
	"\"layernorm_mlp_alpha\": 3.5" more "}"
#define CONFIG(more) CONFIG_OF_WIDTH("384", more)
#define BLOCKS ", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}"

typedef enum form
{
	FORM_F32,
	FORM_FP8,
	FORM_FP8_BF16, /* scales are BF16 */
} form;

/* A checkpoint that is being written, and what is to be wrong with it. */
typedef struct writer
{
	form form;
	m1_buf header;
	m1_buf data;
	uint64_t seed;
	const char *tensor; /* that these are about; NULL = none */
	const char *shape;	/* of its scales, instead of the right one; "" = it has none */
	const char *dtype;	/* of its scales */
	float scale;		/* instead of the first one; 0 = none */
	uint8_t number;		/* instead of the last one; 0 = none */
	bool other_type;	/* F8_E4M3 where floats belong, and the other way round */
} writer;

static void
put_tensor(writer *w, const char *name, const char *dtype, const char *shape, const void *data, size_t bytes)
{
	char entry[400];

	snprintf(entry, sizeof entry, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [%s], \"data_offsets\": [%zu, %zu]}",
			 w->header.len > 0 ? ", " : "{", name, dtype, shape, w->data.len, w->data.len + bytes);
	m1_buf_puts(&w->header, entry);
	m1_buf_append(&w->data, data, bytes);
}

/* Scales are powers of two times 1.5, which BF16 holds, too. */
static void
put_fp8(writer *w, const char *name, int rows, int cols)
{
	const int across = (cols + 127) / 128;
	const int down = (rows + 127) / 128;
	const size_t n = (size_t) rows * (size_t) cols;
	const bool marked = w->tensor != NULL && strcmp(w->tensor, name) == 0;
	const bool bf16 = w->form == FORM_FP8_BF16;
	const bool as_floats = w->form == FORM_F32 || (marked && w->other_type);
	uint8_t *numbers = malloc(n);
	float *floats = malloc(n * sizeof *floats);
	float scales[16];
	uint16_t halves[16];
	char scale_name[200];
	char shape[64];

	assert_true(numbers != NULL && floats != NULL && across * down <= 16);
	for (int i = 0; i < across * down; i++)
	{
		uint32_t bits;

		scales[i] = ldexpf(1.5f, -(int) (test_random(&w->seed) % 4) - 12);
		if (marked && i == 0 && w->scale != 0.0f)
			scales[i] = w->scale;
		memcpy(&bits, &scales[i], sizeof bits);
		halves[i] = (uint16_t) (bits >> 16);
	}
	for (size_t i = 0; i < n; i++)
	{
		numbers[i] = m1b_float_to_e4m3(448.0f * test_random_float(&w->seed));
		floats[i] = scales[(int) (i / (size_t) cols) / 128 * across + (int) (i % (size_t) cols) / 128] *
					m1b_e4m3_to_float(numbers[i]);
	}
	if (marked && w->number != 0)
		numbers[n - 1] = w->number;
	snprintf(shape, sizeof shape, "%d, %d", rows, cols);
	put_tensor(w, name, as_floats ? "F32" : "F8_E4M3", shape, as_floats ? (void *) floats : numbers,
			   as_floats ? n * sizeof *floats : n);
	if (w->form != FORM_F32)
	{
		const char *dtype = marked && w->dtype != NULL ? w->dtype : bf16 ? "BF16" : "F32";

		snprintf(shape, sizeof shape, "%d, %d", down, across);
		if (marked && w->shape != NULL)
			snprintf(shape, sizeof shape, "%s", w->shape);
		snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
		if (shape[0] != '\0')
			put_tensor(w, scale_name, dtype, shape, bf16 ? (void *) halves : scales,
					   (size_t) (across * down) * (bf16 || strcmp(dtype, "F16") == 0 ? 2 : 4));
	}
	free(numbers);
	free(floats);
}

static void
put_floats(writer *w, const char *name, int rows, int cols)
{
	const size_t n = (size_t) rows * (size_t) (cols > 0 ? cols : 1);
	const bool as_fp8 = w->other_type && strcmp(w->tensor, name) == 0;
	float *x = malloc(n * sizeof *x);
	char shape[64];

	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = 0.5f * test_random_float(&w->seed) + (cols == 0 ? 1.0f : 0.0f);
	snprintf(shape, sizeof shape, cols > 0 ? "%d, %d" : "%d", rows, cols);
	put_tensor(w, name, as_fp8 ? "F8_E4M3" : "F32", shape, x, as_fp8 ? n : n * sizeof *x);
	free(x);
}

static void
put_role(writer *w, m1_role role, const m1_config *c, int layer, int expert)
{
	char name[128];
	int rows, cols;

	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, name, sizeof name);
	m1_role_shape(role, c, &rows, &cols);
	if (m1_role_is_large(role))
		put_fp8(w, name, rows, cols);
	else
		put_floats(w, name, rows, cols);
}

/* A whole checkpoint in the folder; w says in which form, and what is wrong. */
static void
write_checkpoint(writer *w, const char *config)
{
	static m1_config c;
	m1_role roles[M1_ROLES];
	m1_buf file = {0};
	uint64_t length;
	m1_error err;

	test_write_file(DIR, "config.json", config, strlen(config));
	assert_ok(m1_config_load(DIR, &c, &err));
	w->seed = 42;
	put_role(w, M1_ROLE_EMBED, &c, 0, 0);
	put_role(w, M1_ROLE_FINAL_NORM, &c, 0, 0);
	put_role(w, M1_ROLE_HEAD, &c, 0, 0);
	for (int layer = 0; layer < LAYERS; layer++)
		for (int r = m1_roles_of_layer(&c, layer, roles) - 1; r >= 0; r--)
			for (int e = 0; e < (m1_role_of_expert(roles[r]) ? c.experts : 1); e++)
				put_role(w, roles[r], &c, layer, e);
	m1_buf_puts(&w->header, "}");
	length = w->header.len;
	m1_buf_append(&file, &length, 8);
	m1_buf_append(&file, w->header.data, w->header.len);
	m1_buf_append(&file, w->data.data, w->data.len);
	test_write_file(DIR, "model.safetensors", file.data, file.len);
	m1_buf_free(&w->header);
	m1_buf_free(&w->data);
	m1_buf_free(&file);
}

static m1_status
open_model(const char *isa, m1_weight_format format, m1_model **m, m1_error *err)
{
	const m1_model_options options = {.path = DIR,
									  .device = "cpu",
									  .isa = isa,
									  .weight_format = format,
									  .threads = 1,
									  .max_sequences = 1,
									  .max_batch_tokens = 16,
									  .max_context = 64};

	return m1_model_open(&options, m, err);
}

/* ---- what is right ---- */

static void
run(const char *isa, m1_weight_format format, m1b_dtype type, float logits[VOCAB])
{
	const int32_t tokens[TOKENS] = {1, 63, 5, 5, 0, 17, 40, 2, 33, 60, 9};
	const int last = TOKENS - 1;
	m1b_segment segment = {.n_tokens = TOKENS};
	m1b_batch batch = {.tokens = tokens, .n_tokens = TOKENS, .segments = &segment, .n_segments = 1};
	m1_model *m;
	m1_error err;

	assert_ok(open_model(isa, format, &m, &err));
	assert_int_equal(m->weights.layers[0].qkv.type, type);
	assert_int_equal(m->weights.layers[1].w2[1].type, type);
	assert_int_equal(m->weights.head.type, M1B_F32);
	assert_non_null(segment.state = m->backend->ops->state_acquire(m->backend, TOKENS));
	assert_ok(m1_forward(m, &batch, &last, 1, logits, &err));
	m1_model_close(m);
}

static void
test_as_the_floats(void **state)
{
	static const char *const isas[] = {"portable", NULL};
	float want[2][VOCAB];
	float got[VOCAB];

	(void) state;
	write_checkpoint(&(writer){.form = FORM_F32}, CONFIG(""));
	for (int i = 0; i < 2; i++)
		run(isas[i], M1_WEIGHTS_STORED, M1B_F32, want[i]);
	assert_true(isfinite(want[0][0]) && want[0][0] != want[0][1]);
	for (int with = FORM_FP8; with <= FORM_FP8_BF16; with++)
	{
		write_checkpoint(&(writer){.form = (form) with}, CONFIG(BLOCKS));
		for (int i = 0; i < 2; i++)
		{
			run(isas[i], M1_WEIGHTS_STORED, M1B_F8_E4M3, got);
			assert_memory_equal(got, want[i], sizeof got);
		}
		/* it is never quantized again */
		run(NULL, M1_WEIGHTS_Q8_0, M1B_F8_E4M3, got);
		assert_memory_equal(got, want[1], sizeof got);
	}
}

/* Floats become fp8 on load: near, but not the same. */
static void
test_on_load(void **state)
{
	float want[VOCAB];
	float got[VOCAB];
	double error = 0;
	double size = 0;

	(void) state;
	write_checkpoint(&(writer){.form = FORM_F32}, CONFIG(""));
	run(NULL, M1_WEIGHTS_STORED, M1B_F32, want);
	run(NULL, M1_WEIGHTS_FP8, M1B_F8_E4M3, got);
	for (int i = 0; i < VOCAB; i++)
	{
		error += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
		size += (double) want[i] * want[i];
	}
	assert_true(error > 0 && sqrt(error / size) < 0.1);
}

/* ---- what is wrong ---- */

#define QKV "model.layers.0.self_attn.qkv_proj.weight"
#define W2 "model.layers.1.block_sparse_moe.experts.1.w2.weight"

static void
assert_refused(m1_status want, const char *says, const char *detail)
{
	m1_model *m;
	m1_error err;
	const m1_status status = open_model(NULL, M1_WEIGHTS_STORED, &m, &err);

	if (status != want || strstr(err.message, says) == NULL || strstr(err.detail, detail) == NULL)
		fail_msg("%s: \"%s\" (%s) where \"%s\" (%s) was expected", m1_status_name(status), err.message, err.detail,
				 says, detail);
}

static void
test_scales(void **state)
{
	static const struct
	{
		writer w;
		m1_status status;
		const char *says, *detail;
	} cases[] = {
		{{.tensor = QKV, .shape = ""}, M1_E_NOT_FOUND, "\"" QKV "_scale_inv\" is missing", "scales of \"" QKV "\""},
		{{.tensor = QKV, .shape = "2, 3"},
		 M1_E_CORRUPT,
		 "\"" QKV "_scale_inv\" has the wrong shape",
		 "asks for [3, 2]"},
		{{.tensor = W2, .shape = "6"}, M1_E_CORRUPT, "\"" W2 "_scale_inv\" has the wrong shape", "[6]"},
		{{.tensor = W2, .dtype = "F16"}, M1_E_UNSUPPORTED, "\"" W2 "_scale_inv\" has a type", "F32 or BF16"},
		{{.tensor = W2, .dtype = "I32"}, M1_E_UNSUPPORTED, "\"" W2 "_scale_inv\" has a type", "I32"},
		{{.tensor = QKV, .scale = NAN}, M1_E_CORRUPT, "\"" QKV "_scale_inv\" cannot be used", "not a number"},
		{{.tensor = QKV, .scale = -1.0f}, M1_E_CORRUPT, "\"" QKV "_scale_inv\" cannot be used", "negative"},
		{{.tensor = QKV, .scale = INFINITY}, M1_E_CORRUPT, "\"" QKV "_scale_inv\" cannot be used", "infinite"},
		{{.tensor = W2, .number = 0xff}, M1_E_CORRUPT, "\"" W2 "\" cannot be used", "not a number"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		writer w = cases[i].w;

		w.form = FORM_FP8;
		write_checkpoint(&w, CONFIG(BLOCKS));
		assert_refused(cases[i].status, cases[i].says, cases[i].detail);
	}
}

static void
test_config(void **state)
{
	static const struct
	{
		const char *config, *says, *detail;
	} cases[] = {
		{CONFIG(""), "config.json: quantization_config is missing", "is F8_E4M3 in model.safetensors"},
		{CONFIG(", \"quantization_config\": {\"weight_block_size\": [128, 128]}"), "quantization_config.quant_method",
		 ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"gptq\"}"), "quantization_config.quant_method", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\"}"), "quantization_config.weight_block_size", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 64]}"),
		 "quantization_config.weight_block_size", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [1, 128]}"),
		 "quantization_config.weight_block_size", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e5m2\", \"weight_block_size\": "
				"[128, 128]}"),
		 "quantization_config.fmt", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"static\", "
				"\"weight_block_size\": [128, 128]}"),
		 "quantization_config.activation_scheme", ""},
		{CONFIG(", \"quantization_config\": \"fp8\""), "quantization_config.quant_method", ""},
		{CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"scale_fmt\": \"ue8m0\", "
				"\"weight_block_size\": [128, 128]}"),
		 "quantization_config.scale_fmt is not supported", ""},
	};
	m1_model *m;
	m1_error err;

	(void) state;
	write_checkpoint(&(writer){.form = FORM_FP8}, CONFIG(BLOCKS));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		test_write_file(DIR, "config.json", cases[i].config, strlen(cases[i].config));
		assert_refused(i == 0 ? M1_E_CORRUPT : M1_E_UNSUPPORTED, cases[i].says, cases[i].detail);
	}
	test_write_file(
		DIR, "config.json",
		CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", \"activation_scheme\": "
			   "\"dynamic\", \"weight_block_size\": [128, 128], \"modules_to_not_convert\": [\"lm_head\"]}"),
		strlen(CONFIG(", \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", "
					  "\"activation_scheme\": \"dynamic\", \"weight_block_size\": [128, 128], "
					  "\"modules_to_not_convert\": [\"lm_head\"]}")));
	assert_ok(open_model(NULL, M1_WEIGHTS_STORED, &m, &err));
	m1_model_close(m);
}

/* F8_E4M3 where nothing of that kind is known, and scales of a matrix of floats. */
static void
test_places(void **state)
{
	(void) state;
	write_checkpoint(&(writer){.form = FORM_FP8, .tensor = W2, .other_type = true}, CONFIG(BLOCKS));
	assert_refused(M1_E_CORRUPT, "\"" W2 "\" has scales that it has no use for", W2 "_scale_inv");
	write_checkpoint(&(writer){.form = FORM_FP8, .tensor = "lm_head.weight", .other_type = true}, CONFIG(BLOCKS));
	assert_refused(M1_E_UNSUPPORTED, "\"lm_head.weight\" has a type",
				   "only the projections of attention and the experts");
	write_checkpoint(&(writer){.form = FORM_FP8, .tensor = "model.norm.weight", .other_type = true}, CONFIG(BLOCKS));
	assert_refused(M1_E_UNSUPPORTED, "\"model.norm.weight\" has a type", "F8_E4M3");
	write_checkpoint(&(writer){.form = FORM_FP8}, CONFIG_OF_WIDTH("320", BLOCKS));
	assert_refused(M1_E_UNSUPPORTED, "experts.0.w2.weight\" has a width", "rows of 320");
}

static void
test_gguf(void **state)
{
	static const m1_weight_format formats[] = {M1_WEIGHTS_STORED, M1_WEIGHTS_Q8_0};
	m1_convert_options options = {.in = DIR, .out = DIR "/out.gguf", .replace = true, .threads = 1};
	m1_error err;

	(void) state;
	write_checkpoint(&(writer){.form = FORM_FP8}, CONFIG(BLOCKS));
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
	{
		options.format = formats[i];
		assert_int_equal(m1_convert(&options, &err), M1_E_UNSUPPORTED);
		assert_non_null(strstr(err.message, "a GGUF file cannot hold fp8 weights"));
		assert_non_null(strstr(err.detail, "self_attn"));
	}
	options.in = "models/m1-nano";
	options.format = M1_WEIGHTS_FP8;
	assert_int_equal(m1_convert(&options, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "a GGUF file cannot hold fp8 weights"));
	assert_int_not_equal(access(options.out, F_OK), 0);
}

static void
digest_of(char digest[M1_DIGEST_SIZE])
{
	static m1_config c;
	m1_checkpoint *checkpoint;
	m1_source *source;
	m1_error err;

	assert_ok(m1_source_open(DIR, &source, &err));
	assert_ok(m1_source_config(source, &c, &err));
	assert_ok(m1_source_checkpoint(source, &checkpoint, &err));
	assert_ok(m1_digest(source, &c, checkpoint, digest, &err));
	m1_checkpoint_close(checkpoint);
	m1_source_close(source);
}

/* The numbers are what they are, with scales apart or not. */
static void
test_digest(void **state)
{
	char want[M1_DIGEST_SIZE];
	char got[M1_DIGEST_SIZE];

	(void) state;
	write_checkpoint(&(writer){.form = FORM_F32}, CONFIG(""));
	digest_of(want);
	write_checkpoint(&(writer){.form = FORM_FP8_BF16}, CONFIG(BLOCKS));
	digest_of(got);
	assert_string_equal(got, want);
}

static m1_status
last_logits(const char *path, const m1_adapter_option *adapter, float logits[VOCAB], m1_error *err)
{
	const m1_model_options options = {.path = path,
									  .device = "cpu",
									  .threads = 1,
									  .max_sequences = 1,
									  .max_batch_tokens = 16,
									  .max_context = 64,
									  .adapters = adapter,
									  .n_adapters = adapter != NULL};
	const int32_t tokens[3] = {1, 63, 5};
	const int last = 2;
	m1b_segment segment = {.n_tokens = 3, .adapter = options.n_adapters};
	m1b_batch batch = {.tokens = tokens, .n_tokens = 3, .segments = &segment, .n_segments = 1};
	m1_model *m;
	m1_status status = m1_model_open(&options, &m, err);

	if (status != M1_OK)
		return status;
	assert_non_null(segment.state = m->backend->ops->state_acquire(m->backend, 3));
	status = m1_forward(m, &batch, &last, 1, logits, err);
	m1_model_close(m);
	return status;
}

/* Merged, all of it is BF16: the numbers of fp8 are held by that, and those that the adapter changes are rounded. */
static void
test_merge(void **state)
{
	const adapter_spec a = {.folder = DIR "/adapter",
							.model = DIR,
							.config = "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 3,"
									  "\"target_modules\": [\"qkv_proj\", \"w2\"]}",
							.rank = {[M1_ROLE_QKV] = 3, [M1_ROLE_W2] = 3}};
	const m1_adapter_option adapter = {"a", a.folder};
	const m1_convert_options options = {.in = DIR, .out = DIR "/merged", .adapter = a.folder, .threads = 1};
	float base[VOCAB], served[VOCAB], merged[VOCAB];
	m1_error err;

	(void) state;
	write_checkpoint(&(writer){.form = FORM_FP8}, CONFIG(BLOCKS));
	write_adapter(&a);
	assert_int_equal(system("rm -rf " DIR "/merged"), 0);
	assert_ok(m1_merge(&options, &err));
	assert_ok(last_logits(DIR, NULL, base, &err));
	assert_ok(last_logits(DIR, &adapter, served, &err));
	assert_ok(last_logits(DIR "/merged", NULL, merged, &err));
	for (int i = 0; i < VOCAB; i++)
		assert_true(fabsf(merged[i] - served[i]) < 0.05f);
	assert_true(fabsf(base[0] - served[0]) + fabsf(base[1] - served[1]) > 0.1f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_digest),	cmocka_unit_test(test_merge),  cmocka_unit_test(test_as_the_floats),
		cmocka_unit_test(test_on_load), cmocka_unit_test(test_scales), cmocka_unit_test(test_config),
		cmocka_unit_test(test_places),	cmocka_unit_test(test_gguf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
