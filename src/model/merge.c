/*
 * merge.c - see merge.h. GGUF files are the converter's; here are folders: safetensors files of a few GB each, the
 * config, and copies of the tokenizer and whatever else small lies beside them. They are written into a folder of
 * another name, which gets its own when it is whole.
 */
#define _GNU_SOURCE /* strdup */
#include "model/merge.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blocks/blocks.h"
#include "files/jsonfile.h"
#include "files/mapped.h"
#include "files/new_file.h"
#include "files/regular.h"
#include "files/safetensors_writer.h"
#include "model/adapter_files.h"
#include "model/source.h"

#define CHUNK_BYTES ((size_t) 32 << 20) /* of floats, converted at a time */
#define SHARD_BYTES UINT64_C(5000000000)
#define INDEX_FILE "model.safetensors.index.json"

/* One tensor of the new checkpoint. */
typedef struct item
{
	m1_role role;
	int layer, expert;
	m1b_dtype type;
	uint64_t bytes;
	int shard;
} item;

typedef struct merger
{
	const m1_convert_options *o;
	m1_source *source;
	m1_config config;
	m1_checkpoint *checkpoint;
	m1_adapter *adapter;
	m1_quantizer *quantizer;
	item *items;
	int n_items, cap_items;
	int shards;
	char *chunk;
	size_t chunk_bytes;
	char folder[M1_MAX_PATH]; /* that is written into; "": there is none */
	m1_convert_progress progress;
} merger;

static m1_status
no_memory(m1_error *err)
{
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for merging");
}

/* ---- what there is to write ---- */

/* What the adapter makes of a weight, or NULL. */
static const m1_adapter_target *
change_of(const merger *m, m1_role role, int layer, int expert)
{
	return m1_adapter_find(m->adapter, role, layer, expert);
}

static m1_status
add_item(merger *m, m1_role role, int layer, int expert, m1_error *err)
{
	item *it;
	m1_weight w;
	m1_status status;

	if ((status = m1_role_find(role, m->checkpoint, &m->config, layer, expert, &w, err)) != M1_OK)
		return status;
	if (m->n_items == m->cap_items)
	{
		const int cap = m->cap_items == 0 ? 256 : 2 * m->cap_items;
		item *grown = realloc(m->items, (size_t) cap * sizeof *grown);

		if (grown == NULL)
			return no_memory(err);
		m->items = grown;
		m->cap_items = cap;
	}
	it = &m->items[m->n_items++];
	*it = (item){.role = role, .layer = layer, .expert = expert};
	it->type = w.type == M1B_F8_E4M3 ? M1B_BF16 : w.type;
	it->bytes = m1b_bytes(it->type, (size_t) w.rows * (size_t) (w.cols > 0 ? w.cols : 1));
	m->progress.total += w.bytes;
	return M1_OK;
}

static m1_status
add_role(merger *m, m1_role role, int layer, m1_error *err)
{
	m1_status status = M1_OK;

	for (int e = 0; e < (m1_role_of_expert(role) ? m->config.experts : 1) && status == M1_OK; e++)
		status = add_item(m, role, layer, e, err);
	return status;
}

/* A tied head is the embedding, unless the adapter makes it another. */
static bool
unties(const merger *m)
{
	return m->config.tied_head && change_of(m, M1_ROLE_HEAD, 0, 0) != NULL;
}

static m1_status
plan(merger *m, m1_error *err)
{
	m1_role roles[M1_ROLES];
	const uint64_t most = m->o->shard_bytes > 0 ? m->o->shard_bytes : SHARD_BYTES;
	uint64_t bytes = 0;
	m1_status status = add_role(m, M1_ROLE_EMBED, 0, err);

	for (int layer = 0; layer < m->config.layers && status == M1_OK; layer++)
		for (int i = 0, n = m1_roles_of_layer(&m->config, layer, roles); i < n && status == M1_OK; i++)
			status = add_role(m, roles[i], layer, err);
	if (status == M1_OK)
		status = add_role(m, M1_ROLE_FINAL_NORM, 0, err);
	if (status == M1_OK && (!m->config.tied_head || unties(m)))
		status = add_role(m, M1_ROLE_HEAD, 0, err);
	for (int i = 0; i < m->n_items; i++)
	{
		if (i == 0 || bytes + m->items[i].bytes > most)
		{
			m->shards++;
			bytes = 0;
		}
		m->items[i].shard = m->shards - 1;
		bytes += m->items[i].bytes;
	}
	return status;
}

/* ---- weights ---- */

static void
shard_name(const merger *m, int shard, char *name, size_t size)
{
	if (m->shards == 1)
		snprintf(name, size, "model.safetensors");
	else
		snprintf(name, size, "model-%05d-of-%05d.safetensors", shard + 1, m->shards);
}

static void
tensor_name(const item *it, char name[128])
{
	m1_role_name(it->role, M1_NAMES_SAFETENSORS, it->layer, it->expert, name, 128);
}

static void
announce(m1_safetensors_writer *w, const merger *m, const item *it)
{
	int rows, cols;
	char name[128];

	m1_role_shape(it->role, &m->config, &rows, &cols);
	tensor_name(it, name);
	m1_safetensors_write_tensor(w, name, it->type, (const int64_t[]){rows, cols}, cols > 0 ? 2 : 1);
}

static m1_status
reserve_chunk(merger *m, size_t bytes, m1_error *err)
{
	if (bytes <= m->chunk_bytes)
		return M1_OK;
	free(m->chunk);
	m->chunk = malloc(bytes);
	m->chunk_bytes = m->chunk != NULL ? bytes : 0;
	return m->chunk != NULL ? M1_OK : no_memory(err);
}

static m1_status
advance(merger *m, size_t bytes, m1_error *err)
{
	m->progress.done += bytes;
	if (m->o->progress == NULL || m->o->progress(m->o->context, &m->progress))
		return M1_OK;
	return m1_fail(err, M1_E_CANCELLED, "cancelled: \"%.150s\" was not written", m->o->out);
}

/* Some rows: as they are, or by way of floats. */
static m1_status
write_rows(merger *m, m1_safetensors_writer *out, const item *it, const m1_weight *w, int first, int n, m1_error *err)
{
	const m1_adapter_target *change = change_of(m, it->role, it->layer, it->expert);
	const size_t width = (size_t) (w->cols > 0 ? w->cols : w->rows);
	const size_t row_bytes = m1b_bytes(it->type, width);
	const size_t stored_bytes = w->scales != NULL ? width : m1b_bytes(w->type, width);
	const char *from = (const char *) w->data + (size_t) first * stored_bytes;
	m1_status status;

	if (change == NULL && w->scales == NULL)
		status = m1_safetensors_writer_data(out, from, (size_t) n * row_bytes, err);
	else if ((status = reserve_chunk(m, (size_t) n * row_bytes, err)) == M1_OK &&
			 (status = m1_quantizer_run(m->quantizer, w, change, first, n, it->type, m->chunk, err)) == M1_OK)
		status = m1_safetensors_writer_data(out, m->chunk, (size_t) n * row_bytes, err);
	m1_mapped_drop(from, (size_t) n * stored_bytes);
	return status == M1_OK ? advance(m, (size_t) n * stored_bytes, err) : status;
}

static m1_status
write_item(merger *m, m1_safetensors_writer *out, const item *it, m1_error *err)
{
	m1_weight w;
	m1_status status = m1_role_find(it->role, m->checkpoint, &m->config, it->layer, it->expert, &w, err);
	const int rows = status == M1_OK && w.cols > 0 ? w.rows : 1;
	const int most = status == M1_OK && w.cols > 0 ? (int) (CHUNK_BYTES / ((size_t) w.cols * sizeof(float))) : 1;
	const int step = most > 0 ? most : 1;

	m->progress.tensor = w.name;
	for (int r = 0; r < rows && status == M1_OK; r += step)
		status = write_rows(m, out, it, &w, r, rows - r < step ? rows - r : step, err);
	m->progress.tensor = NULL;
	return status;
}

/* Tensors lie side by side: those of F32 come first, so that all are aligned. */
static m1_status
write_shard(merger *m, int shard, m1_error *err)
{
	m1_safetensors_writer *w = NULL;
	char name[64];
	char path[M1_MAX_PATH + 64];
	m1_status status;

	shard_name(m, shard, name, sizeof name);
	snprintf(path, sizeof path, "%s/%s", m->folder, name);
	if ((status = m1_safetensors_writer_create(path, false, &w, err)) != M1_OK)
		return status;
	m1_safetensors_write_metadata(w, "format", "pt");
	for (int wide = 1; wide >= 0; wide--)
		for (int i = 0; i < m->n_items; i++)
			if (m->items[i].shard == shard && (m->items[i].type == M1B_F32) == wide)
				announce(w, m, &m->items[i]);
	status = m1_safetensors_writer_begin(w, err);
	for (int wide = 1; wide >= 0; wide--)
		for (int i = 0; i < m->n_items && status == M1_OK; i++)
			if (m->items[i].shard == shard && (m->items[i].type == M1B_F32) == wide)
				status = write_item(m, w, &m->items[i], err);
	if (status == M1_OK)
		status = m1_safetensors_writer_finish(w, err);
	m1_safetensors_writer_free(w);
	return status;
}

/* ---- the files beside them ---- */

static m1_status
put_json(const merger *m, const char *name, const json_t *value, m1_error *err)
{
	char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
	m1_status status = text != NULL ? m1_new_file_put(m->folder, name, m1_slice_of(text), err) : no_memory(err);

	free(text);
	return status;
}

static m1_status
write_index(const merger *m, m1_error *err)
{
	json_t *map = json_object();
	json_t *index;
	uint64_t bytes = 0;
	m1_status status;

	for (int i = 0; i < m->n_items; i++)
	{
		char name[128];
		char shard[64];

		tensor_name(&m->items[i], name);
		shard_name(m, m->items[i].shard, shard, sizeof shard);
		json_object_set_new(map, name, json_string(shard));
		bytes += m->items[i].bytes;
	}
	index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t) bytes, "weight_map", map);
	status = index != NULL ? put_json(m, INDEX_FILE, index, err) : no_memory(err);
	json_decref(index);
	return status;
}

static m1_status
copy_file(const merger *m, const char *name, m1_error *err)
{
	m1_buf content = {0};
	FILE *in;
	m1_status status = m1_regular_fopen(m1_source_dir(m->source), name, &in, err);

	if (status != M1_OK)
		return status;
	if ((status = m1_read_rest(in, name, &content, err)) == M1_OK)
		status = m1_new_file_put(m->folder, name, (m1_slice){content.data, content.len}, err);
	fclose(in);
	m1_buf_free(&content);
	return status;
}

static m1_status
write_config(const merger *m, m1_error *err)
{
	json_t *config;
	m1_status status;

	if (!m->config.fp8 && !unties(m))
		return copy_file(m, "config.json", err);
	if ((status = m1_json_load_object(m1_source_dir(m->source), "config.json", &config, err)) != M1_OK)
		return status;
	if (m->config.fp8)
	{
		json_object_del(config, "quantization_config");
		json_object_set_new(config, "torch_dtype", json_string("bfloat16"));
	}
	if (unties(m))
		json_object_set_new(config, "tie_word_embeddings", json_false());
	status = put_json(m, "config.json", config, err);
	json_decref(config);
	return status;
}

static bool
has_suffix(const char *name, const char *suffix)
{
	const size_t n = strlen(name);
	const size_t k = strlen(suffix);

	return n >= k && strcmp(name + n - k, suffix) == 0;
}

/* Tokenizer, template, code, license: all that is neither weights nor written anew. */
static bool
is_copied(const char *dir, const char *name)
{
	static const char *const others[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json", ".tmp"};
	char path[M1_MAX_PATH];
	struct stat st;

	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (has_suffix(name, others[i]))
			return false;
	return name[0] != '.' && strcmp(name, "config.json") != 0 &&
		   snprintf(path, sizeof path, "%s/%s", dir, name) < (int) sizeof path && stat(path, &st) == 0 &&
		   S_ISREG(st.st_mode);
}

static m1_status
copy_files(const merger *m, m1_error *err)
{
	const char *from = m1_source_dir(m->source);
	DIR *dir = opendir(from);
	const struct dirent *entry;
	m1_status status = M1_OK;

	if (dir == NULL)
		return m1_fail(err, M1_E_IO, "could not read folder \"%.150s\": %s", from, strerror(errno));
	while (status == M1_OK && (entry = readdir(dir)) != NULL)
		if (is_copied(from, entry->d_name))
			status = copy_file(m, entry->d_name, err);
	closedir(dir);
	return status;
}

/* ---- the folder ---- */

static m1_status
make_folder(merger *m, m1_error *err)
{
	const char *out = m->o->out;
	size_t len = strlen(out);
	struct stat st;

	while (len > 1 && out[len - 1] == '/')
		len--;
	if (stat(out, &st) == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" exists already", out);
	if (snprintf(m->folder, sizeof m->folder, "%.*s.%d.tmp", (int) len, out, (int) getpid()) >= (int) sizeof m->folder)
	{
		m->folder[0] = '\0';
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the folder to write is too long");
	}
	if (mkdir(m->folder, 0777) == 0)
		return M1_OK;
	m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", m->folder, strerror(errno));
	m->folder[0] = '\0';
	return M1_E_IO;
}

static m1_status
name_folder(merger *m, m1_error *err)
{
	if (rename(m->folder, m->o->out) != 0)
		return m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", m->o->out, strerror(errno));
	m->folder[0] = '\0';
	return M1_OK;
}

static void
drop_folder(const merger *m)
{
	DIR *dir = m->folder[0] != '\0' ? opendir(m->folder) : NULL;
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
	{
		closedir(dir);
		rmdir(m->folder);
	}
}

/* ---- all of it ---- */

static m1_status
open_input(merger *m, m1_error *err)
{
	m1_status status;

	if ((status = m1_source_open(m->o->in, &m->source, err)) != M1_OK ||
		(status = m1_source_config(m->source, &m->config, err)) != M1_OK)
		return status;
	if (m1_source_dir(m->source) == NULL)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "a GGUF file cannot be merged into a folder");
		m1_error_hint(err, "Write to a name that ends in .gguf, or begin with the original.");
		return M1_E_INVALID_ARGUMENT;
	}
	if ((status = m1_source_checkpoint(m->source, &m->checkpoint, err)) != M1_OK)
		return status;
	return m1_adapter_load(m->o->adapter,
						   &(m1_adapter_base){.source = m->source, .config = &m->config, .checkpoint = m->checkpoint},
						   &m->adapter, err);
}

static m1_status
write_folder(merger *m, m1_error *err)
{
	m1_status status = M1_OK;

	for (int shard = 0; shard < m->shards && status == M1_OK; shard++)
		status = write_shard(m, shard, err);
	if (status == M1_OK && m->shards > 1)
		status = write_index(m, err);
	if (status == M1_OK)
		status = write_config(m, err);
	return status == M1_OK ? copy_files(m, err) : status;
}

static m1_status
run(merger *m, m1_error *err)
{
	m1_status status;

	if ((status = open_input(m, err)) != M1_OK || (status = plan(m, err)) != M1_OK ||
		(status = m1_quantizer_create(m->o->threads, &m->quantizer, err)) != M1_OK ||
		(status = make_folder(m, err)) != M1_OK || (status = write_folder(m, err)) != M1_OK)
		return status;
	return name_folder(m, err);
}

static m1_status
merge_into_folder(const m1_convert_options *options, m1_error *err)
{
	merger m = {.o = options};
	m1_status status = run(&m, err);

	drop_folder(&m);
	m1_quantizer_free(m.quantizer);
	m1_adapter_free(m.adapter);
	m1_checkpoint_close(m.checkpoint);
	m1_source_close(m.source);
	free(m.items);
	free(m.chunk);
	return status;
}

m1_status
m1_merge(const m1_convert_options *options, m1_error *err)
{
	if (has_suffix(options->out, ".gguf"))
		return m1_convert(options, err);
	if (options->format != M1_WEIGHTS_STORED)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "a folder keeps weights as they are stored");
		m1_error_hint(err, "Write to a name that ends in .gguf, or quantize the result.");
		return M1_E_INVALID_ARGUMENT;
	}
	return merge_into_folder(options, err);
}
