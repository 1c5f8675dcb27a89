/*
 * adapter_testing.h - adapters for tests, written by hand in PEFT's format: random numbers for whatever modules of a
 * model a test asks for.
 */
#ifndef M1_TEST_ADAPTER_TESTING_H
#define M1_TEST_ADAPTER_TESTING_H

#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "blocks/blocks.h"
#include "model/config.h"
#include "model/roles.h"

typedef struct adapter_spec
{
	const char *folder; /* below build */
	const char *model;	/* whose modules it changes */
	const char *config; /* adapter_config.json */
	int rank[M1_ROLES]; /* of A and B; 0: none */
	bool router;		/* is there as a whole */
	unsigned layers;	/* a bit for each that has modules; 0: all */
	m1b_dtype type;
	const char *digest;		  /* of its base, or NULL */
	const char *missing;	  /* a tensor that is left out */
	const char *odd;		  /* a tensor that has one row too many */
	const char *not_a_number; /* a tensor that begins with infinity */
	const char *extra;		  /* a tensor [1, 1] besides */
	float width;			  /* of B's numbers; 0: the usual */
	uint64_t seed;
} adapter_spec;

typedef struct adapter_file
{
	m1_buf header;
	m1_buf data;
} adapter_file;

static inline void
put_adapter_numbers(m1_buf *data, m1b_dtype type, size_t n, float width, uint64_t *seed, bool infinite)
{
	for (size_t i = 0; i < n; i++)
	{
		const float x = i == 0 && infinite ? INFINITY : width * test_random_float(seed);
		const uint16_t narrow = type == M1B_BF16 ? m1b_float_to_bf16(x) : m1b_float_to_half(x);

		if (type == M1B_F32)
			m1_buf_append(data, &x, sizeof x);
		else
			m1_buf_append(data, &narrow, sizeof narrow);
	}
}

static inline void
put_adapter_tensor(const adapter_spec *a, adapter_file *f, const char *name, int rows, int cols, float width,
				   uint64_t *seed)
{
	const size_t begin = f->data.len;
	char entry[400];

	if (a->missing != NULL && strcmp(name, a->missing) == 0)
		return;
	if (a->odd != NULL && strcmp(name, a->odd) == 0)
		rows++;
	put_adapter_numbers(&f->data, a->type, (size_t) rows * (size_t) cols, width, seed,
						a->not_a_number != NULL && strcmp(name, a->not_a_number) == 0);
	snprintf(entry, sizeof entry, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}", name,
			 m1b_dtype_name(a->type), rows, cols, begin, f->data.len);
	m1_buf_puts(&f->header, entry);
}

static inline void
put_adapter_module(const adapter_spec *a, adapter_file *f, const m1_config *c, m1_role role, int layer, int expert,
				   uint64_t *seed)
{
	char module[128];
	char name[200];
	int rows, cols;

	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, module, sizeof module);
	module[strlen(module) - strlen(".weight")] = '\0';
	m1_role_shape(role, c, &rows, &cols);
	if (a->rank[role] > 0)
	{
		snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module);
		put_adapter_tensor(a, f, name, a->rank[role], cols, 1.0f / sqrtf((float) cols), seed);
		snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module);
		put_adapter_tensor(a, f, name, rows, a->rank[role], a->width > 0.0f ? a->width : 0.1f, seed);
	}
	if (role == M1_ROLE_ROUTER && a->router)
	{
		snprintf(name, sizeof name, "base_model.model.%s.weight", module);
		put_adapter_tensor(a, f, name, rows, cols, 1.0f / sqrtf((float) cols), seed);
	}
}

static inline bool
has_layer(const adapter_spec *a, int layer)
{
	return a->layers == 0 || (a->layers >> layer & 1) != 0;
}

/* Writes both files. */
static inline void
write_adapter(const adapter_spec *a)
{
	adapter_file f = {{0}, {0}};
	m1_role roles[M1_ROLES];
	uint64_t seed = 88172645463325252u + a->seed;
	m1_buf file = {0};
	uint64_t length;
	m1_config c;
	m1_error err;

	assert_ok(m1_config_load(a->model, &c, &err));
	m1_buf_puts(&f.header, "{\"__metadata__\":{\"format\":\"pt\"");
	if (a->digest != NULL)
	{
		m1_buf_puts(&f.header, ",\"base_digest\":\"");
		m1_buf_puts(&f.header, a->digest);
		m1_buf_puts(&f.header, "\"");
	}
	m1_buf_puts(&f.header, "}");
	for (int layer = 0; layer < c.layers; layer++)
		for (int i = 0, n = has_layer(a, layer) ? m1_roles_of_layer(&c, layer, roles) : 0; i < n; i++)
			for (int e = 0; e < (m1_role_of_expert(roles[i]) ? c.experts : 1); e++)
				put_adapter_module(a, &f, &c, roles[i], layer, e, &seed);
	put_adapter_module(a, &f, &c, M1_ROLE_HEAD, 0, 0, &seed);
	if (a->extra != NULL)
		put_adapter_tensor(a, &f, a->extra, 1, 1, 1.0f, &seed);
	m1_buf_puts(&f.header, "}");
	while (f.header.len % 8 != 0)
		m1_buf_puts(&f.header, " ");
	length = f.header.len;
	m1_buf_append(&file, &length, sizeof length);
	m1_buf_append(&file, f.header.data, f.header.len);
	m1_buf_append(&file, f.data.data, f.data.len);
	assert_false(file.failed || f.header.failed || f.data.failed);
	test_write_file(a->folder, "adapter_model.safetensors", file.data, file.len);
	test_write_file(a->folder, "adapter_config.json", a->config, strlen(a->config));
	m1_buf_free(&f.header);
	m1_buf_free(&f.data);
	m1_buf_free(&file);
}

/* Everything that an adapter may change, with ranks of all sizes. */
static inline adapter_spec
everything(const char *folder, const char *model, uint64_t seed)
{
	return (adapter_spec){
		.folder = folder,
		.model = model,
		.config = "{\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"base_model_name_or_path\": \"somewhere\","
				  "\"bias\": \"none\", \"r\": 6, \"lora_alpha\": 9, \"use_rslora\": false, \"use_dora\": false,"
				  "\"lora_dropout\": 0.05, \"init_lora_weights\": true, \"peft_version\": \"0.18.0\","
				  "\"rank_pattern\": {\"w1\": 1, \"experts.*w[23]\": 2, \"lm_head\": 17},"
				  "\"alpha_pattern\": {\"w[123]\": 3, \"lm_head\": 20},"
				  "\"target_modules\": [\"qkv_proj\", \"output_gate\", \"out_proj\", \"q_proj\", \"k_proj\","
				  "\"v_proj\", \"o_proj\", \"w1\", \"w2\", \"w3\", \"lm_head\"],"
				  "\"modules_to_save\": [\"block_sparse_moe.gate\"]}",
		.rank = {[M1_ROLE_QKV] = 6,
				 [M1_ROLE_OUTPUT_GATE] = 6,
				 [M1_ROLE_LIGHTNING_OUT] = 6,
				 [M1_ROLE_Q] = 6,
				 [M1_ROLE_K] = 6,
				 [M1_ROLE_V] = 6,
				 [M1_ROLE_SOFTMAX_OUT] = 6,
				 [M1_ROLE_W1] = 1,
				 [M1_ROLE_W2] = 2,
				 [M1_ROLE_W3] = 2,
				 [M1_ROLE_HEAD] = 17},
		.router = true,
		.seed = seed,
	};
}

#endif
