/*
 * train_testing.h - what the tests of learning share: a model and its trainer, and the batch of a golden file.
 */
#ifndef M1_TEST_TRAIN_TESTING_H
#define M1_TEST_TRAIN_TESTING_H

#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files/checkpoint.h"
#include "train/train.h"

/* Whether this is a build that finds faults of memory, and takes ten times as long. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define TINY "test/checkpoints/tiny-f32"
#define ODD "test/checkpoints/tiny-odd"
#define SHARDED "test/checkpoints/tiny-bf16-sharded"
#define TRAINED "test/checkpoints/trained" /* the first m1-nano, whose gradients are known */

/* A model, what trains it, and the numbers to compare with. */
typedef struct bench
{
	m1_model *model;
	m1_trainer *trainer;
	m1_checkpoint *golden;
	m1_sequence *sequences;
	int n;
	int32_t *tokens; /* of all sequences, as are the following */
	float *weight, *old_logprob, *ref_logprob, *logprob, *entropy;
} bench;

/* A golden tensor's numbers. */
static inline float *
golden_floats(const bench *b, const char *name, size_t *n)
{
	const m1_tensor *t = m1_checkpoint_find(b->golden, name);
	float *values;

	assert_non_null(t);
	assert_string_equal(t->type_name, "F32");
	*n = t->bytes / sizeof *values;
	values = malloc(t->bytes);
	memcpy(values, t->data, t->bytes);
	return values;
}

static inline int64_t *
golden_integers(const bench *b, const char *name, size_t *n)
{
	const m1_tensor *t = m1_checkpoint_find(b->golden, name);
	int64_t *values;

	assert_non_null(t);
	assert_string_equal(t->type_name, "I64");
	*n = t->bytes / sizeof *values;
	values = malloc(t->bytes);
	memcpy(values, t->data, t->bytes);
	return values;
}

static inline double
golden_scalar(const bench *b, const char *name)
{
	size_t n;
	float *values = golden_floats(b, name, &n);
	const double value = values[0];

	assert_int_equal(n, 1);
	free(values);
	return value;
}

static inline void
read_batch(bench *b)
{
	size_t n, tokens;
	int64_t *ids = golden_integers(b, "input_ids", &tokens);
	int64_t *offsets = golden_integers(b, "offsets", &n);
	int64_t *prompts = golden_integers(b, "prompt_len", &n);
	float *advantage = golden_floats(b, "advantage", &n);

	b->n = (int) n;
	b->tokens = malloc(tokens * sizeof *b->tokens);
	b->sequences = calloc(n, sizeof *b->sequences);
	b->logprob = calloc(tokens, sizeof *b->logprob);
	b->entropy = calloc(tokens, sizeof *b->entropy);
	for (size_t i = 0; i < tokens; i++)
		b->tokens[i] = (int32_t) ids[i];
	b->weight = golden_floats(b, "weight", &tokens);
	b->old_logprob = golden_floats(b, "old_logprob", &tokens);
	b->ref_logprob = golden_floats(b, "ref_logprob", &tokens);
	for (int i = 0; i < b->n; i++)
		b->sequences[i] = (m1_sequence){.tokens = b->tokens + offsets[i],
										.n = (int) (offsets[i + 1] - offsets[i]),
										.prompt = (int) prompts[i],
										.share = -1,
										.advantage = advantage[i],
										.old_logprob = b->old_logprob + offsets[i],
										.ref_logprob = b->ref_logprob + offsets[i]};
	free(ids);
	free(offsets);
	free(prompts);
	free(advantage);
}

/* Opens a checkpoint for training; threads and instruction set as m1_model_options. */
static inline bench
open_bench_with(const char *path, const m1_trainer_options *options, int threads, const char *isa, int batch_tokens)
{
	const m1_model_options model = {.path = path,
									.device = "cpu",
									.isa = isa,
									.threads = threads,
									.max_context = 1024,
									.max_sequences = 1,
									.max_batch_tokens = batch_tokens};
	bench b = {0};
	m1_error err;

	assert_ok(m1_model_open(&model, &b.model, &err));
	assert_ok(m1_trainer_open(b.model, options, &b.trainer, &err));
	assert_ok(m1_checkpoint_open_file(path, "grad_golden.safetensors", &b.golden, &err));
	read_batch(&b);
	return b;
}

static inline bench
open_bench(const char *path)
{
	return open_bench_with(path, &(m1_trainer_options){0}, 1, NULL, 256);
}

static inline void
close_bench(bench *b)
{
	m1_trainer_close(b->trainer);
	m1_model_close(b->model);
	m1_checkpoint_close(b->golden);
	free(b->sequences);
	free(b->tokens);
	free(b->weight);
	free(b->old_logprob);
	free(b->ref_logprob);
	free(b->logprob);
	free(b->entropy);
}

/* The objective that a golden file calls so, and the weights that belong to it. */
static inline m1_objective
objective_named(bench *b, const char *name)
{
	m1_objective o = m1_objective_of(strcmp(name, "cispo") == 0	 ? M1_LOSS_CISPO
									 : strcmp(name, "grpo") == 0 ? M1_LOSS_GRPO
									 : strcmp(name, "dapo") == 0 ? M1_LOSS_DAPO
																 : M1_LOSS_CE);

	if (strcmp(name, "ce_aux") == 0)
		o.balance = 0.01f;
	for (int i = 0; i < b->n; i++)
		b->sequences[i].weight =
			strcmp(name, "weighted") == 0 ? b->weight + (b->sequences[i].tokens - b->tokens) : NULL;
	return o;
}

static inline m1_batch_result
gradients_of(bench *b, const char *name)
{
	const m1_objective o = objective_named(b, name);
	m1_batch_result result;
	m1_error err;

	assert_ok(m1_trainer_gradients(b->trainer, b->sequences, b->n, &o, &result, &err));
	return result;
}

static inline const m1_parameter *
parameter_named(const bench *b, const char *name)
{
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(p[i].name, name) == 0)
			return &p[i];
	fail_msg("there is no parameter \"%s\"", name);
	return NULL;
}

/* All gradients, one after the other. */
static inline float *
copy_gradients(const bench *b, size_t *n)
{
	size_t parameters;
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &parameters);
	float *all;

	*n = 0;
	for (size_t i = 0; i < parameters; i++)
		*n += p[i].n;
	all = malloc(*n * sizeof *all);
	*n = 0;
	for (size_t i = 0; i < parameters; i++)
	{
		memcpy(all + *n, p[i].gradient, p[i].n * sizeof *all);
		*n += p[i].n;
	}
	return all;
}

#endif
