/* roles.c - see roles.h. */
#include "model/roles.h"

#include <stdio.h>
#include <string.h>

#include "blocks/blocks.h"

#define LAYER "model.layers.%d."
#define EXPERT LAYER "block_sparse_moe.experts.%d."

/* Formats of the layer's number, then the expert's; a name without them leaves them out. */
static const char *const names[M1_ROLES][M1_NAMINGS] = {
	[M1_ROLE_EMBED] = {"model.embed_tokens.weight", "token_embd.weight"},
	[M1_ROLE_FINAL_NORM] = {"model.norm.weight", "output_norm.weight"},
	[M1_ROLE_HEAD] = {"lm_head.weight", "output.weight"},
	[M1_ROLE_INPUT_NORM] = {LAYER "input_layernorm.weight", "blk.%d.attn_norm.weight"},
	[M1_ROLE_POST_NORM] = {LAYER "post_attention_layernorm.weight", "blk.%d.ffn_norm.weight"},
	[M1_ROLE_ROUTER] = {LAYER "block_sparse_moe.gate.weight", "blk.%d.ffn_gate_inp.weight"},
	[M1_ROLE_W1] = {EXPERT "w1.weight", "blk.%d.ffn_gate_exps.weight"},
	[M1_ROLE_W2] = {EXPERT "w2.weight", "blk.%d.ffn_down_exps.weight"},
	[M1_ROLE_W3] = {EXPERT "w3.weight", "blk.%d.ffn_up_exps.weight"},
	[M1_ROLE_QKV] = {LAYER "self_attn.qkv_proj.weight", "blk.%d.attn_qkv.weight"},
	[M1_ROLE_OUTPUT_GATE] = {LAYER "self_attn.output_gate.weight", "blk.%d.attn_gate.weight"},
	[M1_ROLE_INNER_NORM] = {LAYER "self_attn.norm.weight", "blk.%d.attn_norm_2.weight"},
	[M1_ROLE_LIGHTNING_OUT] = {LAYER "self_attn.out_proj.weight", "blk.%d.attn_output.weight"},
	[M1_ROLE_Q] = {LAYER "self_attn.q_proj.weight", "blk.%d.attn_q.weight"},
	[M1_ROLE_K] = {LAYER "self_attn.k_proj.weight", "blk.%d.attn_k.weight"},
	[M1_ROLE_V] = {LAYER "self_attn.v_proj.weight", "blk.%d.attn_v.weight"},
	[M1_ROLE_SOFTMAX_OUT] = {LAYER "self_attn.o_proj.weight", "blk.%d.attn_output.weight"},
};

bool
m1_role_of_expert(m1_role role)
{
	return role == M1_ROLE_W1 || role == M1_ROLE_W2 || role == M1_ROLE_W3;
}

bool
m1_role_is_large(m1_role role)
{
	switch (role)
	{
		case M1_ROLE_EMBED:
		case M1_ROLE_FINAL_NORM:
		case M1_ROLE_HEAD:
		case M1_ROLE_INPUT_NORM:
		case M1_ROLE_POST_NORM:
		case M1_ROLE_ROUTER:
		case M1_ROLE_INNER_NORM:
			return false;
		default:
			return true;
	}
}

m1b_split
m1_role_split(m1_role role)
{
	switch (role)
	{
		case M1_ROLE_HEAD:
		case M1_ROLE_W1:
		case M1_ROLE_W3:
		case M1_ROLE_QKV:
		case M1_ROLE_OUTPUT_GATE:
		case M1_ROLE_Q:
		case M1_ROLE_K:
		case M1_ROLE_V:
			return M1B_SPLIT_ROWS;
		case M1_ROLE_W2:
		case M1_ROLE_LIGHTNING_OUT:
		case M1_ROLE_SOFTMAX_OUT:
			return M1B_SPLIT_COLS;
		default:
			return M1B_WHOLE;
	}
}

void
m1_role_shape(m1_role role, const m1_config *c, int *rows, int *cols)
{
	const int width = c->heads * c->head_dim;
	const int kv_width = c->kv_heads * c->head_dim;
	const int d = c->hidden_size;
	const int shapes[M1_ROLES][2] = {
		[M1_ROLE_EMBED] = {c->vocab_size, d}, [M1_ROLE_FINAL_NORM] = {d, 0},
		[M1_ROLE_HEAD] = {c->vocab_size, d},  [M1_ROLE_INPUT_NORM] = {d, 0},
		[M1_ROLE_POST_NORM] = {d, 0},		  [M1_ROLE_ROUTER] = {c->experts, d},
		[M1_ROLE_W1] = {c->expert_width, d},  [M1_ROLE_W2] = {d, c->expert_width},
		[M1_ROLE_W3] = {c->expert_width, d},  [M1_ROLE_QKV] = {3 * width, d},
		[M1_ROLE_OUTPUT_GATE] = {width, d},	  [M1_ROLE_INNER_NORM] = {width, 0},
		[M1_ROLE_LIGHTNING_OUT] = {d, width}, [M1_ROLE_Q] = {width, d},
		[M1_ROLE_K] = {kv_width, d},		  [M1_ROLE_V] = {kv_width, d},
		[M1_ROLE_SOFTMAX_OUT] = {d, width},
	};

	*rows = shapes[role][0];
	*cols = shapes[role][1];
}

void
m1_role_name(m1_role role, m1_naming naming, int layer, int expert, char *to, size_t size)
{
	snprintf(to, size, names[role][naming], layer, expert);
}

int
m1_roles_of_layer(const m1_config *c, int layer, m1_role roles[M1_ROLES])
{
	static const m1_role lightning[] = {M1_ROLE_QKV, M1_ROLE_OUTPUT_GATE, M1_ROLE_INNER_NORM, M1_ROLE_LIGHTNING_OUT};
	static const m1_role softmax[] = {M1_ROLE_Q, M1_ROLE_K, M1_ROLE_V, M1_ROLE_SOFTMAX_OUT};
	static const m1_role rest[] = {M1_ROLE_POST_NORM, M1_ROLE_ROUTER, M1_ROLE_W1, M1_ROLE_W2, M1_ROLE_W3};
	int n = 0;

	roles[n++] = M1_ROLE_INPUT_NORM;
	for (int i = 0; i < 4; i++)
		roles[n++] = c->attention[layer] == M1_LIGHTNING ? lightning[i] : softmax[i];
	for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
		roles[n++] = rest[i];
	return n;
}

/* ---- finding ---- */

void
m1_describe_shape(const int64_t *shape, int dims, char *to, size_t size)
{
	size_t at = 0;

	to[0] = '\0';
	for (int i = 0; i < dims && at < size; i++)
		at += (size_t) snprintf(to + at, size - at, "%s%lld", i == 0 ? "[" : ", ", (long long) shape[i]);
	if (at < size)
		snprintf(to + at, size - at, dims == 0 ? "[]" : "]");
}

static m1_status
check_tensor(const m1_tensor *t, const int64_t *wanted, int dims, m1_naming naming, m1_error *err)
{
	if (t->dims != dims || memcmp(t->shape, wanted, (size_t) dims * sizeof *wanted) != 0)
	{
		char is[128];
		char should[128];

		m1_describe_shape(t->shape, t->dims, is, sizeof is);
		m1_describe_shape(wanted, dims, should, sizeof should);
		m1_fail(err, M1_E_CORRUPT, "tensor \"%.120s\" has the wrong shape", t->name);
		m1_error_detail(err, "It is %s in %s; %s for %s.", is, t->file,
						naming == M1_NAMES_GGUF ? "the file's keys ask" : "config.json asks", should);
		return M1_E_CORRUPT;
	}
	if (!t->usable)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.120s\" has a type that is not supported", t->name);
		m1_error_detail(err, "It is %s in %s; supported are F32, F16, BF16 and F8_E4M3.", t->type_name, t->file);
		return M1_E_UNSUPPORTED;
	}
	return M1_OK;
}

/* Whether a matrix may be F8_E4M3 here. */
static m1_status
check_fp8(m1_role role, const m1_tensor *t, const m1_config *c, m1_error *err)
{
	if (!m1_role_is_large(role))
	{
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.120s\" has a type that is not supported", t->name);
		m1_error_detail(err, "It is F8_E4M3 in %s; only the projections of attention and the experts may be.", t->file);
		return M1_E_UNSUPPORTED;
	}
	if (!c->fp8)
	{
		m1_fail(err, M1_E_CORRUPT, "config.json: quantization_config is missing");
		m1_error_detail(err, "Tensor \"%.120s\" is F8_E4M3 in %s.", t->name, t->file);
		return M1_E_CORRUPT;
	}
	if (t->shape[1] % M1_FP8_BLOCK != 0)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.120s\" has a width that is not supported", t->name);
		m1_error_detail(err, "It is F8_E4M3 in %s with rows of %lld, which are no multiple of %d.", t->file,
						(long long) t->shape[1], M1_FP8_BLOCK);
		return M1_E_UNSUPPORTED;
	}
	return M1_OK;
}

/* Finds the scales of an F8_E4M3 tensor. Scales without one are refused: they would change the results. */
static m1_status
find_scales(m1_role role, const m1_checkpoint *checkpoint, const m1_tensor *t, const m1_config *c, m1_weight *out,
			m1_error *err)
{
	const m1_tensor *scales;
	char name[sizeof out->name + sizeof M1_SCALE_SUFFIX];
	m1_status status;

	out->scales = NULL;
	snprintf(name, sizeof name, "%s" M1_SCALE_SUFFIX, out->name);
	scales = m1_checkpoint_find(checkpoint, name);
	if (t->type != M1B_F8_E4M3)
	{
		if (scales == NULL)
			return M1_OK;
		m1_fail(err, M1_E_CORRUPT, "tensor \"%.120s\" has scales that it has no use for", t->name);
		m1_error_detail(err, "It is %s in %s; \"%.140s\" is there as well.", t->type_name, t->file, name);
		return M1_E_CORRUPT;
	}
	if ((status = check_fp8(role, t, c, err)) != M1_OK)
		return status;
	if (scales == NULL)
	{
		m1_fail(err, M1_E_NOT_FOUND, "tensor \"%.140s\" is missing from the checkpoint", name);
		m1_error_detail(err, "It would hold the scales of \"%.120s\", which is F8_E4M3 in %s.", t->name, t->file);
		return M1_E_NOT_FOUND;
	}
	status =
		check_tensor(scales, (const int64_t[]){(out->rows + M1_FP8_BLOCK - 1) / M1_FP8_BLOCK, out->cols / M1_FP8_BLOCK},
					 2, M1_NAMES_SAFETENSORS, err);
	if (status == M1_OK && scales->type != M1B_F32 && scales->type != M1B_BF16)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%.140s\" has a type that is not supported", name);
		m1_error_detail(err, "It is %s in %s; scales may be F32 or BF16.", scales->type_name, scales->file);
		status = M1_E_UNSUPPORTED;
	}
	out->scales = scales->data;
	out->scale_type = scales->type;
	return status;
}

m1_status
m1_role_find(m1_role role, const m1_checkpoint *checkpoint, const m1_config *c, int layer, int expert, m1_weight *out,
			 m1_error *err)
{
	const m1_naming naming = m1_checkpoint_naming(checkpoint);
	const bool stacked = naming == M1_NAMES_GGUF && m1_role_of_expert(role);
	const m1_tensor *t;
	int64_t shape[3];
	int dims = 0;
	m1_status status;

	if (role == M1_ROLE_HEAD && c->tied_head)
		role = M1_ROLE_EMBED;
	m1_role_name(role, naming, layer, expert, out->name, sizeof out->name);
	m1_role_shape(role, c, &out->rows, &out->cols);
	if ((t = m1_checkpoint_find(checkpoint, out->name)) == NULL)
		return m1_fail(err, M1_E_NOT_FOUND, "tensor \"%s\" is missing from the checkpoint", out->name);
	if (stacked)
		shape[dims++] = c->experts;
	shape[dims++] = out->rows;
	if (out->cols > 0)
		shape[dims++] = out->cols;
	if ((status = check_tensor(t, shape, dims, naming, err)) != M1_OK)
		return status;
	out->type = t->type;
	out->bytes = stacked ? t->bytes / (size_t) c->experts : t->bytes;
	out->data = (const char *) t->data + (stacked ? (size_t) expert * out->bytes : 0);
	return find_scales(role, checkpoint, t, c, out, err);
}

/* Whether the config asks for a tensor of that name in a GGUF file. */
static bool
is_asked_for(const char *tensor, const m1_config *c)
{
	m1_role roles[M1_ROLES];
	char name[128];
	int layer;

	if (sscanf(tensor, "blk.%d.", &layer) != 1)
		return strcmp(tensor, names[M1_ROLE_EMBED][M1_NAMES_GGUF]) == 0 ||
			   strcmp(tensor, names[M1_ROLE_FINAL_NORM][M1_NAMES_GGUF]) == 0 ||
			   strcmp(tensor, names[M1_ROLE_HEAD][M1_NAMES_GGUF]) == 0;
	if (layer < 0 || layer >= c->layers)
		return false;
	for (int i = m1_roles_of_layer(c, layer, roles) - 1; i >= 0; i--)
	{
		m1_role_name(roles[i], M1_NAMES_GGUF, layer, 0, name, sizeof name);
		if (strcmp(name, tensor) == 0)
			return true;
	}
	return false;
}

m1_status
m1_role_refuse_others(const m1_checkpoint *checkpoint, const m1_config *c, m1_error *err)
{
	if (m1_checkpoint_naming(checkpoint) != M1_NAMES_GGUF)
		return M1_OK;
	for (size_t i = 0; i < m1_checkpoint_tensors(checkpoint); i++)
	{
		const m1_tensor *t = m1_checkpoint_tensor(checkpoint, i);

		if (!is_asked_for(t->name, c))
		{
			m1_fail(err, M1_E_UNSUPPORTED, "%s: tensor \"%.120s\" is not supported", t->file, t->name);
			m1_error_detail(err, "It could change the results, and this version does not know how.");
			return M1_E_UNSUPPORTED;
		}
	}
	return M1_OK;
}
