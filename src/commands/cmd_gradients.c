/*
 * cmd_gradients.c - `gradients`: a batch of sequences in, the gradient of a loss by every parameter out, for comparison
 * with a reference.
 *
 * A batch file is safetensors: input_ids [tokens] of all sequences, offsets [sequences + 1] where they begin,
 * prompt_len [sequences]; what the loss needs of advantage [sequences], weight, old_logprob and ref_logprob [tokens];
 * and, as metadata, its coefficients where they are not the published ones.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands/cli.h"
#include "files/checkpoint.h"
#include "files/safetensors_writer.h"
#include "train/train.h"
#include "train/training_files.h"

/* A batch as it is read; arrays of tokens are of all sequences, one after the other. */
typedef struct batch
{
	m1_checkpoint *file;
	const char *path;
	int64_t *ids;
	int64_t *offsets;
	int64_t *prompts;
	float *advantage;
	float *weight, *old_logprob, *ref_logprob;
	size_t n_tokens;
	int n;
	int32_t *tokens;
	m1_sequence *sequences;
} batch;

typedef struct loss_name
{
	const char *name;
	m1_loss_kind kind;
	bool weighted; /* by the file's weights */
	bool balanced;
} loss_name;

static const loss_name losses[] = {
	{"weighted", M1_LOSS_CE, true, false},	{"ce", M1_LOSS_CE, false, false},	  {"ce_aux", M1_LOSS_CE, false, true},
	{"cispo", M1_LOSS_CISPO, false, false}, {"grpo", M1_LOSS_GRPO, false, false}, {"dapo", M1_LOSS_DAPO, false, false},
};

/* ---- reading ---- */

static m1_status
open_batch(const char *path, m1_checkpoint **out, m1_error *err)
{
	const char *slash = strrchr(path, '/');
	char dir[4096];

	if (slash == NULL)
		return m1_checkpoint_open_file(".", path, out, err);
	if ((size_t) (slash - path) + 2 > sizeof dir)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of --batch is too long");
	memcpy(dir, path, (size_t) (slash - path) + 1);
	dir[slash - path + 1] = '\0';
	return m1_checkpoint_open_file(dir, slash + 1, out, err);
}

/* A vector of n elements (0: any number, which is set), as memory of our own. */
static m1_status
read_vector(const batch *b, const char *name, const char *type, size_t unit, size_t *n, void **out, m1_error *err)
{
	const m1_tensor *t = m1_checkpoint_find(b->file, name);

	if (t == NULL)
		return m1_fail(err, M1_E_NOT_FOUND, "%.150s has no tensor \"%s\"", b->path, name);
	if (t->dims != 1 || strcmp(t->type_name, type) != 0 || (*n != 0 && (size_t) t->shape[0] != *n))
		return m1_fail(err, M1_E_CORRUPT, "%.150s: tensor \"%s\" is no %s vector of the right length", b->path, name,
					   type);
	*n = (size_t) t->shape[0];
	if ((*out = malloc(t->bytes + unit)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for tensor \"%s\"", name);
	memcpy(*out, t->data, t->bytes);
	return M1_OK;
}

static m1_status
read_integers(const batch *b, const char *name, size_t *n, int64_t **out, m1_error *err)
{
	void *values = NULL;
	const m1_status status = read_vector(b, name, "I64", sizeof **out, n, &values, err);

	*out = values;
	return status;
}

static m1_status
read_floats(const batch *b, const char *name, size_t n, float **out, m1_error *err)
{
	void *values = NULL;
	const m1_status status = read_vector(b, name, "F32", sizeof **out, &n, &values, err);

	*out = values;
	return status;
}

static m1_status
read_arrays(batch *b, const loss_name *loss, m1_error *err)
{
	const bool ratios = loss->kind != M1_LOSS_CE;
	size_t ends = 0;
	size_t n;
	m1_status status;

	if ((status = read_integers(b, "input_ids", &b->n_tokens, &b->ids, err)) != M1_OK ||
		(status = read_integers(b, "offsets", &ends, &b->offsets, err)) != M1_OK)
		return status;
	if (ends < 2 || ends > INT32_MAX || b->n_tokens > INT32_MAX)
		return m1_fail(err, M1_E_CORRUPT, "%.150s has no sequences, or too many", b->path);
	n = ends - 1;
	b->n = (int) n;
	if ((status = read_integers(b, "prompt_len", &n, &b->prompts, err)) != M1_OK ||
		(ratios && (status = read_floats(b, "advantage", n, &b->advantage, err)) != M1_OK) ||
		(ratios && (status = read_floats(b, "old_logprob", b->n_tokens, &b->old_logprob, err)) != M1_OK) ||
		(loss->kind == M1_LOSS_GRPO &&
		 (status = read_floats(b, "ref_logprob", b->n_tokens, &b->ref_logprob, err)) != M1_OK) ||
		(loss->weighted && (status = read_floats(b, "weight", b->n_tokens, &b->weight, err)) != M1_OK))
		return status;
	return M1_OK;
}

static const float *
part(const float *of_all, int64_t from)
{
	return of_all != NULL ? of_all + from : NULL;
}

static m1_status
make_sequences(batch *b, m1_error *err)
{
	b->tokens = calloc(b->n_tokens, sizeof *b->tokens);
	b->sequences = calloc((size_t) b->n, sizeof *b->sequences);
	if (b->tokens == NULL || b->sequences == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d sequences", b->n);
	for (size_t i = 0; i < b->n_tokens; i++)
	{
		if (b->ids[i] < 0 || b->ids[i] > INT32_MAX)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "%.150s: %lld is no token id", b->path, (long long) b->ids[i]);
		b->tokens[i] = (int32_t) b->ids[i];
	}
	for (int i = 0; i < b->n; i++)
	{
		const int64_t from = b->offsets[i];
		const int64_t to = b->offsets[i + 1];

		if ((i == 0 && from != 0) || to <= from || (uint64_t) to > b->n_tokens || b->prompts[i] < 0 ||
			b->prompts[i] > INT32_MAX)
			return m1_fail(err, M1_E_CORRUPT, "%.150s: impossible offsets or prompt_len of sequence %d", b->path, i);
		b->sequences[i] = (m1_sequence){.tokens = b->tokens + from,
										.n = (int) (to - from),
										.prompt = (int) b->prompts[i],
										.share = -1,
										.advantage = b->advantage != NULL ? b->advantage[i] : 0.0f,
										.weight = part(b->weight, from),
										.old_logprob = part(b->old_logprob, from),
										.ref_logprob = part(b->ref_logprob, from)};
	}
	if ((uint64_t) b->offsets[b->n] != b->n_tokens)
		return m1_fail(err, M1_E_CORRUPT, "%.150s: offsets do not end where the tokens do", b->path);
	return M1_OK;
}

static m1_status
read_batch(const char *path, const loss_name *loss, batch *b, m1_error *err)
{
	m1_status status;

	b->path = path;
	if ((status = open_batch(path, &b->file, err)) != M1_OK || (status = read_arrays(b, loss, err)) != M1_OK)
		return status;
	return make_sequences(b, err);
}

static void
free_batch(batch *b)
{
	m1_checkpoint_close(b->file);
	free(b->ids);
	free(b->offsets);
	free(b->prompts);
	free(b->advantage);
	free(b->weight);
	free(b->old_logprob);
	free(b->ref_logprob);
	free(b->tokens);
	free(b->sequences);
}

/* ---- the loss ---- */

/* A number among what is known of the file, if it is there. */
static m1_status
set_number(const batch *b, const char *key, float plus, float *out, m1_error *err)
{
	const char *text = m1_checkpoint_metadata(b->file, key);
	char *end;
	float value;

	if (text == NULL)
		return M1_OK;
	value = strtof(text, &end);
	if (end == text || *end != '\0' || !isfinite(value))
		return m1_fail(err, M1_E_CORRUPT, "%.150s: \"%s\" is no number", b->path, key);
	*out = value + plus;
	return M1_OK;
}

static m1_status
read_objective(const batch *b, const loss_name *loss, m1_objective *o, m1_error *err)
{
	m1_status status = M1_OK;

	*o = m1_objective_of(loss->kind);
	if (loss->balanced)
	{
		o->balance = 0.01f;
		status = set_number(b, "aux_coef", 0.0f, &o->balance, err);
	}
	if (status == M1_OK && loss->kind == M1_LOSS_CISPO)
		status = set_number(b, "cispo_eps_high", 1.0f, &o->cap, err);
	if (status == M1_OK && loss->kind == M1_LOSS_GRPO)
	{
		if ((status = set_number(b, "grpo_eps", 0.0f, &o->low, err)) != M1_OK ||
			(status = set_number(b, "grpo_kl_beta", 0.0f, &o->kl, err)) != M1_OK)
			return status;
		o->high = o->low;
	}
	if (status == M1_OK && loss->kind == M1_LOSS_DAPO)
		if ((status = set_number(b, "dapo_eps_low", 0.0f, &o->low, err)) == M1_OK)
			status = set_number(b, "dapo_eps_high", 0.0f, &o->high, err);
	return status;
}

/* ---- writing ---- */

static m1_status
write_gradients(const char *path, const m1_trainer *t, const m1_batch_result *result, m1_error *err)
{
	const float loss = (float) result->loss;
	m1_safetensors_writer *w = NULL;
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(t, &n);
	m1_status status = m1_safetensors_writer_create(path, true, &w, err);

	if (status != M1_OK)
		return status;
	m1_safetensors_write_tensor(w, "loss", M1B_F32, NULL, 0);
	for (size_t i = 0; i < n; i++)
		m1_safetensors_write_tensor(w, p[i].name, M1B_F32, (int64_t[]){p[i].rows, p[i].cols}, p[i].cols > 0 ? 2 : 1);
	if ((status = m1_safetensors_writer_begin(w, err)) == M1_OK)
		status = m1_safetensors_writer_floats(w, &loss, 1, err);
	for (size_t i = 0; i < n && status == M1_OK; i++)
		status = m1_training_write(t, p[i].gradient, p[i].n, w, err);
	if (status == M1_OK)
		status = m1_safetensors_writer_finish(w, err);
	m1_safetensors_writer_free(w);
	return status;
}

/* ---- the command ---- */

static m1_status
run(const m1_cli *cli, m1_model *model, const batch *b, const m1_objective *o, m1_error *err)
{
	m1_trainer *trainer = NULL;
	m1_batch_result result;
	m1_status status;

	if ((status = m1_trainer_open(model, &(m1_trainer_options){0}, &trainer, err)) == M1_OK &&
		(status = m1_trainer_gradients(trainer, b->sequences, b->n, o, &result, err)) == M1_OK)
		status = write_gradients(cli->out_file, trainer, &result, err);
	m1_trainer_close(trainer);
	return status;
}

static const loss_name *
find_loss(const char *name)
{
	for (size_t i = 0; name != NULL && i < sizeof losses / sizeof *losses; i++)
		if (strcmp(losses[i].name, name) == 0)
			return &losses[i];
	return NULL;
}

int
m1_cmd_gradients(const m1_cli *cli)
{
	const m1_model_options options = m1_cli_model_options(cli);
	const loss_name *loss = find_loss(cli->loss);
	m1_model *model = NULL;
	m1_objective objective;
	batch b = {0};
	m1_error err;
	m1_status status;

	if (cli->batch_file == NULL || cli->out_file == NULL || loss == NULL)
	{
		fputs("minimax_m1_engine: gradients needs --batch FILE, --out FILE and\n"
			  "--loss weighted, ce, ce_aux, cispo, grpo or dapo\n",
			  stderr);
		return 2;
	}
	if ((status = read_batch(cli->batch_file, loss, &b, &err)) == M1_OK &&
		(status = read_objective(&b, loss, &objective, &err)) == M1_OK &&
		(status = m1_model_open(&options, &model, &err)) == M1_OK)
		status = run(cli, model, &b, &objective, &err);
	m1_model_close(model);
	free_batch(&b);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
