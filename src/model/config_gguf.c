/*
 * config_gguf.c - the keys of a GGUF file, turned into the fields of config.json, and written. A key below the
 * architecture's name that is not known here is refused: it might change the arithmetic.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/config_internal.h"

#define PREFIX M1_GGUF_ARCHITECTURE "."
#define RECURRENT PREFIX "attention.recurrent_layers"
#define INTERVAL PREFIX "full_attention_interval"
#define DEFAULT_INTERVAL 8

typedef struct field
{
	const char *name;
	const char *key;
	bool required; /* where the fields of config.json have a fallback that GGUF files do not know */
} field;

static const field fields[] = {
	{"architectures", "general.architecture", true},
	{"num_hidden_layers", PREFIX "block_count", true},
	{"max_position_embeddings", PREFIX "context_length", true},
	{"hidden_size", PREFIX "embedding_length", true},
	{"intermediate_size", PREFIX "feed_forward_length", true},
	{"num_attention_heads", PREFIX "attention.head_count", true},
	{"num_key_value_heads", PREFIX "attention.head_count_kv", false},
	{"head_dim", PREFIX "attention.key_length", false},
	{"rms_norm_eps", PREFIX "attention.layer_norm_rms_epsilon", true},
	{"rope_theta", PREFIX "rope.freq_base", true},
	{"rotary_dim", PREFIX "rope.dimension_count", false},
	{"num_local_experts", PREFIX "expert_count", true},
	{"num_experts_per_tok", PREFIX "expert_used_count", true},
	{"vocab_size", PREFIX "vocab_size", false},
	{"layernorm_full_attention_alpha", PREFIX "residual_scale", true},
	{"layernorm_linear_attention_alpha", PREFIX "residual_scale", true},
	{"layernorm_mlp_alpha", PREFIX "residual_scale", true},
};
#define N_FIELDS (sizeof fields / sizeof *fields)

/* Keys that change nothing while they have this value. */
static const struct
{
	const char *key;
	double neutral;
} neutral_keys[] = {
	{PREFIX "attention.causal", 1.0},	 {PREFIX "expert_gating_func", 1.0}, /* softmax */
	{PREFIX "expert_weights_norm", 1.0}, {PREFIX "expert_weights_scale", 1.0},
	{PREFIX "expert_shared_count", 0.0}, {PREFIX "leading_dense_block_count", 0.0},
};

/* The key of a field, for errors. */
static const char *
spell(const char *name)
{
	if (strcmp(name, "attn_type_list") == 0)
		return RECURRENT;
	for (size_t i = 0; i < N_FIELDS; i++)
		if (strcmp(fields[i].name, name) == 0)
			return fields[i].key;
	return name;
}

/* A value that is neither a number, a text nor a truth becomes a text, which every check of a number refuses. */
static json_t *
json_of(const m1_gguf_value *v)
{
	const m1_slice text = m1_gguf_text(v);
	int64_t n;
	double x;

	if (v->is_array)
		return json_string("an array");
	if (v->type == M1_GGUF_STRING)
		return m1_utf8_valid(text) ? json_stringn(text.data, text.len) : json_string("not text");
	if (m1_gguf_integer(v, 0, &n))
		return v->type == M1_GGUF_BOOL ? json_boolean(n != 0) : json_integer(n);
	return m1_gguf_real(v, 0, &x) && isfinite(x) ? json_real(x) : json_string("not a number");
}

/* ---- which layers are lightning ---- */

static json_t *
types_from_list(const m1_gguf_value *v, int layers)
{
	json_t *list = json_array();

	/* one truth for all layers is allowed */
	for (size_t i = 0; i < (v->is_array ? v->count : (size_t) layers); i++)
	{
		int64_t recurrent = -1;

		if (!m1_gguf_integer(v, v->is_array ? i : 0, &recurrent))
			recurrent = -1;
		json_array_append_new(list, json_integer(recurrent == 1	  ? M1_LIGHTNING
												 : recurrent == 0 ? M1_SOFTMAX
																  : recurrent));
	}
	return list;
}

static json_t *
types_from_interval(int64_t interval, int layers)
{
	json_t *list = json_array();

	for (int i = 0; i < layers; i++)
		json_array_append_new(list, json_integer((i + 1) % interval == 0 ? M1_SOFTMAX : M1_LIGHTNING));
	return list;
}

static m1_status
add_attention_types(const m1_gguf *g, json_t *root, m1_error *err)
{
	const m1_gguf_value *list = m1_gguf_find(g, RECURRENT);
	const m1_gguf_value *every = m1_gguf_find(g, INTERVAL);
	const json_int_t layers = json_integer_value(json_object_get(root, "num_hidden_layers"));
	int64_t interval = DEFAULT_INTERVAL;

	if (layers < 1 || layers > M1_MAX_LAYERS)
		return M1_OK; /* which is refused with the other fields */
	if (list != NULL)
	{
		json_object_set_new(root, "attn_type_list", types_from_list(list, (int) layers));
		return M1_OK;
	}
	if (every != NULL && (every->is_array || !m1_gguf_integer(every, 0, &interval) || interval < 1))
		return m1_fail(err, M1_E_CORRUPT, "%s: " INTERVAL " must be a whole number of at least 1", m1_gguf_file(g));
	json_object_set_new(root, "attn_type_list", types_from_interval(interval, (int) layers));
	return M1_OK;
}

/* ---- all keys ---- */

static m1_status
check_neutral(const m1_gguf *g, const m1_gguf_value *v, double neutral, m1_error *err)
{
	double x;

	if (!v->is_array && m1_gguf_real(v, 0, &x) && x == neutral)
		return M1_OK;
	return m1_fail(err, M1_E_UNSUPPORTED, "%s: %.120s is not supported: it must be absent or %g", m1_gguf_file(g),
				   v->key, neutral);
}

static bool
is_known(const char *key)
{
	static const char *const others[] = {RECURRENT, INTERVAL, PREFIX "attention.value_length",
										 PREFIX "tensor_data_layout"};

	for (size_t i = 0; i < N_FIELDS; i++)
		if (strcmp(fields[i].key, key) == 0)
			return true;
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strcmp(others[i], key) == 0)
			return true;
	return false;
}

static m1_status
check_key(const m1_gguf *g, const m1_gguf_value *v, m1_error *err)
{
	if (strncmp(v->key, PREFIX, strlen(PREFIX)) != 0 || is_known(v->key))
		return M1_OK;
	for (size_t i = 0; i < sizeof neutral_keys / sizeof *neutral_keys; i++)
		if (strcmp(neutral_keys[i].key, v->key) == 0)
			return check_neutral(g, v, neutral_keys[i].neutral, err);
	/* scaling of the rotary angles, when it says that there is none */
	if (strcmp(v->key, PREFIX "rope.scaling.type") == 0)
	{
		const m1_slice type = m1_gguf_text(v);

		if (type.len == 4 && memcmp(type.data, "none", 4) == 0)
			return M1_OK;
	}
	m1_fail(err, M1_E_UNSUPPORTED, "%s: key %.120s is not supported", m1_gguf_file(g), v->key);
	m1_error_detail(err, "It could change the results, and this version does not know how.");
	return M1_E_UNSUPPORTED;
}

/* Parts of one model in several files. */
static m1_status
refuse_split(const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *v = m1_gguf_find(g, "split.count");
	int64_t count = 1;

	if (v == NULL || (m1_gguf_integer(v, 0, &count) && count <= 1))
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "%s: this is one part of a model that is split over several files", m1_gguf_file(g));
	m1_error_hint(err, "Join them first: llama-gguf-split --merge FIRST-PART OUT.gguf");
	return M1_E_UNSUPPORTED;
}

/* Sizes that are said twice. */
static m1_status
check_value_length(const m1_gguf *g, const m1_config *c, m1_error *err)
{
	const m1_gguf_value *v = m1_gguf_find(g, PREFIX "attention.value_length");
	int64_t n;

	if (v == NULL || (!v->is_array && m1_gguf_integer(v, 0, &n) && n == c->head_dim))
		return M1_OK;
	return m1_fail(err, M1_E_UNSUPPORTED, "%s: " PREFIX "attention.value_length must be attention.key_length, %d",
				   m1_gguf_file(g), c->head_dim);
}

/* What the tensors tell: the rows of the table, and whether the head is a matrix of its own. */
static void
add_facts_of_tensors(const m1_gguf *g, json_t *root)
{
	const m1_tensor *tensors;
	const size_t n = m1_gguf_tensors(g, &tensors);
	bool tied = true;

	for (size_t i = 0; i < n; i++)
		if (strcmp(tensors[i].name, "output.weight") == 0)
			tied = false;
		else if (strcmp(tensors[i].name, "token_embd.weight") == 0 && json_object_get(root, "vocab_size") == NULL)
			json_object_set_new(root, "vocab_size", json_integer(tensors[i].shape[0]));
	json_object_set_new(root, "tie_word_embeddings", json_boolean(tied));
	json_object_set_new(root, "postnorm", json_true());
}

static m1_status
fill_root(const m1_gguf *g, json_t *root, m1_error *err)
{
	const m1_gguf_value *keys;
	const size_t n = m1_gguf_keys(g, &keys);
	m1_status status;

	for (size_t i = 0; i < N_FIELDS; i++)
	{
		const m1_gguf_value *v = m1_gguf_find(g, fields[i].key);
		json_t *value;

		if (v == NULL && fields[i].required)
			return m1_fail(err, M1_E_CORRUPT, "%s: %s is missing", m1_gguf_file(g), fields[i].key);
		if (v == NULL)
			continue;
		value = json_of(v);
		/* the one name stands for the list that config.json has */
		json_object_set_new(root, fields[i].name, i == 0 ? json_pack("[o]", value) : value);
		/* other architectures have other keys: say that first */
		if (i == 0 && (m1_gguf_text(v).len != strlen(M1_GGUF_ARCHITECTURE) ||
					   memcmp(m1_gguf_text(v).data, M1_GGUF_ARCHITECTURE, m1_gguf_text(v).len) != 0))
			return M1_OK;
	}
	for (size_t i = 0; i < n; i++)
		if ((status = check_key(g, &keys[i], err)) != M1_OK)
			return status;
	add_facts_of_tensors(g, root);
	return add_attention_types(g, root, err);
}

m1_status
m1_config_load_gguf(const m1_gguf *g, m1_config *c, m1_error *err)
{
	json_t *root = json_object();
	m1_status status = refuse_split(g, err);

	if (root == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the keys of %s", m1_gguf_file(g));
	if (status == M1_OK && (status = fill_root(g, root, err)) == M1_OK &&
		(status = m1_config_read(root, m1_gguf_file(g), spell, c, err)) == M1_OK)
		status = check_value_length(g, c, err);
	json_decref(root);
	return status;
}

/* ---- writing ---- */

/* Every how many layers softmax comes, or 0 when there is no such rule. */
static int
regular_interval(const m1_config *c)
{
	int interval = 1;

	while (interval <= c->layers && c->attention[interval - 1] != M1_SOFTMAX)
		interval++;
	for (int i = 0; i < c->layers; i++)
		if ((c->attention[i] == M1_SOFTMAX) != ((i + 1) % interval == 0))
			return 0;
	return interval;
}

static void
write_attention_types(const m1_config *c, m1_gguf_writer *w)
{
	const int interval = regular_interval(c);

	if (interval > 0)
	{
		m1_gguf_write_u32(w, INTERVAL, (uint32_t) interval);
		return;
	}
	m1_gguf_write_array(w, RECURRENT, M1_GGUF_BOOL, (size_t) c->layers);
	for (int i = 0; i < c->layers; i++)
		m1_gguf_write_bool_element(w, c->attention[i] == M1_LIGHTNING);
}

static m1_status
check_residual(const m1_config *c, m1_error *err)
{
	if (!c->postnorm)
		return m1_fail(err, M1_E_UNSUPPORTED, "a GGUF file cannot hold a model without postnorm");
	if (c->beta_softmax == 1.0f && c->beta_lightning == 1.0f && c->beta_mlp == 1.0f &&
		c->alpha_softmax == c->alpha_lightning && c->alpha_mlp == c->alpha_lightning)
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "a GGUF file cannot hold this model's residual weights");
	m1_error_detail(
		err,
		"It has one alpha for all, and every beta is 1. Here the alphas are %g, %g and %g, the betas %g, %g "
		"and %g (softmax, lightning, experts).",
		(double) c->alpha_softmax, (double) c->alpha_lightning, (double) c->alpha_mlp, (double) c->beta_softmax,
		(double) c->beta_lightning, (double) c->beta_mlp);
	return M1_E_UNSUPPORTED;
}

m1_status
m1_config_write_gguf(const m1_config *c, m1_gguf_writer *w, m1_error *err)
{
	const struct
	{
		const char *key;
		int value;
	} integers[] = {
		{PREFIX "block_count", c->layers},
		{PREFIX "context_length", c->max_context},
		{PREFIX "embedding_length", c->hidden_size},
		{PREFIX "feed_forward_length", c->expert_width},
		{PREFIX "attention.head_count", c->heads},
		{PREFIX "attention.head_count_kv", c->kv_heads},
		{PREFIX "attention.key_length", c->head_dim},
		{PREFIX "attention.value_length", c->head_dim},
		{PREFIX "rope.dimension_count", c->rotary_dim},
		{PREFIX "expert_count", c->experts},
		{PREFIX "expert_used_count", c->experts_per_token},
		{PREFIX "vocab_size", c->vocab_size},
	};
	m1_status status = check_residual(c, err);

	if (status != M1_OK)
		return status;
	for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
		m1_gguf_write_u32(w, integers[i].key, (uint32_t) integers[i].value);
	m1_gguf_write_f32(w, PREFIX "attention.layer_norm_rms_epsilon", c->rms_norm_eps);
	m1_gguf_write_f32(w, PREFIX "rope.freq_base", c->rope_theta);
	m1_gguf_write_f32(w, PREFIX "residual_scale", c->alpha_mlp);
	write_attention_types(c, w);
	return M1_OK;
}
