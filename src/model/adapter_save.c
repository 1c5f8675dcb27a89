/*
 * adapter_save.c - see adapter_files.h: writing.
 *
 * The config names modules by the ends of their names where all of a kind are changed alike, as PEFT's users write it;
 * else one by one.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "files/new_file.h"
#include "files/safetensors_writer.h"
#include "model/adapter_config.h"
#include "model/adapter_files.h"
#include "model/adapter_names.h"
#include "model/digest.h"

typedef struct saver
{
	const m1_adapter_target *targets;
	int n;
	int rank; /* of most, and its alpha: the others are exceptions */
	double alpha;
	int modules[M1_ROLES]; /* how many a model has of each role */
	bool alike[M1_ROLES];  /* all of them are changed in the same way */
	json_t *names, *whole, *ranks, *alphas;
} saver;

static double
alpha_of(const m1_adapter_target *t)
{
	return (double) t->scale * t->rank;
}

/* The head's own weight goes with its A and B. */
static bool
is_saved_module(const m1_adapter_target *t)
{
	return t->whole != NULL && t->rank == 0;
}

/* ---- the config ---- */

static void
count_modules(saver *s, const m1_config *c)
{
	m1_role roles[M1_ROLES];

	for (int layer = 0; layer < c->layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(c, layer, roles); i < n; i++)
			s->modules[roles[i]] += m1_role_of_expert(roles[i]) ? c->experts : 1;
	s->modules[M1_ROLE_HEAD] = 1;
}

static void
find_alike(saver *s)
{
	const m1_adapter_target *first[M1_ROLES] = {NULL};
	int found[M1_ROLES] = {0};

	for (int i = 0; i < s->n; i++)
	{
		const m1_adapter_target *t = &s->targets[i];

		if (first[t->role] == NULL)
			first[t->role] = t;
		found[t->role] += t->rank == first[t->role]->rank && t->scale == first[t->role]->scale &&
						  is_saved_module(t) == is_saved_module(first[t->role]);
		if (t->rank > 0 && s->rank == 0)
		{
			s->rank = t->rank;
			s->alpha = alpha_of(t);
		}
	}
	for (int role = 0; role < M1_ROLES; role++)
		s->alike[role] = found[role] == s->modules[role];
}

/* Its own name, or the end that it shares with all of its role. */
static void
name_of(const saver *s, const m1_adapter_target *t, char name[M1_ADAPTER_NAME_SIZE])
{
	char whole[M1_ADAPTER_NAME_SIZE];

	m1_adapter_module_name(t->role, t->layer, t->expert, whole);
	if (!s->alike[t->role] || strrchr(whole, '.') == NULL)
		strcpy(name, whole);
	else if (t->role == M1_ROLE_ROUTER) /* PEFT would find output_gate by "gate", too */
		strcpy(name, "block_sparse_moe.gate");
	else
		strcpy(name, strrchr(whole, '.') + 1);
}

static void
list_target(saver *s, const m1_adapter_target *t)
{
	char name[M1_ADAPTER_NAME_SIZE];

	name_of(s, t, name);
	json_array_append_new(is_saved_module(t) ? s->whole : s->names, json_string(name));
	if (is_saved_module(t))
		return;
	if (t->rank != s->rank)
		json_object_set_new(s->ranks, name, json_integer(t->rank));
	if (alpha_of(t) != s->alpha)
		json_object_set_new(s->alphas, name, json_real(alpha_of(t)));
}

/* Takes over the lists. */
static json_t *
config_json(saver *s, const char *base)
{
	bool listed[M1_ROLES] = {false};

	s->names = json_array();
	s->whole = json_array();
	s->ranks = json_object();
	s->alphas = json_object();
	for (int i = 0; i < s->n; i++)
		if (!s->alike[s->targets[i].role] || !listed[s->targets[i].role])
		{
			listed[s->targets[i].role] = true;
			list_target(s, &s->targets[i]);
		}
	return json_pack("{s:s, s:s, s:s, s:b, s:s, s:b, s:b, s:f, s:b, s:b, s:i, s:f, s:o, s:o, s:o, s:o}", "peft_type",
					 "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base, "inference_mode", 1, "bias",
					 "none", "fan_in_fan_out", 0, "init_lora_weights", 1, "lora_dropout", 0.0, "use_dora", 0,
					 "use_rslora", 0, "r", s->rank > 0 ? s->rank : 1, "lora_alpha", s->rank > 0 ? s->alpha : 1.0,
					 "rank_pattern", s->ranks, "alpha_pattern", s->alphas, "target_modules", s->names,
					 "modules_to_save", s->whole);
}

static m1_status
save_config(saver *s, const char *dir, const m1_adapter_base *base, m1_error *err)
{
	json_t *config = config_json(s, m1_source_name(base->source));
	char *text = json_dumps(config, JSON_INDENT(2));
	m1_status status = text != NULL ? m1_new_file_put(dir, M1_ADAPTER_CONFIG, m1_slice_of(text), err)
									: m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");

	free(text);
	json_decref(config);
	return status;
}

/* ---- the tensors ---- */

static void
announce(m1_safetensors_writer *w, const char *module, const char *suffix, int rows, int cols)
{
	char name[M1_ADAPTER_NAME_SIZE];

	m1_adapter_tensor_name(module, suffix, name);
	m1_safetensors_write_tensor(w, name, M1B_F32, (const int64_t[]){rows, cols}, 2);
}

static void
announce_target(m1_safetensors_writer *w, const m1_adapter_target *t)
{
	char module[M1_ADAPTER_NAME_SIZE];

	m1_adapter_module_name(t->role, t->layer, t->expert, module);
	if (t->rank > 0)
	{
		announce(w, module, ".lora_A.weight", t->rank, t->cols);
		announce(w, module, ".lora_B.weight", t->rows, t->rank);
	}
	if (t->whole != NULL)
		announce(w, module, is_saved_module(t) ? ".weight" : ".base_layer.weight", t->rows, t->cols);
}

static m1_status
write_target(m1_safetensors_writer *w, const m1_adapter_target *t, m1_error *err)
{
	const size_t rows = (size_t) t->rows;
	const size_t rank = (size_t) t->rank;
	float *b = malloc((rows * rank + 1) * sizeof *b);
	m1_status status = b != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");

	for (size_t i = 0; status == M1_OK && i < rows; i++)
		for (size_t r = 0; r < rank; r++)
			b[i * rank + r] = t->b[r * rows + i];
	if (status == M1_OK && rank > 0 &&
		(status = m1_safetensors_writer_floats(w, t->a, rank * (size_t) t->cols, err)) == M1_OK)
		status = m1_safetensors_writer_floats(w, b, rows * rank, err);
	if (status == M1_OK && t->whole != NULL)
		status = m1_safetensors_writer_floats(w, t->whole, rows * (size_t) t->cols, err);
	free(b);
	return status;
}

static m1_status
write_tensors(m1_safetensors_writer *w, const saver *s, const char *digest, m1_error *err)
{
	m1_status status;

	m1_safetensors_write_metadata(w, "format", "pt");
	m1_safetensors_write_metadata(w, M1_ADAPTER_BASE_KEY, digest);
	for (int i = 0; i < s->n; i++)
		announce_target(w, &s->targets[i]);
	status = m1_safetensors_writer_begin(w, err);
	for (int i = 0; i < s->n && status == M1_OK; i++)
		status = write_target(w, &s->targets[i], err);
	return status == M1_OK ? m1_safetensors_writer_finish(w, err) : status;
}

static m1_status
save_tensors(const saver *s, const char *dir, const char *digest, m1_error *err)
{
	m1_safetensors_writer *w = NULL;
	char path[M1_MAX_PATH];
	m1_status status;

	if (snprintf(path, sizeof path, "%s/" M1_ADAPTER_MODEL, dir) >= (int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the adapter is too long");
	if ((status = m1_safetensors_writer_create(path, true, &w, err)) == M1_OK)
		status = write_tensors(w, s, digest, err);
	m1_safetensors_writer_free(w);
	return status;
}

m1_status
m1_adapter_save(const m1_adapter *a, const char *dir, const m1_adapter_base *base, m1_error *err)
{
	saver s = {0};
	char digest[M1_DIGEST_SIZE];
	m1_status status;

	s.targets = m1_adapter_targets(a, &s.n);
	count_modules(&s, base->config);
	find_alike(&s);
	if ((status = m1_digest(base->source, base->config, base->checkpoint, digest, err)) != M1_OK ||
		(status = save_tensors(&s, dir, digest, err)) != M1_OK)
		return status;
	return save_config(&s, dir, base, err);
}
