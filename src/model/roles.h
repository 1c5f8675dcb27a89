/*
 * roles.h - the weights that a config asks for: what each is for, its shape, and how either kind of checkpoint calls
 * it. The loader and the converter share this.
 *
 * Stateless; any thread.
 */
#ifndef M1_MODEL_ROLES_H
#define M1_MODEL_ROLES_H

#include "backend/backend.h" /* m1b_split */
#include "files/checkpoint.h"
#include "model/config.h"

typedef enum m1_role
{
	M1_ROLE_EMBED,
	M1_ROLE_FINAL_NORM,
	M1_ROLE_HEAD, /* the embedding's tensor when tied */
	/* of each layer */
	M1_ROLE_INPUT_NORM,
	M1_ROLE_POST_NORM,
	M1_ROLE_ROUTER,
	M1_ROLE_W1, /* of each expert */
	M1_ROLE_W2,
	M1_ROLE_W3,
	/* of each lightning layer */
	M1_ROLE_QKV,
	M1_ROLE_OUTPUT_GATE,
	M1_ROLE_INNER_NORM,
	M1_ROLE_LIGHTNING_OUT,
	/* of each softmax layer */
	M1_ROLE_Q,
	M1_ROLE_K,
	M1_ROLE_V,
	M1_ROLE_SOFTMAX_OUT,
	M1_ROLES
} m1_role;

/* One matrix [rows, cols], or vector [rows] with cols 0, inside a checkpoint's file. */
typedef struct m1_weight
{
	const void *data;
	size_t bytes;
	m1b_dtype type;
	int rows, cols;
	/* of F8_E4M3, which a checkpoint has in two parts: [rows / 128, cols / 128], of F32 or BF16; else NULL */
	const void *scales;
	m1b_dtype scale_type;
	char name[128]; /* of the tensor that it is, or is a part of */
} m1_weight;

/* The tensor with the scales of an F8_E4M3 tensor is called as that one, and this. Numbers are multiplied by them. */
#define M1_SCALE_SUFFIX "_scale_inv"

void m1_role_shape(m1_role role, const m1_config *config, int *rows, int *cols);
/* Whether every expert of a layer has one of its own. */
bool m1_role_of_expert(m1_role role);
/* Whether it is one of the large matrices that may be quantized: attention projections and experts. */
bool m1_role_is_large(m1_role role);

/* How several devices divide the matrix among them: by heads, by the experts' inner width, by the head's outputs. */
m1b_split m1_role_split(m1_role role);

/* Writes the tensor's name. In GGUF files the tensor holds all experts, one after the other. */
void m1_role_name(m1_role role, m1_naming naming, int layer, int expert, char *to, size_t size);

/* The roles of one layer, in the order that files have them; returns their number. */
int m1_roles_of_layer(const m1_config *config, int layer, m1_role roles[M1_ROLES]);

/*
 * Finds one weight, and the scales that belong to it. The error names a tensor that is missing, has another shape or a
 * type that is not supported.
 */
m1_status m1_role_find(m1_role role, const m1_checkpoint *checkpoint, const m1_config *config, int layer, int expert,
					   m1_weight *out, m1_error *err);

/* "[64, 128]", as errors tell a shape */
void m1_describe_shape(const int64_t *shape, int dims, char *to, size_t size);

/* A GGUF file may hold nothing else: what is not used, such as a bias, would change the results. */
m1_status m1_role_refuse_others(const m1_checkpoint *checkpoint, const m1_config *config, m1_error *err);

#endif
