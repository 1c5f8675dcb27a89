/* kept_reply.c - see kept_reply.h. */
#include "engine/kept_reply.h"

#include <stdlib.h>
#include <string.h>

#include "model/forward.h"
#include "model/sampler.h"

#define CLOSE_TOKENS 64 /* of the closing tag, which may come on top of max_tokens */

/* All travels in one message: experts and probabilities take half of it at most, and masks most of the rest. */
#define MOST_BYTES (M1W_MAX_PAYLOAD / 2)
#define MOST_MASK_BYTES ((size_t) M1W_MAX_PAYLOAD * 3 / 8)

struct m1_kept_reply
{
	int vocab;
	size_t experts_of_token; /* in all layers */
	size_t words;			 /* of a mask */
	size_t prompt_tokens;
	uint16_t *experts; /* [prompt and reply, experts_of_token] */
	float *logprobs;   /* [most] */
	size_t most;	   /* tokens of the reply */
	float next;		   /* of the token that was measured last */
	m1_ids masked;
	m1_ids mask_of;
	m1_buf masks; /* no two are equal */
};

static m1_status
no_memory(m1_error *err)
{
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the reply");
}

static m1_status
check_size(size_t tokens, size_t bytes_of_token, m1_error *err)
{
	const size_t most = MOST_BYTES / bytes_of_token;

	if (tokens <= most)
		return M1_OK;
	m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the reply is too long to be kept for learning");
	m1_error_detail(err, "Prompt and reply may have %zu tokens; %zu can be kept.", tokens, most);
	m1_error_hint(err, "Use a smaller {max_tokens}.");
	return M1_E_CONTEXT_OVERFLOW;
}

m1_status
m1_kept_reply_create(const m1_model *model, int prompt_tokens, int max_tokens, m1_kept_reply **out, m1_error *err)
{
	const size_t of_token = (size_t) model->config.layers * (size_t) model->config.experts_per_token;
	const size_t reply = (size_t) max_tokens + CLOSE_TOKENS;
	const size_t tokens = (size_t) prompt_tokens + reply;
	m1_kept_reply *k;
	m1_status status;

	*out = NULL;
	if (!m1_forward_can_keep_choices(model))
	{
		m1_fail(err, M1_E_UNSUPPORTED, "this device cannot learn: %s", m1_model_device(model));
		m1_error_hint(err, "Set {device} to cpu.");
		return M1_E_UNSUPPORTED;
	}
	if ((status = check_size(tokens, of_token * sizeof *k->experts + sizeof *k->logprobs, err)) != M1_OK)
		return status;
	if ((k = calloc(1, sizeof *k)) == NULL)
		return no_memory(err);
	k->vocab = model->config.vocab_size;
	k->experts_of_token = of_token;
	k->words = ((size_t) model->config.vocab_size + 63) / 64;
	k->prompt_tokens = (size_t) prompt_tokens;
	k->most = reply;
	k->experts = malloc(tokens * of_token * sizeof *k->experts);
	k->logprobs = calloc(reply, sizeof *k->logprobs);
	if (k->experts == NULL || k->logprobs == NULL)
	{
		m1_kept_reply_free(k);
		return no_memory(err);
	}
	memset(k->experts, 0xff, tokens * of_token * sizeof *k->experts); /* M1W_NO_EXPERT */
	*out = k;
	return M1_OK;
}

void
m1_kept_reply_free(m1_kept_reply *k)
{
	if (k == NULL)
		return;
	free(k->experts);
	free(k->logprobs);
	m1_ids_free(&k->masked);
	m1_ids_free(&k->mask_of);
	m1_buf_free(&k->masks);
	free(k);
}

uint16_t *
m1_kept_reply_experts(m1_kept_reply *k, int position)
{
	return k->experts + (size_t) position * k->experts_of_token;
}

void
m1_kept_reply_measure(m1_kept_reply *k, const float *logits, float temperature, const uint64_t *mask, int32_t id)
{
	k->next = m1_logprob_of(logits, k->vocab, temperature, mask, id);
}

/* Where it is among the masks, from 0; it may be the next. One of the last is likely to be the same. */
static size_t
number_of(const m1_kept_reply *k, const uint64_t *mask)
{
	const size_t bytes = k->words * sizeof *mask;
	const size_t n = k->masks.len / bytes;

	for (size_t i = n; i-- > 0;)
		if (memcmp(k->masks.data + i * bytes, mask, bytes) == 0)
			return i;
	return n;
}

static m1_status
too_many_masks(size_t bytes, m1_error *err)
{
	m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the form of the reply takes too many masks to be kept for learning");
	m1_error_detail(err, "There are more than %zu different ones, of %zu bytes each.", MOST_MASK_BYTES / bytes, bytes);
	m1_error_hint(err, "Use a smaller {max_tokens}, or a simpler form.");
	return M1_E_CONTEXT_OVERFLOW;
}

static m1_status
add_mask(m1_kept_reply *k, size_t at, const uint64_t *mask, m1_error *err)
{
	const size_t bytes = k->words * sizeof *mask;
	const size_t number = number_of(k, mask);

	if (number * bytes == k->masks.len && k->masks.len + bytes > MOST_MASK_BYTES)
		return too_many_masks(bytes, err);
	if (number * bytes == k->masks.len && !m1_buf_append(&k->masks, mask, bytes))
		return no_memory(err);
	return m1_ids_push(&k->masked, (int32_t) at) && m1_ids_push(&k->mask_of, (int32_t) number) ? M1_OK : no_memory(err);
}

m1_status
m1_kept_reply_sampled(m1_kept_reply *k, size_t at, const uint64_t *mask, m1_error *err)
{
	if (at < k->most)
		k->logprobs[at] = k->next;
	return mask == NULL ? M1_OK : add_mask(k, at, mask, err);
}

m1_status
m1_kept_reply_written(m1_kept_reply *k, size_t at, int32_t id, m1_error *err)
{
	uint64_t *mask = calloc(k->words, sizeof *mask);
	m1_status status;

	if (mask == NULL)
		return no_memory(err);
	mask[id / 64] = (uint64_t) 1 << id % 64;
	status = add_mask(k, at, mask, err);
	free(mask);
	return status;
}

void
m1_kept_reply_put(const m1_kept_reply *k, const m1_ids *tokens, m1w_done *done)
{
	done->prompt_ids = (m1w_id_slice){tokens->data, k->prompt_tokens};
	done->ids = (m1w_id_slice){tokens->data + k->prompt_tokens, tokens->len - k->prompt_tokens};
	done->sampled_logprobs = (m1_slice){(const char *) k->logprobs, done->ids.len * sizeof *k->logprobs};
	done->experts = (m1_slice){(const char *) k->experts, tokens->len * k->experts_of_token * sizeof *k->experts};
	done->masked = (m1w_id_slice){k->masked.data, k->masked.len};
	done->masks = (m1_slice){k->masks.data, k->masks.len};
	done->mask_of = (m1w_id_slice){k->mask_of.data, k->mask_of.len};
}
