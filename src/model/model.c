/* model.c - see model.h. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/adapter_files.h"
#include "model/forward.h"

m1_status
m1_model_not_finite(m1_error *err)
{
	m1_fail(err, M1_E_CORRUPT, "the model computes values that are not finite numbers");
	m1_error_hint(err, "Its weights, or those of the adapter, hold some, or are damaged: check the files, and how they "
					   "were converted.");
	return M1_E_CORRUPT;
}

/* auto is the GPU where there is one. */
static bool
is_gpu(const char *device)
{
	return strcmp(device, "cuda") == 0 || (strcmp(device, "auto") == 0 && m1b_cuda_present());
}

int
m1_model_prefill_chunk(const char *device)
{
	return is_gpu(device) ? 4096 : 256;
}

/* A device that was asked for by name is never replaced by another. */
static m1_status
open_backend(const m1_model_options *o, m1b_backend **out, m1_error *err)
{
	const m1b_cuda_options cuda = {.gpus = o->gpus, .log = o->log, .log_context = o->log_context};

	if (is_gpu(o->device))
		return m1b_cuda_open(&cuda, out, err);
	if (strcmp(o->device, "cpu") != 0 && strcmp(o->device, "auto") != 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "unknown device \"%.40s\": it must be auto, cpu or cuda", o->device);
	return m1b_cpu_open(o->threads, o->isa, out, err);
}

/* ---- adapters ---- */

const m1_adapter *
m1_model_adapter(const m1_model *m, int number)
{
	return m1_adapter_set_get(m->adapters, number);
}

static m1_status
check_device(const m1_model *m, m1_error *err)
{
	if (m->backend->ops->prepare_adapters != NULL)
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "adapters cannot be used on a GPU yet");
	m1_error_hint(err, "Merge the adapter into the model, or use {device} cpu.");
	return M1_E_UNSUPPORTED;
}

m1_status
m1_model_add_adapter(m1_model *m, m1_slice name, m1_adapter *adapter, m1_error *err)
{
	m1_status status = check_device(m, err);

	if (status == M1_OK)
		status = m->backend->ops->prepare_adapters(m->backend, m1_adapter_max_rank(adapter), err);
	return status == M1_OK ? m1_adapter_set_add(m->adapters, name, adapter, err) : status;
}

m1_adapter_base
m1_model_adapter_base(const m1_model *m)
{
	return (m1_adapter_base){.source = m->source, .config = &m->config, .checkpoint = m->checkpoint};
}

/* Errors do not say which of several adapters they are of. */
static m1_status
load_adapter(m1_model *m, const m1_adapter_option *o, m1_error *err)
{
	const m1_adapter_base base = m1_model_adapter_base(m);
	m1_adapter *adapter;
	m1_error why = {0};
	m1_status status;

	if ((status = m1_adapter_load(o->path, &base, &adapter, &why)) != M1_OK)
	{
		*err = why;
		snprintf(err->message, sizeof err->message, "adapter \"%.40s\": %.200s", o->name, why.message);
		return status;
	}
	if ((status = m1_adapter_set_add(m->adapters, m1_slice_of(o->name), adapter, err)) != M1_OK)
		m1_adapter_free(adapter);
	return status;
}

/* Before the weights, which take longer, and before memory is planned. */
static m1_status
load_adapters(m1_model *m, const m1_model_options *o, m1_error *err)
{
	m1_status status = o->n_adapters > 0 ? check_device(m, err) : M1_OK;

	for (int i = 0; i < o->n_adapters && status == M1_OK; i++)
		status = load_adapter(m, &o->adapters[i], err);
	return status;
}

static m1_status
prepare_adapters(m1_model *m, m1_error *err)
{
	const int max_rank = m1_adapter_set_max_rank(m->adapters);

	return max_rank > 0 ? m->backend->ops->prepare_adapters(m->backend, max_rank, err) : M1_OK;
}

/* ---- opening ---- */

static m1_status
configure_backend(m1_model *m, const m1_model_options *o, m1_error *err)
{
	const m1_config *c = &m->config;
	m1_weights_size weights;
	m1b_geometry g = {
		.heads = c->heads,
		.kv_heads = c->kv_heads,
		.head_dim = c->head_dim,
		.rotary_dim = c->rotary_dim,
		.rope_theta = c->rope_theta,
		.max_context = m->max_context,
		.max_states = m->max_sequences,
		.max_tokens = m->max_batch_tokens,
		.max_moe_pairs = m->max_batch_tokens * c->experts_per_token,
		.expert_width = c->expert_width,
		.hidden = c->hidden_size,
		.experts = c->experts,
		.vocab = c->vocab_size,
		.kv_bytes = o->kv_bytes,
		.snapshot_bytes = o->snapshot_bytes,
	};
	m1b_memory memory;
	m1_status status;

	for (int i = 0; i < c->layers; i++)
		if (c->attention[i] == M1_LIGHTNING)
			g.lightning_layers++;
		else
			g.softmax_layers++;
	if ((status = m1_weights_measure(m->checkpoint, c, o->weight_format, &weights, err)) != M1_OK)
		return status;
	m->weight_bytes = weights.bytes;
	g.weight_bytes = weights.matrix_bytes + m1_adapter_set_bytes(m->adapters);
	g.whole_bytes = weights.whole_bytes;
	g.weight_matrices = weights.matrices;
	g.scratch_bytes = weights.vector_bytes + m1_forward_bytes(m);
	g.f32_weights = weights.f32_experts;
	g.bf16_experts = weights.bf16_experts;
	g.integer_experts = weights.integer_experts;
	if ((status = m->backend->ops->configure(m->backend, &g, err)) != M1_OK)
		return status;
	/* what could never be held is refused as too long for the context, at once */
	memory = m->backend->ops->memory(m->backend);
	m->page_tokens = memory.page_tokens;
	if (m->max_context / memory.page_tokens >= memory.pages && m->max_context > memory.pages * memory.page_tokens)
	{
		m->max_context = memory.pages * memory.page_tokens;
		m->kv_limits_context = true;
	}
	return M1_OK;
}

static m1_status
open_tokenizer(m1_model *m, m1_error *err)
{
	m1_status status = m1_source_tokenizer(m->source, m->config.vocab_size, &m->tokenizer, err);

	/* A checkpoint without a tokenizer still serves token ids. */
	return status == M1_E_NOT_FOUND ? M1_OK : status;
}

static m1_status
fill_text(m1_model *m, const char *path, int max_context, m1_error *err)
{
	m1_status status;

	if (max_context < 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "impossible size of the context");
	if ((status = m1_source_open(path, &m->source, err)) != M1_OK ||
		(status = m1_source_config(m->source, &m->config, err)) != M1_OK)
		return status;
	m->name = m1_source_name(m->source);
	m->max_context = m->config.max_context;
	if (max_context > 0 && max_context < m->max_context)
		m->max_context = max_context;
	if ((m->adapters = m1_adapter_set_create()) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for adapters");
	return open_tokenizer(m, err);
}

static m1_status
fill(m1_model *m, const m1_model_options *o, m1_error *err)
{
	m1_status status;

	if (o->max_sequences < 1 || o->max_batch_tokens < o->max_sequences)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "impossible sizes of sequences or batch");
	if ((status = fill_text(m, o->path, o->max_context, err)) != M1_OK)
		return status;
	m->max_sequences = o->max_sequences;
	m->max_batch_tokens = o->max_batch_tokens;
	if ((status = m1_source_checkpoint(m->source, &m->checkpoint, err)) != M1_OK ||
		(status = open_backend(o, &m->backend, err)) != M1_OK || (status = load_adapters(m, o, err)) != M1_OK ||
		(status = configure_backend(m, o, err)) != M1_OK || (status = prepare_adapters(m, err)) != M1_OK ||
		(status = m1_weights_load(m->checkpoint, &m->config, o->weight_format, o->threads, m->backend, &m->weights,
								  err)) != M1_OK)
		return status;
	return m1_forward_prepare(m, err);
}

/* Of a model that is being opened: gives it out, or closes it. */
static m1_status
finish(m1_status status, m1_model *m, m1_model **out)
{
	if (status == M1_OK)
		*out = m;
	else
		m1_model_close(m);
	return status;
}

m1_status
m1_model_open(const m1_model_options *options, m1_model **out, m1_error *err)
{
	m1_model *m = calloc(1, sizeof *m);

	*out = NULL;
	if (m == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	return finish(fill(m, options, err), m, out);
}

m1_status
m1_model_open_text(const char *path, int max_context, m1_model **out, m1_error *err)
{
	m1_model *m = calloc(1, sizeof *m);

	*out = NULL;
	if (m == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	m->page_tokens = 1;
	return finish(fill_text(m, path, max_context, err), m, out);
}

const char *
m1_model_device(const m1_model *m)
{
	return m->backend->ops->describe(m->backend);
}

void
m1_model_close(m1_model *m)
{
	if (m == NULL)
		return;
	m1_forward_free(m);
	if (m->backend != NULL)
		m->backend->ops->close(m->backend);
	m1_weights_free(&m->weights);
	m1_checkpoint_close(m->checkpoint);
	m1_tokenizer_close(m->tokenizer);
	m1_adapter_set_free(m->adapters);
	m1_source_close(m->source);
	free(m);
}
