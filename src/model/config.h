/*
 * config.h - what a checkpoint says about its model, in config.json or in the keys of a GGUF file: everything that
 * changes the arithmetic is honoured, or refused by name.
 */
#ifndef M1_MODEL_CONFIG_H
#define M1_MODEL_CONFIG_H

#include <stdbool.h>

#include "base/status.h"
#include "files/gguf.h"

#define M1_MAX_LAYERS 1024
#define M1_FP8_BLOCK 128				  /* rows and columns that share a scale */
#define M1_GGUF_ARCHITECTURE "minimax-01" /* as GGUF files call M1 and Text-01 */

typedef enum m1_attention_type
{
	M1_LIGHTNING = 0, /* as attn_type_list spells it */
	M1_SOFTMAX = 1,
} m1_attention_type;

typedef struct m1_config
{
	char architecture[64];
	int vocab_size;	 /* rows of the embedding table, dead ones included */
	int hidden_size; /* d */
	int layers;
	unsigned char attention[M1_MAX_LAYERS]; /* m1_attention_type */
	int heads;								/* H; heads * head_dim need not equal hidden_size */
	int kv_heads;							/* KV */
	int head_dim;							/* D */
	int rotary_dim;
	float rope_theta;
	int expert_width; /* F */
	int experts;	  /* E */
	int experts_per_token;
	float rms_norm_eps;
	bool postnorm;					   /* the residual is the normalised tensor */
	bool tied_head;					   /* lm_head is embed_tokens */
	float alpha_softmax, beta_softmax; /* x = alpha * residual + beta * branch */
	float alpha_lightning, beta_lightning;
	float alpha_mlp, beta_mlp;
	int max_context; /* max_position_embeddings */
	bool fp8;		 /* quantization_config: matrices may be F8_E4M3, with a scale for each 128 x 128 */
} m1_config;

/* Reads dir/config.json. The error names the field. */
m1_status m1_config_load(const char *dir, m1_config *config, m1_error *err);
/* Reads the keys of a file of architecture "minimax-01". The error names the key. */
m1_status m1_config_load_gguf(const m1_gguf *gguf, m1_config *config, m1_error *err);

/* The decay lambda of one head of one layer: slope of the head, falling with the layer's depth. */
float m1_config_decay(const m1_config *config, int layer, int head);

#endif
