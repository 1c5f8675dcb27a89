/* convert.c - see convert.h. */
#include "model/convert.h"

#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "files/gguf_writer.h"
#include "files/jsonfile.h"
#include "files/mapped.h"
#include "model/adapter_files.h"
#include "model/config_internal.h"
#include "model/digest.h"
#include "model/source.h"
#include "text/tokenizer_internal.h"

#define CHUNK_BYTES ((size_t) 32 << 20) /* read at a time */
#define TEMPLATE_KEY "tokenizer.chat_template"

/* One tensor of the new file. */
typedef struct item
{
	m1_role role;
	int layer;
	int experts; /* that it holds one after the other; 0: it belongs to no expert */
	m1b_dtype type;
} item;

typedef struct converter
{
	const m1_convert_options *o;
	m1_source *source;
	m1_config config;
	m1_tokenizer *tokenizer; /* NULL: the model has none */
	m1_checkpoint *checkpoint;
	m1_adapter *adapter; /* NULL: nothing is merged */
	m1_quantizer *quantizer;
	m1_gguf_writer *writer;
	item *items;
	int n_items;
	char *chunk; /* a chunk in its new type */
	size_t chunk_bytes;
	m1_convert_progress progress;
} converter;

/* ---- what there is to write ---- */

/* Norms and router become F32, as llama.cpp expects them; no precision is lost. */
static m1b_dtype
type_of(const converter *c, m1_role role, const m1_weight *w)
{
	if (w->cols == 0 || role == M1_ROLE_ROUTER)
		return M1B_F32;
	return m1_weight_format_type(c->o->format, role, w);
}

/* tensor: one that is of that type already, or NULL */
static m1_status
refuse_fp8(const char *tensor, m1_error *err)
{
	m1_fail(err, M1_E_UNSUPPORTED, "a GGUF file cannot hold fp8 weights");
	if (tensor != NULL)
		m1_error_detail(err, "The format has no such type; tensor \"%s\" is F8_E4M3.", tensor);
	else
		m1_error_detail(err, "The format has no such type.");
	m1_error_hint(err, "Convert the original to q8_0 or q4. fp8 is for folders: as stored, or by {weight_format}.");
	return M1_E_UNSUPPORTED;
}

/* What the adapter makes of a weight, or NULL. */
static const m1_adapter_target *
change_of(const converter *c, m1_role role, int layer, int expert)
{
	return c->adapter != NULL ? m1_adapter_find(c->adapter, role, layer, expert) : NULL;
}

/* A tensor that the adapter changes is written anew. */
static m1_status
check_changed(const converter *c, const item *it, const m1_weight *w, m1_error *err)
{
	if (c->adapter == NULL || m1_adapter_change(c->adapter, it->role, it->layer) == NULL ||
		m1_quantizer_makes(it->type))
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "an adapter cannot be merged into tensor \"%s\"", w->name);
	m1_error_detail(err, "It is %s, which this version reads and does not make.", m1b_dtype_name(w->type));
	m1_error_hint(err, "Merge the adapter into the original, then quantize.");
	return M1_E_UNSUPPORTED;
}

static m1_status
plan_tensor(converter *c, m1_role role, int layer, m1_error *err)
{
	item *it = &c->items[c->n_items++];
	m1_weight w;

	*it = (item){.role = role, .layer = layer, .experts = m1_role_of_expert(role) ? c->config.experts : 0};
	for (int e = 0; e < (it->experts > 0 ? it->experts : 1); e++)
	{
		m1_status status = m1_role_find(role, c->checkpoint, &c->config, layer, e, &w, err);
		const m1b_dtype type = status == M1_OK ? type_of(c, role, &w) : it->type;

		if (status != M1_OK)
			return status;
		if (type == M1B_F8_E4M3)
			return refuse_fp8(w.name, err);
		if (m1b_is_quantized(w.type) && m1_role_is_large(role) && c->o->format != M1_WEIGHTS_STORED)
		{
			m1_fail(err, M1_E_UNSUPPORTED, "tensor \"%s\" is quantized already", w.name);
			m1_error_detail(err, "It is %s. To quantize it again would add to its error.", m1b_dtype_name(w.type));
			m1_error_hint(err, "Convert the original, or use {weight_format} stored.");
			return M1_E_UNSUPPORTED;
		}
		if (e > 0 && type != it->type)
			return m1_fail(err, M1_E_UNSUPPORTED, "the experts of layer %d are stored as different types", layer);
		it->type = type;
		c->progress.total += w.bytes;
	}
	return check_changed(c, it, &w, err);
}

/* A tied head is the embedding, unless the adapter makes it another. */
static bool
has_head(const converter *c)
{
	return !c->config.tied_head || change_of(c, M1_ROLE_HEAD, 0, 0) != NULL;
}

static m1_status
plan(converter *c, m1_error *err)
{
	m1_role roles[M1_ROLES];
	m1_status status;

	if (c->o->format == M1_WEIGHTS_FP8)
		return refuse_fp8(NULL, err);
	if ((c->items = calloc((size_t) c->config.layers * M1_ROLES + 3, sizeof *c->items)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the list of tensors");
	if ((status = m1_role_refuse_others(c->checkpoint, &c->config, err)) != M1_OK ||
		(status = plan_tensor(c, M1_ROLE_EMBED, 0, err)) != M1_OK)
		return status;
	for (int layer = 0; layer < c->config.layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(&c->config, layer, roles); i < n; i++)
			if ((status = plan_tensor(c, roles[i], layer, err)) != M1_OK)
				return status;
	if ((status = plan_tensor(c, M1_ROLE_FINAL_NORM, 0, err)) != M1_OK || !has_head(c))
		return status;
	return plan_tensor(c, M1_ROLE_HEAD, 0, err);
}

/* ---- keys and list ---- */

/* The number that llama.cpp shows as the file's type: that of most weights. */
static uint32_t
file_type(const converter *c)
{
	static const uint32_t numbers[] = {
		[M1B_F32] = 0,	[M1B_F16] = 1,	 [M1B_BF16] = 32, [M1B_Q8_0] = 7,
		[M1B_Q4_0] = 2, [M1B_Q4_K] = 14, [M1B_Q5_K] = 16, [M1B_Q6_K] = 18,
	};

	for (int i = 0; i < c->n_items; i++)
		if (c->items[i].role == M1_ROLE_W1)
			return numbers[c->items[i].type];
	return 0;
}

/* The chat template is for others, we have our own: it is copied, and its absence is no error. */
static m1_status
write_chat_template(converter *c, m1_error *err)
{
	const char *dir = m1_source_dir(c->source);
	const json_t *template;
	json_t *root;
	m1_status status;

	if (dir == NULL)
	{
		const m1_slice text = m1_gguf_text(m1_gguf_find(m1_source_gguf(c->source), TEMPLATE_KEY));

		if (text.data != NULL)
			m1_gguf_write_text(c->writer, TEMPLATE_KEY, text);
		return M1_OK;
	}
	status = m1_json_load_object(dir, "tokenizer_config.json", &root, err);
	if (status != M1_OK)
		return status == M1_E_NOT_FOUND ? M1_OK : status;
	template = json_object_get(root, "chat_template");
	if (json_is_string(template))
		m1_gguf_write_text(c->writer, TEMPLATE_KEY,
						   (m1_slice){json_string_value(template), json_string_length(template)});
	json_decref(root);
	return M1_OK;
}

/* What is merged is a model of its own, whose digest its numbers tell. */
static m1_status
write_digest(converter *c, m1_error *err)
{
	char digest[M1_DIGEST_SIZE];
	m1_status status;

	if (c->adapter != NULL)
		return M1_OK;
	if ((status = m1_digest(c->source, &c->config, c->checkpoint, digest, err)) == M1_OK)
		m1_gguf_write_text(c->writer, M1_DIGEST_KEY, m1_slice_of(digest));
	return status;
}

static m1_status
write_keys(converter *c, m1_error *err)
{
	m1_gguf_writer *w = c->writer;
	m1_status status;

	m1_gguf_write_text(w, "general.architecture", m1_slice_of(M1_GGUF_ARCHITECTURE));
	m1_gguf_write_text(w, "general.name", m1_slice_of(m1_source_name(c->source)));
	m1_gguf_write_u32(w, "general.file_type", file_type(c));
	m1_gguf_write_u32(w, "general.quantization_version", 2);
	if ((status = m1_config_write_gguf(&c->config, w, err)) != M1_OK || (status = write_digest(c, err)) != M1_OK)
		return status;
	if (c->tokenizer == NULL)
	{
		m1_gguf_write_text(w, "tokenizer.ggml.model", m1_slice_of("none"));
		return M1_OK;
	}
	if ((status = m1_tokenizer_write_gguf(c->tokenizer, w, err)) != M1_OK)
		return status;
	return write_chat_template(c, err);
}

static void
write_list(converter *c)
{
	for (int i = 0; i < c->n_items; i++)
	{
		const item *it = &c->items[i];
		int64_t shape[3];
		int dims = 0;
		int rows, cols;
		char name[128];

		m1_role_name(it->role, M1_NAMES_GGUF, it->layer, 0, name, sizeof name);
		m1_role_shape(it->role, &c->config, &rows, &cols);
		if (it->experts > 0)
			shape[dims++] = it->experts;
		shape[dims++] = rows;
		if (cols > 0)
			shape[dims++] = cols;
		m1_gguf_write_tensor(c->writer, name, it->type, shape, dims);
	}
}

/* ---- data ---- */

static m1_status
advance(converter *c, size_t bytes, m1_error *err)
{
	c->progress.done += bytes;
	if (c->o->progress == NULL || c->o->progress(c->o->context, &c->progress))
		return M1_OK;
	return m1_fail(err, M1_E_CANCELLED, "cancelled: \"%.150s\" was not written", c->o->out);
}

static m1_status
reserve_chunk(converter *c, size_t bytes, m1_error *err)
{
	if (bytes <= c->chunk_bytes)
		return M1_OK;
	free(c->chunk);
	c->chunk_bytes = bytes;
	if ((c->chunk = malloc(bytes)) != NULL)
		return M1_OK;
	c->chunk_bytes = 0;
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu bytes of weights", bytes);
}

/* Some rows: read, converted unless the type stays, written, and forgotten. */
static m1_status
write_rows(converter *c, const m1_weight *w, const m1_adapter_target *change, int first, int n, m1b_dtype type,
		   m1_error *err)
{
	const size_t width = (size_t) (w->cols > 0 ? w->cols : w->rows);
	const size_t row_bytes = m1b_bytes(w->type, width);
	const char *from = (const char *) w->data + (size_t) first * row_bytes;
	const size_t from_bytes = (size_t) n * row_bytes;
	const size_t to_bytes = (size_t) n * m1b_bytes(type, width);
	m1_status status = M1_OK;

	if (type == w->type && change == NULL)
		status = m1_gguf_writer_data(c->writer, from, from_bytes, err);
	else if ((status = reserve_chunk(c, to_bytes, err)) == M1_OK &&
			 (status = m1_quantizer_run(c->quantizer, w, change, first, n, type, c->chunk, err)) == M1_OK)
		status = m1_gguf_writer_data(c->writer, c->chunk, to_bytes, err);
	m1_mapped_drop(from, from_bytes);
	return status == M1_OK ? advance(c, from_bytes, err) : status;
}

static m1_status
write_weight(converter *c, const m1_weight *w, const m1_adapter_target *change, m1b_dtype type, m1_error *err)
{
	const int rows = w->cols > 0 ? w->rows : 1;
	const size_t row_bytes = w->bytes / (size_t) rows;
	const int step = row_bytes >= CHUNK_BYTES ? 1 : (int) (CHUNK_BYTES / row_bytes);

	c->progress.tensor = w->name;
	m1_mapped_expect(w->data, w->bytes);
	for (int r = 0; r < rows; r += step)
	{
		m1_status status = write_rows(c, w, change, r, rows - r < step ? rows - r : step, type, err);

		if (status != M1_OK)
			return status;
	}
	return M1_OK;
}

static m1_status
write_data(converter *c, m1_error *err)
{
	m1_status status = M1_OK;

	for (int i = 0; i < c->n_items; i++)
	{
		const item *it = &c->items[i];

		for (int e = 0; e < (it->experts > 0 ? it->experts : 1); e++)
		{
			m1_weight w;

			if ((status = m1_role_find(it->role, c->checkpoint, &c->config, it->layer, e, &w, err)) != M1_OK ||
				(status = write_weight(c, &w, change_of(c, it->role, it->layer, e), it->type, err)) != M1_OK)
				return status;
		}
	}
	return status;
}

/* ---- all of it ---- */

static m1_status
open_input(converter *c, m1_error *err)
{
	m1_status status;

	if ((status = m1_source_open(c->o->in, &c->source, err)) != M1_OK ||
		(status = m1_source_config(c->source, &c->config, err)) != M1_OK)
		return status;
	status = m1_source_tokenizer(c->source, c->config.vocab_size, &c->tokenizer, err);
	if (status != M1_OK && status != M1_E_NOT_FOUND)
		return status;
	if ((status = m1_source_checkpoint(c->source, &c->checkpoint, err)) != M1_OK || c->o->adapter == NULL)
		return status;
	return m1_adapter_load(c->o->adapter,
						   &(m1_adapter_base){.source = c->source, .config = &c->config, .checkpoint = c->checkpoint},
						   &c->adapter, err);
}

static m1_status
run(converter *c, m1_error *err)
{
	m1_status status;

	if ((status = open_input(c, err)) != M1_OK || (status = plan(c, err)) != M1_OK ||
		(status = m1_quantizer_create(c->o->threads, &c->quantizer, err)) != M1_OK ||
		(status = m1_gguf_writer_create(c->o->out, c->o->replace, &c->writer, err)) != M1_OK ||
		(status = write_keys(c, err)) != M1_OK)
		return status;
	write_list(c);
	if ((status = m1_gguf_writer_begin(c->writer, err)) != M1_OK || (status = write_data(c, err)) != M1_OK)
		return status;
	return m1_gguf_writer_finish(c->writer, err);
}

m1_status
m1_convert(const m1_convert_options *options, m1_error *err)
{
	converter c = {.o = options};
	m1_status status = run(&c, err);

	m1_gguf_writer_free(c.writer);
	m1_quantizer_free(c.quantizer);
	m1_adapter_free(c.adapter);
	m1_checkpoint_close(c.checkpoint);
	m1_tokenizer_close(c.tokenizer);
	m1_source_close(c.source);
	free(c.items);
	free(c.chunk);
	return status;
}
