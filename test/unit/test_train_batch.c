/*
 * test_train_batch.c - what a batch's gradients do not depend on, what beginnings that are shared save, experts that are
 * taken again, exact zeros, memory that is refused, and batches that are.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "train_testing.h"

#include <jansson.h>

#include "base/memory.h"
#include "train/trainer.h"

static float *
bits_of(bench *b, const char *loss, size_t *n)
{
	gradients_of(b, loss);
	return copy_gradients(b, n);
}

static void
assert_same_bits(const float *got, const float *want, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(&got[i], &want[i], sizeof *got) != 0)
			fail_msg("%s: gradient %zu is %.9g instead of %.9g", what, i, got[i], want[i]);
}

/* ---- what does not matter ---- */

static void
test_same_bits_in_any_pieces(void **state)
{
	static const struct
	{
		const char *what;
		m1_trainer_options options;
		int threads, batch_tokens;
	} ways[] = {
		{"two threads", {0}, 2, 256},
		{"three threads", {0}, 3, 256},
		{"every sequence alone", {.rows = 1}, 2, 256},
		{"300 rows at a time", {.rows = 300}, 2, 256},
		{"kept inputs only", {.recompute = true}, 2, 256},
		{"kept inputs only, every sequence alone", {.rows = 1, .recompute = true}, 3, 256},
		{"steps of 7 rows", {0}, 2, 7},
	};
	bench b = open_bench(ODD);
	size_t n, same;
	float *want = bits_of(&b, "ce_aux", &n);

	(void) state;
	for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
	{
		bench other = open_bench_with(ODD, &ways[w].options, ways[w].threads, NULL, ways[w].batch_tokens);
		float *got = bits_of(&other, "ce_aux", &same);

		assert_int_equal(same, n);
		assert_same_bits(got, want, n, ways[w].what);
		free(got);
		close_bench(&other);
	}
	free(want);
	close_bench(&b);
}

static void
test_same_bits_in_any_order(void **state)
{
	bench b = open_bench(ODD);
	uint64_t seed = 11;
	size_t n;
	float *want = bits_of(&b, "ce_aux", &n);
	const double loss = gradients_of(&b, "ce_aux").loss;

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		float *got;

		for (int i = b.n - 1; i > 0; i--)
		{
			const int j = (int) (test_random(&seed) % (uint32_t) (i + 1));
			const m1_sequence swap = b.sequences[i];

			b.sequences[i] = b.sequences[j];
			b.sequences[j] = swap;
		}
		got = bits_of(&b, "ce_aux", &n);
		assert_same_bits(got, want, n, "another order");
		assert_true(gradients_of(&b, "ce_aux").loss == loss);
		free(got);
	}
	free(want);
	close_bench(&b);
}

/* The same tokens, of which experts are taken that differ: these sequences have an order, too. */
static void
test_same_bits_with_other_experts(void **state)
{
	bench b = open_bench(TINY);
	const int32_t tokens[] = {3, 5, 9, 5, 7, 11};
	uint16_t experts[2][6 * 8 * 2];
	m1_sequence s[2];
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	float *bits[2];
	m1_batch_result result;
	m1_error err;
	size_t n;

	(void) state;
	for (int i = 0; i < 2 * 6 * 8; i++)
	{
		experts[i / 48][2 * (i % 48)] = (uint16_t) (i / 48);
		experts[i / 48][2 * (i % 48) + 1] = 3;
	}
	for (int round = 0; round < 2; round++)
	{
		for (int i = 0; i < 2; i++)
			s[i ^ round] = (m1_sequence){.tokens = tokens, .n = 6, .prompt = 1, .share = -1, .experts = experts[i]};
		assert_ok(m1_trainer_gradients(b.trainer, s, 2, &o, &result, &err));
		bits[round] = copy_gradients(&b, &n);
	}
	assert_same_bits(bits[1], bits[0], n, "other experts");
	free(bits[0]);
	free(bits[1]);
	close_bench(&b);
}

static double
distance(const float *a, const float *b, size_t n)
{
	double difference = 0.0;
	double size = 0.0;

	for (size_t i = 0; i < n; i++)
	{
		difference += ((double) a[i] - b[i]) * ((double) a[i] - b[i]);
		size += (double) b[i] * b[i];
	}
	return sqrt(difference / size);
}

static void
test_instruction_sets_agree(void **state)
{
	static const char *const isas[] = {"avx2", "avx512", "avx512vnni"};
	bench b = open_bench_with(ODD, &(m1_trainer_options){0}, 1, "portable", 256);
	size_t n;
	float *want = bits_of(&b, "grpo", &n);

	(void) state;
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
	{
		m1b_backend *probe;
		m1_error err;

		if (m1b_cpu_open(1, isas[i], &probe, &err) != M1_OK)
			continue; /* this processor lacks it */
		probe->ops->close(probe);

		bench other = open_bench_with(ODD, &(m1_trainer_options){0}, 1, isas[i], 256);
		float *got = bits_of(&other, "grpo", &n);

		assert_true(distance(got, want, n) < 2e-5);
		free(got);
		close_bench(&other);
	}
	free(want);
	close_bench(&b);
}

/* ---- shared beginnings ---- */

/* n sequences that begin with the same `shared` tokens, and have `own` of theirs; tokens and weights are the caller's. */
static void
make_family(m1_sequence *s, int n, int shared, int own, int vocab, int32_t *tokens, float *weights)
{
	uint64_t seed = 5;
	const int length = shared + own;

	for (int i = 0; i < n; i++)
	{
		int32_t *at = tokens + (size_t) i * (size_t) length;
		float *weight = weights + (size_t) i * (size_t) length;

		for (int t = 0; t < length; t++)
		{
			at[t] = t < shared && i > 0 ? tokens[t] : (int32_t) (test_random(&seed) % (uint32_t) vocab);
			weight[t] = test_random_float(&seed);
		}
		at[shared] = i; /* they part here at the latest */
		s[i] = (m1_sequence){.tokens = at, .n = length, .prompt = 0, .share = 3, .weight = weight};
	}
}

/* Gradients of a family by itself and beside other sequences agree with those of its members one by one. */
static void
check_sharing(const char *path, int members, int shared, int own, float balance, const m1_trainer_options *options)
{
	bench b = open_bench_with(path, options, 1, NULL, 256);
	const size_t length = (size_t) (shared + own);
	int32_t *tokens = malloc((size_t) members * length * sizeof *tokens);
	float *weights = malloc((size_t) members * length * sizeof *weights);
	m1_sequence *s = calloc((size_t) members, sizeof *s);
	m1_objective o = m1_objective_of(M1_LOSS_CE);
	m1_batch_result together, apart;
	m1_error err;
	float *got, *want;
	size_t n;

	o.balance = balance;
	make_family(s, members, shared, own, b.model->config.vocab_size, tokens, weights);
	assert_ok(m1_trainer_gradients(b.trainer, s, members, &o, &together, &err));
	got = copy_gradients(&b, &n);
	for (int i = 0; i < members; i++)
		s[i].share = -1;
	assert_ok(m1_trainer_gradients(b.trainer, s, members, &o, &apart, &err));
	want = copy_gradients(&b, &n);
	assert_int_equal(together.tokens, (size_t) members * length);
	assert_int_equal(together.rows, shared + members * own);
	assert_int_equal(apart.rows, (size_t) members * length);
	assert_true(fabs(together.loss - apart.loss) < 2e-6);
	if (!(distance(got, want, n) < 2e-5))
		fail_msg("%s, %d members that share %d tokens: gradients differ by %g", path, members, shared,
				 distance(got, want, n));
	free(got);
	free(want);
	free(tokens);
	free(weights);
	free(s);
	close_bench(&b);
}

static void
test_short_shared_beginnings(void **state)
{
	(void) state;
	check_sharing(TINY, 3, 70, 1, 0.0f, &(m1_trainer_options){0});
	check_sharing(ODD, 4, 1, 7, 0.01f, &(m1_trainer_options){0});
}

static void
test_shared_beginnings(void **state)
{
	(void) state;
	check_sharing(TINY, 8, 300, 20, 0.0f, &(m1_trainer_options){0}); /* 460 rows instead of 2,560 tokens */
	check_sharing(TINY, 3, 64, 1, 0.0f, &(m1_trainer_options){0});
	check_sharing(ODD, 3, 65, 130, 0.01f, &(m1_trainer_options){.recompute = true});
}

/* Where states are kept, and not at each block: beginnings that are shared put those places elsewhere. */
static void
test_kept_states(void **state)
{
	(void) state;
	check_sharing(TINY, 2, 700, 300, 0.0f, &(m1_trainer_options){0});
	check_sharing(TINY, 2, 512, 512, 0.0f, &(m1_trainer_options){.recompute = true});
}

static void
test_shared_numbers_of_others(void **state)
{
	bench b = open_bench(TINY);
	size_t n;
	float *want = bits_of(&b, "cispo", &n);
	float *got;

	(void) state;
	/* the golden sequences have nothing in common */
	for (int i = 0; i < b.n; i++)
		b.sequences[i].share = 7;
	got = bits_of(&b, "cispo", &n);
	assert_same_bits(got, want, n, "one number for all");
	free(got);
	free(want);
	close_bench(&b);
}

/* ---- zeros ---- */

static void
assert_zero(const bench *b, const char *name, size_t from, size_t to)
{
	const m1_parameter *p = parameter_named(b, name);

	for (size_t i = from; i < to; i++)
		if (p->gradient[i] != 0.0f)
			fail_msg("%s: gradient %zu is %g", name, i, p->gradient[i]);
}

/* Rows of tokens that are not there, experts that nobody takes, and nothing at all where no coefficient is. */
static void
test_exact_zeros(void **state)
{
	bench b = open_bench(TINY);
	const int32_t tokens[] = {3, 5, 9, 5};
	const float none[] = {0.0f, 0.0f, 0.0f, 0.0f};
	uint16_t experts[4 * 8 * 2];
	m1_sequence s = {.tokens = tokens, .n = 4, .prompt = 1, .share = -1, .experts = experts};
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	const size_t d = (size_t) b.model->config.hidden_size;
	m1_batch_result result;
	m1_error err;
	size_t n;
	float *all;

	(void) state;
	for (int i = 0; i < 4 * 8; i++)
	{
		experts[2 * i] = 3;
		experts[2 * i + 1] = 1;
	}
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	assert_zero(&b, "model.embed_tokens.weight", 0, 3 * d);
	assert_zero(&b, "model.embed_tokens.weight", 4 * d, 5 * d);
	assert_zero(&b, "model.embed_tokens.weight", 10 * d, 320 * d);
	assert_zero(&b, "model.layers.2.block_sparse_moe.experts.0.w1.weight", 0, 48 * d);
	assert_zero(&b, "model.layers.7.block_sparse_moe.experts.2.w2.weight", 0, 48 * d);
	assert_zero(&b, "model.layers.2.block_sparse_moe.gate.weight", 0, d);
	assert_zero(&b, "model.layers.2.block_sparse_moe.gate.weight", 2 * d, 3 * d);
	s.weight = none;
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	assert_int_equal(result.predicted, 0);
	all = copy_gradients(&b, &n);
	for (size_t i = 0; i < n; i++)
		assert_true(all[i] == 0.0f);
	free(all);
	close_bench(&b);
}

/* What is exactly zero stays where it is, however small eps is. */
static void
test_zeros_do_not_move(void **state)
{
	bench b = open_bench(TINY);
	const int32_t tokens[] = {3, 5, 9, 5};
	const m1_sequence s = {.tokens = tokens, .n = 4, .prompt = 1, .share = -1};
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	m1_adamw_options adamw = m1_adamw_defaults(1e-3f);
	const m1_parameter *embed = parameter_named(&b, "model.embed_tokens.weight");
	float *before = malloc(embed->n * sizeof *before);
	m1_batch_result result;
	m1_update update;
	m1_error err;

	(void) state;
	adamw.weight_decay = 0.0f;
	memcpy(before, embed->value, embed->n * sizeof *before);
	assert_ok(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err));
	assert_ok(m1_trainer_update(b.trainer, &adamw, &result, &update, &err));
	for (size_t i = 0; i < embed->n; i++)
	{
		const size_t token = i / (size_t) embed->cols;

		assert_true((token == 3 || token == 5 || token == 9) == (embed->value[i] != before[i]));
	}
	free(before);
	close_bench(&b);
}

/* ---- the gradient against differences of the loss ---- */

static double
loss_along(bench *b, const m1_objective *o, m1_parameter *p, const float *from, const float *direction, double step)
{
	m1_batch_result result;
	m1_error err;

	for (size_t i = 0; i < p->n; i++)
		p->value[i] = (float) (from[i] + step * direction[i]);
	assert_ok(m1_trainer_evaluate(b->trainer, b->sequences, b->n, o, &result, &err));
	return result.loss;
}

/* The loss changes along a parameter's own gradient as the gradient says. */
static void
check_direction(bench *b, const m1_objective *o, m1_parameter *p)
{
	float *from = malloc(p->n * sizeof *from);
	float *direction = malloc(p->n * sizeof *direction);
	double squares = 0.0;
	double step, slope;

	memcpy(from, p->value, p->n * sizeof *from);
	memcpy(direction, p->gradient, p->n * sizeof *direction);
	for (size_t i = 0; i < p->n; i++)
		squares += (double) direction[i] * direction[i];
	step = 2e-3 / squares; /* the loss is to change by a few thousandths */
	if (step * sqrt(squares) > 0.02)
		step = 0.02 / sqrt(squares); /* not so far that it bends */
	slope = (loss_along(b, o, p, from, direction, step) - loss_along(b, o, p, from, direction, -step)) / (2 * step);
	memcpy(p->value, from, p->n * sizeof *from);
	if (!(fabs(slope - squares) <= 0.02 * squares + 2e-7 / step))
		fail_msg("%s: the loss's slope along the gradient is %g instead of %g", p->name, slope, squares);
	free(from);
	free(direction);
}

static void
check_directions(bench *b, const m1_objective *o)
{
	static const char *const names[] = {
		"model.embed_tokens.weight",
		"model.norm.weight",
		"lm_head.weight",
		"model.layers.0.input_layernorm.weight",
		"model.layers.1.post_attention_layernorm.weight",
		"model.layers.2.self_attn.qkv_proj.weight",
		"model.layers.3.self_attn.output_gate.weight",
		"model.layers.3.self_attn.norm.weight",
		"model.layers.4.self_attn.out_proj.weight",
		"model.layers.7.self_attn.q_proj.weight",
		"model.layers.7.self_attn.k_proj.weight",
		"model.layers.7.self_attn.v_proj.weight",
		"model.layers.7.self_attn.o_proj.weight",
		"model.layers.1.block_sparse_moe.gate.weight",
		"model.layers.1.block_sparse_moe.experts.0.w1.weight",
		"model.layers.1.block_sparse_moe.experts.0.w2.weight",
		"model.layers.1.block_sparse_moe.experts.0.w3.weight",
	};
	m1_batch_result result;
	m1_error err;

	assert_ok(m1_trainer_gradients(b->trainer, b->sequences, b->n, o, &result, &err));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		check_direction(b, o, (m1_parameter *) (uintptr_t) parameter_named(b, names[i]));
}

/* 137 tokens in three sequences, one of them over more than a block. */
static void
use_short_sequences(bench *b)
{
	const m1_sequence longest = b->sequences[0];

	b->sequences[0] = b->sequences[3];
	b->sequences[3] = longest;
	b->sequences[0].prompt = 0;
	b->n = 3;
}

/* Experts 0 and 1 for every token: no choice changes under the differences. */
static uint16_t *
force_experts(bench *b)
{
	uint16_t *experts = malloc((size_t) 1024 * 8 * 2 * sizeof *experts);

	for (int i = 0; i < 1024 * 8; i++)
	{
		experts[2 * i] = (uint16_t) (i % 2);
		experts[2 * i + 1] = (uint16_t) (1 - i % 2);
	}
	for (int i = 0; i < b->n; i++)
		b->sequences[i].experts = experts;
	return experts;
}

static void
test_replayed_experts(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = objective_named(&b, "ce");
	m1_batch_result result;
	m1_error err;
	uint16_t *experts = force_experts(&b);

	(void) state;
	use_short_sequences(&b);
	assert_ok(m1_trainer_gradients(b.trainer, b.sequences, b.n, &o, &result, &err));
	assert_true(result.rerouted > 0);
	assert_true(result.most_load == 2.0); /* half of the choices each, of four experts */
	check_directions(&b, &o);
	free(experts);
	close_bench(&b);
}

/* A copy of the smallest checkpoint with another number in its config. */
static void
make_variant(const char *folder, const char *key, json_t *value)
{
	json_t *config = json_load_file(TINY "/config.json", 0, NULL);
	char path[200];
	char *text;

	assert_int_equal(json_object_set_new(config, key, value), 0);
	text = json_dumps(config, 0);
	test_write_file(folder, "config.json", text, strlen(text));
	snprintf(path, sizeof path, "%s/model.safetensors", folder);
	test_link(TINY "/model.safetensors", path);
	snprintf(path, sizeof path, "%s/grad_golden.safetensors", folder);
	test_link(TINY "/grad_golden.safetensors", path);
	free(text);
	json_decref(config);
}

static void
check_variant(const char *folder, const char *key, json_t *value, float temperature)
{
	bench b;
	m1_objective o;
	uint16_t *experts;

	make_variant(folder, key, value);
	b = open_bench(folder);
	use_short_sequences(&b);
	o = objective_named(&b, "ce");
	o.temperature = temperature;
	experts = force_experts(&b);
	check_directions(&b, &o);
	free(experts);
	close_bench(&b);
}

static void
test_residuals_before_the_norm(void **state)
{
	(void) state;
	check_variant(TEST_BUILD "/train_prenorm", "postnorm", json_false(), 1.0f);
}

static void
test_factors_of_branches(void **state)
{
	(void) state;
	check_variant(TEST_BUILD "/train_mlp", "layernorm_mlp_beta", json_real(0.5), 0.7f);
	check_variant(TEST_BUILD "/train_linear", "layernorm_linear_attention_beta", json_real(0.5), 1.0f);
	check_variant(TEST_BUILD "/train_full", "layernorm_full_attention_beta", json_real(2.0), 1.5f);
}

/* With one expert a token its weight is 1, and the router learns from nothing: exactly. */
static void
test_one_expert(void **state)
{
	bench b;

	(void) state;
	make_variant(TEST_BUILD "/train_one", "num_experts_per_tok", json_integer(1));
	b = open_bench(TEST_BUILD "/train_one");
	gradients_of(&b, "ce");
	for (int i = 0; i < 8; i++)
	{
		char name[64];

		snprintf(name, sizeof name, "model.layers.%d.block_sparse_moe.gate.weight", i);
		assert_zero(&b, name, 0, parameter_named(&b, name)->n);
	}
	close_bench(&b);
}

/* ---- what is refused ---- */

/* What others hold is no room for activations, and what a batch has taken is given back, if that is wanted. */
static void
test_memory_of_others(void **state)
{
	m1_model_options options = {
		.path = TINY, .device = "cpu", .threads = 1, .max_context = 1024, .max_sequences = 1, .max_batch_tokens = 256};
	const size_t all = m1_machine_memory();
	m1_model *model;
	m1_trainer *trainer;
	size_t alone;
	bench b = open_bench_with(TINY, &(m1_trainer_options){.gives_back = true}, 1, NULL, 256);
	m1_error err;

	(void) state;
	gradients_of(&b, "ce");
	assert_null(b.trainer->arena);
	alone = b.trainer->memory;
	close_bench(&b);
	assert_true(alone <= all / 4);
	options.snapshot_bytes = all / 2;
	assert_ok(m1_model_open(&options, &model, &err));
	assert_ok(m1_trainer_open(model, &(m1_trainer_options){0}, &trainer, &err));
	assert_true(trainer->memory <= alone - all / 9);
	m1_trainer_close(trainer);
	m1_model_close(model);
}

static void
test_memory_is_planned(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = objective_named(&b, "ce");
	m1_train_memory all, some;
	m1_batch_result result;
	m1_error err;
	size_t n;
	float *want = bits_of(&b, "ce", &n);
	float *got;

	(void) state;
	assert_ok(m1_trainer_plan(b.trainer, b.sequences, b.n, &o, &all, &err));
	assert_false(all.recompute);
	close_bench(&b);

	b = open_bench_with(TINY, &(m1_trainer_options){.memory = all.least}, 1, NULL, 256);
	assert_ok(m1_trainer_plan(b.trainer, b.sequences, b.n, &o, &some, &err));
	assert_true(some.recompute);
	assert_true(some.planned <= all.least);
	got = bits_of(&b, "ce", &n);
	assert_same_bits(got, want, n, "the least memory");
	close_bench(&b);

	b = open_bench_with(TINY, &(m1_trainer_options){.memory = all.least - 1}, 1, NULL, 256);
	assert_int_equal(m1_trainer_gradients(b.trainer, b.sequences, b.n, &o, &result, &err), M1_E_NO_MEMORY);
	assert_non_null(strstr(err.message, "257 tokens"));
	assert_non_null(strstr(err.detail, "MB"));
	close_bench(&b);
	free(got);
	free(want);
}

static void
test_no_number_changes_nothing(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	const m1_adamw_options adamw = m1_adamw_defaults(1e-3f);
	const m1_parameter *head = parameter_named(&b, "lm_head.weight");
	float *before = malloc(head->n * sizeof *before);
	m1_batch_result result;
	m1_update update;
	m1_error err;

	(void) state;
	memcpy(before, head->value, head->n * sizeof *before);
	for (int i = 0; i < 2; i++)
	{
		b.sequences[0].weight = b.weight;
		b.weight[200] = NAN;
		assert_ok(m1_trainer_gradients(b.trainer, b.sequences, b.n, &o, &result, &err));
		assert_true(isnan(result.loss));
		assert_ok(m1_trainer_update(b.trainer, &adamw, &result, &update, &err));
		assert_true(update.dropped);
	}
	b.weight[200] = 1e32f; /* a number, and yet nothing to learn from */
	assert_ok(m1_trainer_gradients(b.trainer, b.sequences, b.n, &o, &result, &err));
	assert_ok(m1_trainer_update(b.trainer, &adamw, &result, &update, &err));
	assert_true(isfinite(update.norm) && update.dropped);
	assert_int_equal(m1_trainer_dropped_in_a_row(b.trainer), 3);
	assert_memory_equal(before, head->value, head->n * sizeof *before);
	b.sequences[0].weight = NULL;
	assert_ok(m1_trainer_gradients(b.trainer, b.sequences, b.n, &o, &result, &err));
	assert_ok(m1_trainer_update(b.trainer, &adamw, &result, &update, &err));
	assert_false(update.dropped);
	assert_int_equal(m1_trainer_dropped_in_a_row(b.trainer), 0);
	assert_int_equal(m1_trainer_dropped(b.trainer), 3);
	assert_int_equal(m1_trainer_updates(b.trainer), 1);
	free(before);
	close_bench(&b);
}

static void
test_impossible_batches(void **state)
{
	bench b = open_bench(TINY);
	int32_t tokens[2000] = {1, 2, 320};
	uint16_t experts[3 * 8 * 2] = {0};
	m1_sequence s = {.tokens = tokens, .n = 3, .prompt = 1, .share = -1};
	m1_objective o = m1_objective_of(M1_LOSS_CE);
	m1_batch_result result;
	m1_error err;

	(void) state;
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "token id 320"));
	tokens[2] = -1;
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	tokens[2] = 3;
	s.experts = experts;
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "an expert twice"));
	s.experts = NULL;
	s.n = 1025;
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_CONTEXT_OVERFLOW);
	s.n = 0;
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 0, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	s.n = 3;
	o = m1_objective_of(M1_LOSS_CISPO);
	assert_int_equal(m1_trainer_gradients(b.trainer, &s, 1, &o, &result, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "old policy"));
	close_bench(&b);
}

static void
test_quantized_weights_are_refused(void **state)
{
	const m1_model_options options = {.path = TRAINED,
									  .device = "cpu",
									  .weight_format = M1_WEIGHTS_Q8_0,
									  .threads = 2,
									  .max_context = 64,
									  .max_sequences = 1,
									  .max_batch_tokens = 16};
	m1_model *model;
	m1_trainer *trainer;
	m1_error err;

	(void) state;
	assert_ok(m1_model_open(&options, &model, &err));
	assert_int_equal(m1_trainer_open(model, &(m1_trainer_options){0}, &trainer, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "Q8_0"));
	m1_model_close(model);
}

/* ---- advantages ---- */

static void
test_advantages(void **state)
{
	const float reward[] = {1.0f, 0.5f, 0.0f, 0.5f, 2.0f, 7.0f};
	const int group[] = {4, 9, 4, 9, 4, 1};
	float advantage[6];

	(void) state;
	m1_advantages(reward, group, 6, advantage);
	assert_true(fabsf(advantage[0]) < 1e-6f);
	assert_true(fabsf(advantage[2] + 1.0f) < 1e-6f);
	assert_true(fabsf(advantage[4] - 1.0f) < 1e-6f);
	assert_true(advantage[1] == 0.0f && advantage[3] == 0.0f); /* equal rewards */
	assert_true(advantage[5] == 0.0f);						   /* by itself */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_bits_in_any_pieces),
		cmocka_unit_test(test_same_bits_in_any_order),
		cmocka_unit_test(test_same_bits_with_other_experts),
		cmocka_unit_test(test_short_shared_beginnings),
		cmocka_unit_test(test_shared_numbers_of_others),
		cmocka_unit_test(test_exact_zeros),
		cmocka_unit_test(test_zeros_do_not_move),
		cmocka_unit_test(test_replayed_experts),
		cmocka_unit_test(test_one_expert),
		cmocka_unit_test(test_memory_is_planned),
		cmocka_unit_test(test_memory_of_others),
		cmocka_unit_test(test_no_number_changes_nothing),
		cmocka_unit_test(test_impossible_batches),
		cmocka_unit_test(test_quantized_weights_are_refused),
		cmocka_unit_test(test_advantages),
	};
	/* these take minutes if they are sanitized, and hardly any code that the others do not */
	const struct CMUnitTest more[] = {
		cmocka_unit_test(test_instruction_sets_agree),
		cmocka_unit_test(test_shared_beginnings),
		cmocka_unit_test(test_kept_states),
		cmocka_unit_test(test_factors_of_branches),
		cmocka_unit_test(test_residuals_before_the_norm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) || (!SANITIZED && cmocka_run_group_tests(more, NULL, NULL));
}
