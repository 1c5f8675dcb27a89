/* digest.c - see digest.h. */
#include "model/digest.h"

#include <stdio.h>
#include <string.h>

#include "blocks/blocks.h"
#include "model/roles.h"

#define SPOTS 4			/* places of a weight that are looked at */
#define SPOT_WEIGHTS 16 /* numbers at each */
#define MAX_BLOCK 256	/* weights of a block of any type */

static uint64_t
mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	hash ^= hash >> 29;
	hash *= UINT64_C(0xbf58476d1ce4e5b9);
	return hash ^ hash >> 32;
}

static uint64_t
mix_text(uint64_t hash, const char *text)
{
	for (; *text != '\0'; text++)
		hash = mix(hash, (unsigned char) *text);
	return hash;
}

static uint64_t
mix_float(uint64_t hash, float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return mix(hash, bits);
}

static uint64_t
mix_config(uint64_t hash, const m1_config *c)
{
	const int sizes[] = {c->vocab_size, c->hidden_size,		  c->layers,	 c->heads,
						 c->kv_heads,	c->head_dim,		  c->rotary_dim, c->expert_width,
						 c->experts,	c->experts_per_token, c->postnorm,	 c->tied_head};
	const float factors[] = {c->rms_norm_eps,  c->rope_theta,	c->alpha_lightning, c->beta_lightning,
							 c->alpha_softmax, c->beta_softmax, c->alpha_mlp,		c->beta_mlp};

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		hash = mix(hash, (uint64_t) sizes[i]);
	for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
		hash = mix_float(hash, factors[i]);
	for (int i = 0; i < c->layers; i++)
		hash = mix(hash, c->attention[i]);
	return hash;
}

/* SPOT_WEIGHTS numbers of a weight from number `at` on, which no block divides. */
static void
read_spot(const m1_weight *w, size_t at, float *to)
{
	const size_t block = (size_t) m1b_block_weights(w->type);
	const size_t cols = (size_t) w->cols;
	float numbers[MAX_BLOCK];

	if (w->scales == NULL)
	{
		const size_t n = block > SPOT_WEIGHTS ? block : SPOT_WEIGHTS;

		m1b_dequantize(w->type, (const char *) w->data + m1b_bytes(w->type, at), n, numbers);
		memcpy(to, numbers, SPOT_WEIGHTS * sizeof *to);
		return;
	}
	for (size_t i = 0; i < SPOT_WEIGHTS; i++)
	{
		const size_t row = (at + i) / cols;
		const size_t scale = row / M1_FP8_BLOCK * (cols / M1_FP8_BLOCK) + (at + i) % cols / M1_FP8_BLOCK;
		float factor;

		m1b_dequantize(w->scale_type, (const char *) w->scales + m1b_bytes(w->scale_type, scale), 1, &factor);
		to[i] = factor * m1b_e4m3_to_float(((const uint8_t *) w->data)[at + i]);
	}
}

static uint64_t
mix_weight(uint64_t hash, const m1_weight *w, const char *name)
{
	const size_t n = (size_t) w->rows * (size_t) (w->cols > 0 ? w->cols : 1);
	const size_t block = w->scales != NULL ? 1 : (size_t) m1b_block_weights(w->type);
	uint64_t place = mix_text(1, name);

	hash = mix(mix(mix_text(hash, name), (uint64_t) w->rows), (uint64_t) w->cols);
	for (int spot = 0; spot < SPOTS && n >= SPOT_WEIGHTS; spot++)
	{
		float numbers[SPOT_WEIGHTS];
		size_t at;

		place = mix(place, (uint64_t) spot);
		at = place % (n - SPOT_WEIGHTS + 1) / MAX_BLOCK * MAX_BLOCK;
		if (block > 1 && at + block > n)
			at = n - block;
		read_spot(w, at, numbers);
		for (int i = 0; i < SPOT_WEIGHTS; i++)
			hash = mix_float(hash, numbers[i]);
	}
	return hash;
}

static m1_status
mix_role(uint64_t *hash, m1_role role, const m1_config *c, const m1_checkpoint *checkpoint, int layer, m1_error *err)
{
	for (int expert = 0; expert < (m1_role_of_expert(role) ? c->experts : 1); expert++)
	{
		m1_weight w;
		char name[sizeof w.name];
		m1_status status = m1_role_find(role, checkpoint, c, layer, expert, &w, err);

		if (status != M1_OK)
			return status;
		m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, name, sizeof name);
		*hash = mix_weight(*hash, &w, name);
	}
	return M1_OK;
}

static m1_status
mix_weights(uint64_t *hash, const m1_config *c, const m1_checkpoint *checkpoint, m1_error *err)
{
	const m1_role single[] = {M1_ROLE_EMBED, M1_ROLE_FINAL_NORM, M1_ROLE_HEAD};
	m1_role roles[M1_ROLES];
	m1_status status;

	for (int i = 0; i < 3; i++)
		if ((status = mix_role(hash, single[i], c, checkpoint, 0, err)) != M1_OK)
			return status;
	for (int layer = 0; layer < c->layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(c, layer, roles); i < n; i++)
			if ((status = mix_role(hash, roles[i], c, checkpoint, layer, err)) != M1_OK)
				return status;
	return M1_OK;
}

m1_status
m1_digest(const m1_source *source, const m1_config *config, const m1_checkpoint *checkpoint, char text[M1_DIGEST_SIZE],
		  m1_error *err)
{
	const m1_gguf *gguf = m1_source_gguf(source);
	const m1_slice named = gguf != NULL ? m1_gguf_text(m1_gguf_find(gguf, M1_DIGEST_KEY)) : (m1_slice){0};
	uint64_t hash = mix_config(1, config);
	m1_status status;

	if (named.data != NULL && named.len == M1_DIGEST_SIZE - 1)
	{
		memcpy(text, named.data, named.len);
		text[named.len] = '\0';
		return M1_OK;
	}
	if ((status = mix_weights(&hash, config, checkpoint, err)) == M1_OK)
		snprintf(text, M1_DIGEST_SIZE, "%016llx", (unsigned long long) hash);
	return status;
}
