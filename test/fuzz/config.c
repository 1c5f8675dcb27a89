/* config.c - config.json: what is not refused lies within the bounds that the arithmetic relies on. */
#include "lib/fuzz.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "lib/schema_text.h"
#include "model/config.h"

#define FILE_NAME "config.json"

/* A configuration that is well formed, with some of its fields replaced, left out or added. */
static m1_buf
make_config(fuzz_input *in)
{
	static const char *const keys[] = {"architectures",
									   "model_type",
									   "attn_type_list",
									   "hidden_act",
									   "head_dim",
									   "rotary_dim",
									   "rope_theta",
									   "rope_parameters",
									   "rope_scaling",
									   "partial_rotary_factor",
									   "quantization_config",
									   "num_attention_heads",
									   "num_key_value_heads",
									   "num_hidden_layers",
									   "hidden_size",
									   "vocab_size",
									   "intermediate_size",
									   "num_local_experts",
									   "num_experts_per_tok",
									   "shared_intermediate_size",
									   "max_position_embeddings",
									   "rms_norm_eps",
									   "tie_word_embeddings",
									   "sliding_window",
									   "layernorm_mlp_alpha",
									   "use_bias",
									   "torch_dtype",
									   "some_new_key",
									   NULL};
	json_t *config = json_load_file("models/m1-nano/config.json", 0, NULL);

	fuzz_check(config != NULL, "there is no config of m1-nano");
	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
	{
		const char *key = fuzz_one_of(in, keys);

		if (fuzz_below(in, 4) == 3)
			json_object_del(config, key);
		else
			json_object_set_new(config, key, json_value_make(in, 2));
	}
	return json_text_of(config);
}

static void
check_config(const m1_config *c)
{
	fuzz_check(c->layers >= 1 && c->layers <= M1_MAX_LAYERS && c->vocab_size >= 1 && c->hidden_size >= 1, "sizes");
	fuzz_check(c->heads >= 1 && c->kv_heads >= 1 && c->heads % c->kv_heads == 0, "%d heads, %d of keys", c->heads,
			   c->kv_heads);
	fuzz_check(c->head_dim >= 1 && c->rotary_dim >= 0 && c->rotary_dim <= c->head_dim && c->rotary_dim % 2 == 0,
			   "%d of %d dimensions turn", c->rotary_dim, c->head_dim);
	fuzz_check(c->experts >= 1 && c->experts_per_token >= 1 && c->experts_per_token <= c->experts, "experts");
	fuzz_check(isfinite(c->rope_theta) && c->rope_theta > 0 && isfinite(c->rms_norm_eps) && c->rms_norm_eps >= 0,
			   "reals");
	fuzz_check(memchr(c->architecture, '\0', sizeof c->architecture) != NULL, "a name without an end");
	for (int i = 0; i < c->layers; i++)
	{
		const float decay = m1_config_decay(c, i, c->heads - 1);

		fuzz_check(c->attention[i] <= M1_SOFTMAX && isfinite(decay) && decay >= 0, "layer %d", i);
	}
}

void
fuzz_one(fuzz_input *in)
{
	const bool raw = fuzz_below(in, 4) == 3;
	m1_buf text = {0};
	m1_config config;
	m1_error err;
	m1_status status;

	if (raw)
	{
		const m1_slice bytes = fuzz_rest(in);

		m1_buf_append(&text, bytes.data, bytes.len);
	}
	else
		text = make_config(in);
	fuzz_write_file(FILE_NAME, (m1_slice){text.len > 0 ? text.data : "", text.len});
	status = m1_config_load(fuzz_folder(), &config, &err);
	if (status == M1_OK)
		check_config(&config);
	else
		fuzz_check_error(status, &err);
	m1_buf_free(&text);
}
