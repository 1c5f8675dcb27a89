/* learn_request.c - see learn_request.h. */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "engine/learn_request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/adapter_peft.h"
#include "model/adapter_plan.h"

_Static_assert((int) M1_LOSS_CE == (int) M1W_LOSS_CE && (int) M1_LOSS_CISPO == (int) M1W_LOSS_CISPO &&
				   (int) M1_LOSS_GRPO == (int) M1W_LOSS_GRPO && (int) M1_LOSS_DAPO == (int) M1W_LOSS_DAPO &&
				   M1_NO_EXPERT == M1W_NO_EXPERT,
			   "wire and trainer must agree");

static m1_status
no_memory(m1_error *err)
{
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a lesson");
}

/* ---- numbers ---- */

typedef struct range
{
	const char *what;
	double x, least, most;
} range;

/* NaN is in no range. */
static m1_status
check_ranges(const range *ranges, size_t n, m1_error *err)
{
	for (size_t i = 0; i < n; i++)
		if (!(ranges[i].x >= ranges[i].least && ranges[i].x <= ranges[i].most))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the %s must be from %g to %g", ranges[i].what, ranges[i].least,
						   ranges[i].most);
	return M1_OK;
}

static m1_status
check_numbers(const m1w_lesson *m, m1_error *err)
{
	const range ranges[] = {
		{"cap of a ratio", m->cap, 0.0, 1e6},
		{"lower bound of the trust region", m->low, 0.0, 1.0},
		{"upper bound of the trust region", m->high, 0.0, 1e6},
		{"weight of the divergence", m->kl, 0.0, 1e6},
		{"weight of the auxiliary loss", m->balance, 0.0, 1e6},
		{"temperature", m->temperature, 1e-3, 100.0},
		{"number of tokens", m->tokens, 0.0, 1e15},
		{"learning rate", m->rate, 0.0, 1.0},
		{"beta1 of AdamW", m->beta1, 0.0, 0.999999},
		{"beta2 of AdamW", m->beta2, 0.0, 0.999999},
		{"epsilon of AdamW", m->eps, 1e-30, 1.0},
		{"weight decay", m->weight_decay, 0.0, 1e6},
		{"gradient's largest norm", m->clip, 0.0, 1e30},
	};

	return check_ranges(ranges, sizeof ranges / sizeof *ranges, err);
}

/* ---- arrays ---- */

/* A copy that is aligned, of `unit` bytes each; NULL for none. */
static m1_status
copy_array(m1_slice from, size_t n, size_t unit, const char *what, bool optional, void **out, m1_error *err)
{
	*out = NULL;
	if (from.len == 0 && (optional || n == 0))
		return M1_OK;
	if (from.len / unit != n)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has %zu %s instead of %zu", from.len / unit, what, n);
	if ((*out = malloc(from.len)) == NULL)
		return no_memory(err);
	memcpy(*out, from.data, from.len);
	return M1_OK;
}

static m1_status
copy_floats(m1_slice from, size_t n, const char *what, bool optional, float **out, m1_error *err)
{
	void *copy;
	m1_status status = copy_array(from, n, sizeof **out, what, optional, &copy, err);

	*out = copy;
	for (size_t i = 0; copy != NULL && i < n; i++)
		if (!isfinite((*out)[i]))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson's %s are not all finite numbers", what);
	return status;
}

static m1_status
copy_ids(m1_learn_request *r, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	void *copy;
	m1_status status = copy_array((m1_slice){(const char *) m->ids.data, m->ids.len * sizeof(int32_t)}, m->ids.len,
								  sizeof(int32_t), "ids", false, &copy, err);

	r->ids = copy;
	r->tokens = m->ids.len;
	return status;
}

static m1_status
copy_arrays(m1_learn_request *r, const m1_config *c, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	const bool ratios = m->loss != M1W_LOSS_CE;
	const size_t of_token = (size_t) c->layers * (size_t) c->experts_per_token;
	void *copy;
	m1_status status;

	if ((status = copy_ids(r, err)) != M1_OK ||
		(status = copy_floats(m->advantages, (size_t) r->n, "advantages", !ratios, &r->advantages, err)) != M1_OK ||
		(status = copy_floats(m->weights, r->tokens, "weights", true, &r->weights, err)) != M1_OK ||
		(status = copy_floats(m->old_logprobs, r->tokens, "old_logprobs", !ratios, &r->old_logprobs, err)) != M1_OK ||
		(status = copy_floats(m->ref_logprobs, r->tokens, "ref_logprobs", true, &r->ref_logprobs, err)) != M1_OK)
		return status;
	status = copy_array(m->experts, r->tokens * of_token, sizeof *r->experts, "experts", true, &copy, err);
	r->experts = copy;
	if (status == M1_OK && m->want_logprobs && (r->logprobs = calloc(r->tokens, sizeof *r->logprobs)) == NULL)
		return no_memory(err);
	return status;
}

/* Answers under one grammar have most of their masks in common. */
static m1_status
copy_masks(m1_learn_request *r, const m1_config *c, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	const size_t words = ((size_t) c->vocab_size + 63) / 64;
	const bool shared = m->mask_of.len > 0;
	const size_t n = shared ? m->masks.len / (words * sizeof *r->masks) : m->masked.len;
	int32_t last = -1;
	void *copy;
	m1_status status = copy_array(m->masks, n * words, sizeof *r->masks, "words of masks", false, &copy, err);

	r->masks = copy;
	if (status == M1_OK && shared && m->mask_of.len != m->masked.len)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has %zu numbers of masks instead of %zu", m->mask_of.len,
					   m->masked.len);
	if (status != M1_OK || m->masked.len == 0)
		return status;
	if ((r->allowed = calloc(r->tokens, sizeof *r->allowed)) == NULL)
		return no_memory(err);
	for (size_t i = 0; i < m->masked.len; i++)
	{
		const int32_t at = m1w_id_at(m->masked, i);
		const size_t number = shared ? (size_t) m1w_id_at(m->mask_of, i) : i;

		if (at <= last || (size_t) at >= r->tokens)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has a mask of token %d, out of order or range", at);
		if (number >= n)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has no mask of number %zu", number);
		r->allowed[at] = r->masks + number * words;
		last = at;
	}
	return M1_OK;
}

/* ---- sequences ---- */

static void *
at(void *array, size_t unit, size_t from)
{
	return array != NULL ? (char *) array + from * unit : NULL;
}

static m1_status
make_sequences(m1_learn_request *r, const m1_config *c, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	const size_t of_token = (size_t) c->layers * (size_t) c->experts_per_token;
	size_t from = 0;

	if ((r->sequences = calloc((size_t) r->n, sizeof *r->sequences)) == NULL)
		return no_memory(err);
	for (int i = 0; i < r->n; i++)
	{
		const int32_t n = m1w_id_at(m->lengths, (size_t) i);
		const int32_t prompt = m1w_id_at(m->prompts, (size_t) i);

		if (n < 1 || (size_t) n > r->tokens - from || prompt < 0 || prompt > n)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d cannot have %d tokens with a prompt of %d", i, n,
						   prompt);
		r->sequences[i] = (m1_sequence){
			.tokens = r->ids + from,
			.n = n,
			.prompt = prompt,
			.share = m->shares.len > 0 ? m1w_id_at(m->shares, (size_t) i) : -1,
			.advantage = r->advantages != NULL ? r->advantages[i] : 0.0f,
			.weight = at(r->weights, sizeof(float), from),
			.old_logprob = at(r->old_logprobs, sizeof(float), from),
			.ref_logprob = at(r->ref_logprobs, sizeof(float), from),
			.allowed = r->allowed != NULL ? r->allowed + from : NULL,
			.experts = at(r->experts, of_token * sizeof(uint16_t), from),
			.logprob = at(r->logprobs, sizeof(float), from),
		};
		from += (size_t) n;
	}
	return from == r->tokens
			   ? M1_OK
			   : m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has %zu ids, and sequences of %zu", r->tokens, from);
}

/* Of cross entropy, the mean is by weights. */
static double
sum_of_weights(const m1_learn_request *r)
{
	double sum = 0.0;

	for (int i = 0; i < r->n; i++)
		for (int t = r->sequences[i].prompt > 0 ? r->sequences[i].prompt : 1; t < r->sequences[i].n; t++)
			sum += r->sequences[i].weight != NULL ? r->sequences[i].weight[t] : 1.0f;
	return sum;
}

static m1_status
prepare_lesson(m1_learn_request *r, const m1_model *model, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	const m1_config *c = &model->config;
	m1_status status = check_numbers(m, err);

	if (status != M1_OK)
		return status;
	if (m->lengths.len == 0 || m->lengths.len > INT32_MAX / 2 || m->prompts.len != m->lengths.len ||
		(m->shares.len > 0 && m->shares.len != m->lengths.len) || m->ids.len > INT32_MAX / 2)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the lesson has %zu lengths, %zu prompts and %zu shares",
					   m->lengths.len, m->prompts.len, m->shares.len);
	r->n = (int) m->lengths.len;
	if ((status = copy_arrays(r, c, err)) != M1_OK || (status = copy_masks(r, c, err)) != M1_OK ||
		(status = make_sequences(r, c, err)) != M1_OK)
		return status;
	r->objective = (m1_objective){.loss = (m1_loss_kind) m->loss,
								  .cap = m->cap,
								  .low = m->low,
								  .high = m->high,
								  .kl = m->kl,
								  .balance = m->balance,
								  .temperature = m->temperature,
								  .tokens = m->tokens};
	if (m->loss == M1W_LOSS_CE && m->tokens == 0.0)
		r->objective.tokens = sum_of_weights(r);
	r->adamw = (m1_adamw_options){.rate = m->rate,
								  .beta1 = m->beta1,
								  .beta2 = m->beta2,
								  .eps = m->eps,
								  .weight_decay = m->weight_decay,
								  .clip = m->clip};
	return M1_OK;
}

/* ---- the others ---- */

static m1_status
find_base(m1_learn_request *r, const m1_model *model, m1_error *err)
{
	return m1_digest(model->source, &model->config, model->checkpoint, r->base, err);
}

size_t
m1_learn_most_bytes(void)
{
	return m1_machine_memory() / 16;
}

static m1_status
prepare_training(m1_learn_request *r, const m1_model *model, m1_work *work, m1_error *err)
{
	const m1w_training *m = &r->message.training;
	m1_adapter_plan plan = {.rank = m->rank,
							.expert_rank = m->expert_rank,
							.alpha = m->alpha,
							.seed = m->seed,
							.most_bytes = m1_learn_most_bytes(),
							.work = work};
	m1_status status = find_base(r, model, err);

	if (status != M1_OK || m->from.len > 0)
		return status;
	status = m1_adapter_plan_targets(&plan, m->targets, err);
	return status == M1_OK ? m1_adapter_create(&plan, &model->config, model->checkpoint, &r->adapter, err) : status;
}

static m1_status
check_bytes(const m1_learn_request *r, m1_error *err)
{
	const m1w_bytes *m = &r->message.bytes;
	const bool fetch = r->type == M1W_FETCH;

	if (fetch ? m->most == 0 || m->most > M1W_MAX_PAYLOAD / 2 || m->bytes.len > 0 || m->total > 0
			  : m->most > 0 || m->bytes.len == 0 || m->offset > m->total || m->bytes.len > m->total - m->offset)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a piece of %zu bytes at %llu of %llu makes no sense", m->bytes.len,
					   (unsigned long long) m->offset, (unsigned long long) m->total);
	return M1_OK;
}

static m1_status
prepare(m1_learn_request *r, const m1_model *model, m1_work *work, m1_error *err)
{
	const char *payload = r->payload.data;
	const size_t len = r->payload.len;
	m1_status status;

	switch (r->type)
	{
		case M1W_PUT:
		case M1W_FETCH:
			status = m1w_decode_bytes(payload, len, &r->message.bytes, err);
			return status == M1_OK ? check_bytes(r, err) : status;
		case M1W_TRAINING:
			status = m1w_decode_training(payload, len, &r->message.training, err);
			return status == M1_OK ? prepare_training(r, model, work, err) : status;
		case M1W_LESSON:
			status = m1w_decode_lesson(payload, len, &r->message.lesson, err);
			return status == M1_OK ? prepare_lesson(r, model, err) : status;
		case M1W_SERVE:
			status = m1w_decode_serve(payload, len, &r->message.serve, err);
			return status == M1_OK ? find_base(r, model, err) : status;
		default:
			return m1w_decode_forget(payload, len, &r->message.forget, err);
	}
}

m1_status
m1_learn_request_create(const m1_model *model, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work,
						m1_learn_request **out, m1_error *err)
{
	m1_learn_request *r = calloc(1, sizeof *r);
	m1_status status;

	*out = NULL;
	if (r == NULL)
	{
		m1_buf_free(payload);
		return no_memory(err);
	}
	r->id = id;
	r->type = type;
	r->payload = *payload;
	*payload = (m1_buf){0};
	if ((status = prepare(r, model, work, err)) != M1_OK)
	{
		m1_learn_request_free(r);
		return status;
	}
	*out = r;
	return M1_OK;
}

static m1_status
read_adapter(m1_learn_request *r, const m1_model *model, m1_error *err)
{
	const m1_slice bytes = {r->bytes->bytes.data, r->bytes->bytes.len};
	const m1_adapter_base base = m1_model_adapter_base(model);

	if (bytes.len < r->bytes->total)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "only %zu of %llu bytes have been put", bytes.len,
					   (unsigned long long) r->bytes->total);
	if (m1_adapter_is_peft(bytes))
		return m1_adapter_of_peft(bytes, &base, &r->adapter, err);
	return m1_adapter_of_bytes(bytes, r->base, &model->config, &r->adapter, &r->facts, &r->moments, err);
}

m1_status
m1_learn_request_make_adapter(m1_learn_request *r, const m1_model *model, m1_error *err)
{
	m1_status status = read_adapter(r, model, err);

	if (status == M1_OK && r->moments != NULL)
		return M1_OK;
	m1_kept_free(r->bytes);
	r->bytes = NULL;
	return status;
}

void
m1_learn_request_free(m1_learn_request *r)
{
	if (r == NULL)
		return;
	m1_adapter_free(r->adapter);
	m1_kept_free(r->bytes);
	m1_buf_free(&r->payload);
	free(r->sequences);
	if (r->ids != NULL)
		explicit_bzero(r->ids, r->tokens * sizeof *r->ids);
	free(r->ids);
	free(r->weights);
	free(r->old_logprobs);
	free(r->ref_logprobs);
	free(r->logprobs);
	free(r->advantages);
	free(r->experts);
	free(r->masks);
	free(r->allowed);
	free(r);
}
