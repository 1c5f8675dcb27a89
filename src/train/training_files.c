/* training_files.c - see training_files.h. */
#include "train/training_files.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files/new_file.h"
#include "model/adapter_files.h"

#define PLACE_KEY "training"
#define VERSION 1

/* A parameter's three tensors: itself, and AdamW's means of its gradient and of the gradient's square. */
static const char *const suffixes[] = {"", ".m", ".v"};
#define PARTS 3

static float *
part_of(const m1_parameter *p, int part)
{
	return part == 0 ? p->value : part == 1 ? p->m : p->v;
}

bool
m1_training_exists(const char *dir)
{
	char path[M1_MAX_PATH];
	struct stat st;

	return snprintf(path, sizeof path, "%s/" M1_TRAINING_FILE, dir) < (int) sizeof path && stat(path, &st) == 0;
}

/* ---- the place, as text in the file's metadata ---- */

static json_t *
number(uint64_t n)
{
	return json_sprintf("%" PRIu64, n); /* JSON's integers are signed */
}

static char *
place_text(const m1_training_place *p)
{
	json_t *root = json_pack("{s:i, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:f, s:i}", "version", VERSION, "step",
							 number(p->step), "epoch", number(p->batch.epoch), "at", number(p->batch.at), "updates",
							 (json_int_t) p->updates, "tokens", number(p->tokens), "digest", number(p->digest), "seed",
							 number(p->seed), "batch_tokens", number(p->batch_tokens), "held_out", p->held_out,
							 "weight_format", p->weight_format);
	char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

static bool
read_number(const json_t *root, const char *key, uint64_t *n)
{
	const char *text = json_string_value(json_object_get(root, key));
	char end;

	return text != NULL && sscanf(text, "%" SCNu64 "%c", n, &end) == 1;
}

static bool
read_place(const json_t *root, m1_training_place *p)
{
	const json_t *held_out = json_object_get(root, "held_out");
	const json_t *updates = json_object_get(root, "updates");
	const json_t *format = json_object_get(root, "weight_format");

	p->held_out = json_number_value(held_out);
	p->updates = json_integer_value(updates);
	p->weight_format = (int) json_integer_value(format);
	return json_is_number(held_out) && json_is_integer(format) && json_is_integer(updates) && p->updates >= 0 &&
		   read_number(root, "step", &p->step) && read_number(root, "epoch", &p->batch.epoch) &&
		   read_number(root, "at", &p->batch.at) && read_number(root, "tokens", &p->tokens) &&
		   read_number(root, "digest", &p->digest) && read_number(root, "seed", &p->seed) &&
		   read_number(root, "batch_tokens", &p->batch_tokens);
}

static m1_status
open_training(const char *dir, m1_checkpoint **out, m1_error *err)
{
	m1_status status = m1_checkpoint_open_file(dir, M1_TRAINING_FILE, out, err);

	if (status == M1_E_NOT_FOUND)
		m1_fail(err, status, "there is no training to go on with in \"%.150s\"", dir);
	return status;
}

static m1_status
place_of(const m1_checkpoint *c, m1_training_place *place, m1_error *err)
{
	const char *text = m1_checkpoint_metadata(c, PLACE_KEY);
	json_t *root = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const json_int_t version = json_integer_value(json_object_get(root, "version"));
	const bool understood = version == VERSION && read_place(root, place);

	json_decref(root);
	if (version > VERSION)
		return m1_fail(err, M1_E_UNSUPPORTED, M1_TRAINING_FILE " is of a later version, %lld", (long long) version);
	return understood ? M1_OK : m1_fail(err, M1_E_CORRUPT, M1_TRAINING_FILE " does not tell the training's place");
}

m1_status
m1_training_place_of(const char *dir, m1_training_place *place, m1_error *err)
{
	m1_checkpoint *c;
	m1_status status = open_training(dir, &c, err);

	*place = (m1_training_place){0};
	if (status != M1_OK)
		return status;
	status = place_of(c, place, err);
	m1_checkpoint_close(c);
	return status;
}

/* ---- writing ---- */

static m1_status
create(const char *dir, const char *name, m1_safetensors_writer **w, m1_error *err)
{
	char path[M1_MAX_PATH];

	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the folder to write is too long");
	return m1_safetensors_writer_create(path, true, w, err);
}

static void
announce(m1_safetensors_writer *w, const m1_parameter *p, const char *suffix, m1b_dtype type)
{
	char name[sizeof p->name + 8];

	snprintf(name, sizeof name, "%s%s", p->name, suffix);
	m1_safetensors_write_tensor(w, name, type, (const int64_t[]){p->rows, p->cols}, p->cols > 0 ? 2 : 1);
}

static m1b_dtype
stored_type(const m1_checkpoint *stored, const m1_parameter *p)
{
	const m1_tensor *t = m1_checkpoint_find(stored, p->name);

	return t != NULL ? t->type : M1B_F32;
}

static m1_status
write_some(void *writer, const float *numbers, size_t n, m1_error *err)
{
	return m1_safetensors_writer_floats(writer, numbers, n, err);
}

m1_status
m1_training_write(const m1_trainer *t, const float *from, size_t n, m1_safetensors_writer *w, m1_error *err)
{
	return m1_trainer_pass(t, from, n, write_some, w, err);
}

static m1_status
write_model(m1_safetensors_writer *w, const m1_trainer *t, const m1_checkpoint *stored, m1_error *err)
{
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(t, &n);
	m1_status status;

	m1_safetensors_write_metadata(w, "format", "pt");
	for (int wide = 1; wide >= 0; wide--) /* those of F32 come first */
		for (size_t i = 0; i < n; i++)
			if ((stored_type(stored, &p[i]) == M1B_F32) == wide)
				announce(w, &p[i], "", stored_type(stored, &p[i]));
	status = m1_safetensors_writer_begin(w, err);
	for (int wide = 1; wide >= 0; wide--)
		for (size_t i = 0; i < n && status == M1_OK; i++)
			if ((stored_type(stored, &p[i]) == M1B_F32) == wide)
				status = m1_training_write(t, p[i].value, p[i].n, w, err);
	return status == M1_OK ? m1_safetensors_writer_finish(w, err) : status;
}

static m1_status
write_training(m1_safetensors_writer *w, const m1_trainer *t, const m1_training_place *place, m1_error *err)
{
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(t, &n);
	char *text = place_text(place);
	m1_status status;

	if (text == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the training's place");
	m1_safetensors_write_metadata(w, PLACE_KEY, text);
	free(text);
	for (size_t i = 0; i < n; i++)
		for (int part = 0; part < PARTS; part++)
			announce(w, &p[i], suffixes[part], M1B_F32);
	status = m1_safetensors_writer_begin(w, err);
	for (size_t i = 0; i < n; i++)
		for (int part = 0; part < PARTS && status == M1_OK; part++)
			status = m1_training_write(t, part_of(&p[i], part), p[i].n, w, err);
	return status == M1_OK ? m1_safetensors_writer_finish(w, err) : status;
}

static m1_status
save_model(const char *dir, const m1_trainer *t, const m1_model *model, m1_error *err)
{
	m1_safetensors_writer *w;
	m1_status status = create(dir, M1_MODEL_FILE, &w, err);

	if (status != M1_OK)
		return status;
	status = write_model(w, t, model->checkpoint, err);
	m1_safetensors_writer_free(w);
	return status;
}

m1_status
m1_training_save_made(const char *dir, const m1_trainer *t, const m1_model *model, const m1_adapter *adapter,
					  m1_error *err)
{
	const m1_adapter_base base = {.source = model->source, .config = &model->config, .checkpoint = model->checkpoint};

	return adapter != NULL ? m1_adapter_save(adapter, dir, &base, err) : save_model(dir, t, model, err);
}

m1_status
m1_training_save(const char *dir, const m1_trainer *t, const m1_training_place *place, m1_error *err)
{
	m1_safetensors_writer *w;
	m1_status status = create(dir, M1_TRAINING_FILE, &w, err);

	if (status != M1_OK)
		return status;
	status = write_training(w, t, place, err);
	m1_safetensors_writer_free(w);
	return status;
}

/* ---- reading ---- */

static m1_status
load_part(const m1_checkpoint *c, m1_trainer *trainer, m1_parameter *p, int part, m1_error *err)
{
	char name[sizeof p->name + 8];
	const m1_tensor *t;

	snprintf(name, sizeof name, "%s%s", p->name, suffixes[part]);
	if ((t = m1_checkpoint_find(c, name)) == NULL)
		return m1_fail(err, M1_E_NOT_FOUND, M1_TRAINING_FILE ": tensor \"%.140s\" is missing", name);
	if (!t->usable || t->type != M1B_F32 || t->bytes != p->n * sizeof(float) || t->dims != (p->cols > 0 ? 2 : 1) ||
		t->shape[0] != p->rows)
		return m1_fail(err, M1_E_CORRUPT, M1_TRAINING_FILE ": tensor \"%.140s\" has the wrong type or shape", name);
	m1_trainer_put(trainer, part_of(p, part), t->data, p->n);
	return M1_OK;
}

m1_status
m1_training_load(const char *dir, m1_trainer *t, m1_error *err)
{
	size_t n;
	m1_parameter *p = m1_trainer_parameters(t, &n);
	m1_training_place place = {0};
	m1_checkpoint *c;
	m1_status status;

	if ((status = open_training(dir, &c, err)) != M1_OK)
		return status;
	status = place_of(c, &place, err);
	for (size_t i = 0; i < n; i++)
		for (int part = 0; part < PARTS && status == M1_OK; part++)
			status = load_part(c, t, &p[i], part, err);
	m1_checkpoint_close(c);
	m1_trainer_set_updates(t, place.updates);
	return status;
}
