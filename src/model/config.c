/* config.c - see config.h. */
#include "model/config_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "files/jsonfile.h"

#define MAX_ASKED 96

/* Reads fields one after the other; the first failure is kept and ends the reading. */
typedef struct reader
{
	const json_t *root;
	const char *asked[MAX_ASKED]; /* the names of all fields that were looked for: no others are known */
	size_t n_asked;
	const char *file;
	const char *(*spell)(const char *field); /* NULL: as config.json does */
	m1_status status;
	m1_error *err;
} reader;

static void
refuse(reader *r, m1_status code, const char *name, const char *why)
{
	if (r->status == M1_OK)
		r->status = m1_fail(r->err, code, "%s: %s %s", r->file, r->spell != NULL ? r->spell(name) : name, why);
}

/* The field, or NULL when it is absent or null. */
static const json_t *
field(reader *r, const char *name)
{
	const json_t *value = json_object_get(r->root, name);

	if (r->n_asked < MAX_ASKED)
		r->asked[r->n_asked++] = name;
	return json_is_null(value) ? NULL : value;
}

static int
integer(reader *r, const char *name, int low, int high, int fallback)
{
	const json_t *value = field(r, name);
	json_int_t n;

	if (value == NULL)
	{
		if (fallback < low || fallback > high)
			refuse(r, M1_E_CORRUPT, name, "is missing");
		return fallback;
	}
	n = json_integer_value(value);
	if (!json_is_integer(value) || n < low || n > high)
	{
		char why[96];

		snprintf(why, sizeof why, "must be a whole number between %d and %d", low, high);
		refuse(r, M1_E_CORRUPT, name, why);
		return low;
	}
	return (int) n;
}

static float
real(reader *r, const char *name, double low, double high, double fallback)
{
	const json_t *value = field(r, name);
	double x;

	if (value == NULL)
		return (float) fallback;
	x = json_number_value(value);
	if (!json_is_number(value) || !(x >= low && x <= high))
	{
		char why[96];

		snprintf(why, sizeof why, "must be a number between %g and %g", low, high);
		refuse(r, M1_E_CORRUPT, name, why);
		return (float) low;
	}
	return (float) x;
}

static bool
boolean(reader *r, const char *name, bool fallback)
{
	const json_t *value = field(r, name);

	if (value == NULL)
		return fallback;
	if (!json_is_boolean(value))
		refuse(r, M1_E_CORRUPT, name, "must be true or false");
	return json_is_true(value);
}

/* M1 and its base model Text-01 share one architecture under two names. */
static void
read_architecture(reader *r, m1_config *c)
{
	const json_t *names = field(r, "architectures");
	const char *name = json_string_value(json_array_get(names, 0));
	const char *type = json_string_value(field(r, "model_type"));

	if (name == NULL)
		name = type != NULL ? type : "";
	if (strcmp(name, "MiniMaxM1ForCausalLM") != 0 && strcmp(name, "MiniMaxText01ForCausalLM") != 0 &&
		strcmp(name, "minimax_m1") != 0 && strcmp(name, "minimax_text_01") != 0 &&
		strcmp(name, M1_GGUF_ARCHITECTURE) != 0)
	{
		refuse(r, M1_E_UNSUPPORTED, "architectures", "names no architecture of the MiniMax-M1 family");
		m1_error_detail(r->err,
						"Found \"%.100s\"; supported are MiniMaxM1ForCausalLM and MiniMaxText01ForCausalLM, in GGUF "
						"files " M1_GGUF_ARCHITECTURE ".",
						name);
		return;
	}
	snprintf(c->architecture, sizeof c->architecture, "%s", name);
}

/* M1's own files number the types of layers; files of newer libraries name them. */
static int
attention_type(const json_t *value)
{
	if (json_is_integer(value))
		return json_integer_value(value) == M1_LIGHTNING || json_integer_value(value) == M1_SOFTMAX
				   ? (int) json_integer_value(value)
				   : -1;
	if (!json_is_string(value))
		return -1;
	if (strcmp(json_string_value(value), "linear_attention") == 0)
		return M1_LIGHTNING;
	return strcmp(json_string_value(value), "full_attention") == 0 ? M1_SOFTMAX : -1;
}

static void
read_attention_types(reader *r, m1_config *c)
{
	const json_t *numbers = field(r, "attn_type_list");
	const json_t *names = field(r, "layer_types");
	const json_t *list = numbers != NULL ? numbers : names;

	if (!json_is_array(list) || json_array_size(list) != (size_t) c->layers)
	{
		refuse(r, M1_E_CORRUPT, "attn_type_list", "must be an array with one entry per layer");
		return;
	}
	for (int i = 0; i < c->layers; i++)
	{
		const int type = attention_type(json_array_get(list, (size_t) i));

		if (type < 0)
			refuse(r, M1_E_UNSUPPORTED, "attn_type_list", "may hold only 0 (lightning) and 1 (softmax)");
		if (names != NULL && attention_type(json_array_get(names, (size_t) i)) != type)
			refuse(r, M1_E_UNSUPPORTED, "layer_types", "must say what attn_type_list says");
		c->attention[i] = (unsigned char) type;
	}
}

/* ---- what is not read ---- */

/* A number that is 0, or a list of such: of older files. */
static bool
is_zero(const json_t *value)
{
	size_t i;
	json_t *one;

	if (!json_is_array(value))
		return json_is_integer(value) && json_integer_value(value) == 0;
	json_array_foreach ((json_t *) value, i, one)
		if (!json_is_integer(one) || json_integer_value(one) != 0)
			return false;
	return true;
}

/* Fields that would change the arithmetic in ways we do not implement: only their neutral value passes. */
static void
refuse_unsupported(reader *r)
{
	static const char *const must_be_absent[] = {
		"sliding_window",	"rope_scaling",	  "attention_logit_cap",  "final_logit_softcapping",
		"linear_attn_bias", "logits_scaling", "embedding_multiplier",
	};
	static const char *const must_be_false[] = {
		"attention_bias",	  "qkv_bias",
		"mlp_bias",			  "use_bias",
		"use_qk_norm",		  "lm_head_bias",
		"use_sliding_window", "add_cross_attention",
		"is_encoder_decoder", "tie_encoder_decoder",
	};
	const json_t *act = field(r, "hidden_act");
	const json_t *shared = field(r, "shared_intermediate_size");
	const json_t *pruned = field(r, "pruned_heads");

	for (size_t i = 0; i < sizeof must_be_absent / sizeof *must_be_absent; i++)
		if (field(r, must_be_absent[i]) != NULL)
			refuse(r, M1_E_UNSUPPORTED, must_be_absent[i], "is not supported: it must be absent or null");
	for (size_t i = 0; i < sizeof must_be_false / sizeof *must_be_false; i++)
		if (boolean(r, must_be_false[i], false))
			refuse(r, M1_E_UNSUPPORTED, must_be_false[i], "is not supported: it must be absent or false");
	if (act != NULL && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
		refuse(r, M1_E_UNSUPPORTED, "hidden_act", "must be \"silu\"");
	if (shared != NULL && !is_zero(shared))
		refuse(r, M1_E_UNSUPPORTED, "shared_intermediate_size", "must be 0: shared experts are not supported");
	if (pruned != NULL && (!json_is_object(pruned) || json_object_size(pruned) > 0))
		refuse(r, M1_E_UNSUPPORTED, "pruned_heads", "is not supported: it must be absent or empty");
}

/* Fields that have no part in the logits: of training, of sampling, and of the library that wrote the file. */
static const char *const without_effect[] = {
	"_attn_implementation_autoset",
	"_commit_hash",
	"_name_or_path",
	"attention_dropout",
	"attn_implementation",
	"auto_map",
	"bad_words_ids",
	"begin_suppress_tokens",
	"block_size", /* how many tokens of lightning attention are computed at once */
	"bos_token_id",
	"chunk_size_feed_forward",
	"cross_attention_hidden_size",
	"decoder_start_token_id",
	"diversity_penalty",
	"do_sample",
	"dtype",
	"early_stopping",
	"encoder_no_repeat_ngram_size",
	"eos_token_id",
	"exponential_decay_length_penalty",
	"finetuning_task",
	"forced_bos_token_id",
	"forced_eos_token_id",
	"id2label",
	"ignore_keys_at_rope_validation",
	"initializer_range",
	"is_decoder",
	"keys_to_ignore_at_inference",
	"label2id",
	"length_penalty",
	"max_length",
	"min_length",
	"no_repeat_ngram_size",
	"num_beam_groups",
	"num_beams",
	"num_return_sequences",
	"output_attentions",
	"output_hidden_states",
	"output_router_logits",
	"output_scores",
	"pad_token_id",
	"prefix",
	"problem_type",
	"remove_invalid_values",
	"repetition_penalty",
	"return_dict",
	"return_dict_in_generate",
	"router_aux_loss_coef",
	"router_jitter_noise",
	"sep_token_id",
	"shared_moe_mode", /* of shared experts, of which there are none */
	"suppress_tokens",
	"task_specific_params",
	"temperature",
	"tf_legacy_loss",
	"tokenizer_class",
	"top_k",
	"top_p",
	"torch_dtype",
	"torchscript",
	"transformers_version",
	"typical_p",
	"use_bfloat16",
	"use_cache",
	"use_return_dict",
};

static bool
is_among(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void
refuse_unknown(reader *r, const char *name)
{
	if (r->status != M1_OK)
		return;
	refuse(r, M1_E_UNSUPPORTED, name, "is not supported");
	m1_error_detail(r->err, "It could change the results, and this version does not know how.");
}

/* After all that is known has been asked for. */
static void
check_others(reader *r)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *) r->root, name, value)
		if (!json_is_null(value) && !is_among(name, r->asked, r->n_asked) &&
			!is_among(name, without_effect, sizeof without_effect / sizeof *without_effect))
			refuse_unknown(r, name);
}

/* The members of a field that is an object. */
static void
check_members(reader *r, const char *field_name, const json_t *object, const char *const *names, size_t n)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *) object, name, value)
		if (!json_is_null(value) && !is_among(name, names, n))
		{
			char path[96];

			snprintf(path, sizeof path, "%s.%.60s", field_name, name);
			refuse_unknown(r, path);
		}
}

/* ---- parts ---- */

/* Whether a field of quantization_config is that text; absent passes where `optional`. */
static bool
is_text(const json_t *quantization, const char *name, const char *text, bool optional)
{
	const json_t *value = json_object_get(quantization, name);

	if (value == NULL || json_is_null(value))
		return optional;
	return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/*
 * fp8 with a scale for each 128 x 128 weights. Its activation_scheme says how others round activations, to multiply in
 * 8 bits; ours keep their precision, but a static scheme would bring scales of its own.
 */
static void
read_quantization(reader *r, m1_config *c)
{
	static const char *const known[] = {
		"quant_method", "fmt", "activation_scheme", "weight_block_size", "modules_to_not_convert", "ignored_layers"};
	const json_t *q = field(r, "quantization_config");
	const json_t *block = json_object_get(q, "weight_block_size");

	if (q == NULL)
		return;
	if (!is_text(q, "quant_method", "fp8", false))
		refuse(r, M1_E_UNSUPPORTED, "quantization_config.quant_method", "must be \"fp8\"");
	if (!is_text(q, "fmt", "e4m3", true))
		refuse(r, M1_E_UNSUPPORTED, "quantization_config.fmt", "must be \"e4m3\"");
	if (!is_text(q, "activation_scheme", "dynamic", true))
		refuse(r, M1_E_UNSUPPORTED, "quantization_config.activation_scheme", "must be \"dynamic\"");
	if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != M1_FP8_BLOCK ||
		json_integer_value(json_array_get(block, 1)) != M1_FP8_BLOCK)
		refuse(r, M1_E_UNSUPPORTED, "quantization_config.weight_block_size", "must be [128, 128]");
	check_members(r, "quantization_config", q, known, sizeof known / sizeof *known);
	c->fp8 = true;
}

/* A number that newer files have in rope_parameters, and older ones beside it; what is said twice must be the same. */
static bool
rope_number(reader *r, const json_t *parameters, const char *name, double low, double high, double *x)
{
	const json_t *outer = field(r, name);
	const json_t *inner = json_object_get(parameters, name);
	const json_t *value = inner != NULL && !json_is_null(inner) ? inner : outer;

	if (value == NULL)
		return false;
	*x = json_number_value(value);
	if (!json_is_number(value) || !(*x >= low && *x <= high))
	{
		char why[96];

		snprintf(why, sizeof why, "must be a number between %g and %g", low, high);
		refuse(r, M1_E_CORRUPT, name, why);
	}
	else if (outer != NULL && json_number_value(outer) != *x)
		refuse(r, M1_E_UNSUPPORTED, name, "is not what rope_parameters says");
	return true;
}

/* Angles are scaled in no way; how many dimensions have them may be said as a number, or as a share of head_dim. */
static void
read_rope(reader *r, m1_config *c)
{
	static const char *const known[] = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
	const json_t *parameters = field(r, "rope_parameters");
	double theta = 1e6;
	double share;

	if (parameters != NULL && !json_is_object(parameters))
		refuse(r, M1_E_CORRUPT, "rope_parameters", "must be an object");
	for (int i = 0; i < 2; i++)
		if (!is_text(parameters, known[i], "default", true))
			refuse(r, M1_E_UNSUPPORTED, i == 0 ? "rope_parameters.rope_type" : "rope_parameters.type",
				   "must be \"default\": rotary angles are not scaled");
	check_members(r, "rope_parameters", parameters, known, sizeof known / sizeof *known);
	if (!rope_number(r, parameters, "rope_theta", 1.0, 1e12, &theta) && parameters != NULL)
		refuse(r, M1_E_CORRUPT, "rope_parameters.rope_theta", "is missing");
	c->rope_theta = (float) theta;
	if (rope_number(r, parameters, "partial_rotary_factor", 0.0, 1.0, &share) && r->status == M1_OK)
	{
		if (field(r, "rotary_dim") != NULL ? share * c->head_dim != c->rotary_dim
										   : share * c->head_dim != floor(share * c->head_dim))
			refuse(r, M1_E_UNSUPPORTED, "partial_rotary_factor", "must be rotary_dim / head_dim");
		c->rotary_dim = (int) (share * c->head_dim);
	}
	if (c->rotary_dim % 2 != 0)
		refuse(r, M1_E_CORRUPT, "rotary_dim", "must be even");
}

static void
read_shape(reader *r, m1_config *c)
{
	c->vocab_size = integer(r, "vocab_size", 1, 1 << 24, 0);
	c->hidden_size = integer(r, "hidden_size", 1, 1 << 20, 0);
	c->layers = integer(r, "num_hidden_layers", 1, M1_MAX_LAYERS, 0);
	c->heads = integer(r, "num_attention_heads", 1, 4096, 0);
	c->kv_heads = integer(r, "num_key_value_heads", 1, 4096, c->heads);
	if (r->status == M1_OK && c->heads % c->kv_heads != 0)
		refuse(r, M1_E_CORRUPT, "num_key_value_heads", "must divide num_attention_heads");
	if (r->status == M1_OK && field(r, "head_dim") == NULL && c->hidden_size % c->heads != 0)
		refuse(r, M1_E_CORRUPT, "head_dim", "is missing");
	c->head_dim = integer(r, "head_dim", 1, 8192, c->heads > 0 ? c->hidden_size / c->heads : 0);
	c->rotary_dim = integer(r, "rotary_dim", 0, c->head_dim, c->head_dim);
	read_rope(r, c);
	c->expert_width = integer(r, "intermediate_size", 1, 1 << 20, 0);
	c->experts = integer(r, "num_local_experts", 1, 65536, 0);
	c->experts_per_token = integer(r, "num_experts_per_tok", 1, c->experts, 2);
	c->max_context = integer(r, "max_position_embeddings", 1, 1 << 30, 0);
}

m1_status
m1_config_read(const json_t *fields, const char *file, const char *(*spell)(const char *field), m1_config *c,
			   m1_error *err)
{
	reader r = {.root = fields, .file = file, .spell = spell, .status = M1_OK, .err = err};

	memset(c, 0, sizeof *c);
	read_architecture(&r, c);
	refuse_unsupported(&r);
	read_quantization(&r, c);
	read_shape(&r, c);
	if (r.status == M1_OK)
		read_attention_types(&r, c);
	c->rms_norm_eps = real(&r, "rms_norm_eps", 0.0, 1.0, 1e-5);
	c->postnorm = boolean(&r, "postnorm", false);
	c->tied_head = boolean(&r, "tie_word_embeddings", false);
	c->alpha_softmax = real(&r, "layernorm_full_attention_alpha", -1e6, 1e6, 1.0);
	c->beta_softmax = real(&r, "layernorm_full_attention_beta", -1e6, 1e6, 1.0);
	c->alpha_lightning = real(&r, "layernorm_linear_attention_alpha", -1e6, 1e6, 1.0);
	c->beta_lightning = real(&r, "layernorm_linear_attention_beta", -1e6, 1e6, 1.0);
	c->alpha_mlp = real(&r, "layernorm_mlp_alpha", -1e6, 1e6, 1.0);
	c->beta_mlp = real(&r, "layernorm_mlp_beta", -1e6, 1e6, 1.0);
	check_others(&r);
	return r.status;
}

m1_status
m1_config_load(const char *dir, m1_config *c, m1_error *err)
{
	json_t *root;
	m1_status status = m1_json_load_object(dir, "config.json", &root, err);

	if (status != M1_OK)
		return status;
	status = m1_config_read(root, "config.json", NULL, c, err);
	json_decref(root);
	return status;
}

/* Slope of head h among n, n a power of two. */
static double
slope_of_power(int n, int h)
{
	return pow(2.0, -8.0 * (h + 1) / n);
}

float
m1_config_decay(const m1_config *c, int layer, int head)
{
	int power = 1;
	double slope;
	/* a model of one layer has no depth to fall along */
	double depth = c->layers > 1 ? (double) layer / (c->layers - 1) : 0.0;

	while (power * 2 <= c->heads)
		power *= 2;
	if (head < power)
		slope = slope_of_power(power, head);
	else
		slope = slope_of_power(2 * power, 2 * (head - power));
	return (float) (slope * (1.0 - depth + 1e-5));
}
