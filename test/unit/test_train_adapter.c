/*
 * test_train_adapter.c - an adapter that is trained: its gradients against those of the weights that it is merged into,
 * and against differences of losses; what they do not depend on; exact zeros; bases of every type; and what is saved.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "adapter_testing.h"
#include "train_testing.h"

#include "model/adapter_files.h"
#include "model/adapter_names.h"
#include "model/adapter_plan.h"
#include "model/merge.h"

#define FOLDER TEST_BUILD "/train_adapter"
#define MERGED TEST_BUILD "/train_adapter_merged"

/* A bench whose trainer trains an adapter. */
typedef struct adapted
{
	bench b;
	m1_adapter *adapter;
} adapted;

typedef struct way
{
	m1_trainer_options options;
	int threads, batch_tokens;
	m1_weight_format format;
	const char *isa;
} way;

static const way usual = {.threads = 2, .batch_tokens = 256};

static m1_model *
open_base(const char *path, way w)
{
	const m1_model_options options = {.path = path,
									  .device = "cpu",
									  .isa = w.isa,
									  .weight_format = w.format,
									  .threads = w.threads,
									  .max_context = 1024,
									  .max_sequences = 1,
									  .max_batch_tokens = w.batch_tokens};
	m1_model *m;
	m1_error err;

	assert_ok(m1_model_open(&options, &m, &err));
	return m;
}

/* With the adapter in FOLDER, which changes everything that there is, or a new one. */
static adapted
open_adapted(const char *path, way w, const m1_adapter_plan *plan)
{
	adapted a = {.b.model = open_base(path, w)};
	const m1_model *m = a.b.model;
	const m1_adapter_base base = {.source = m->source, .config = &m->config, .checkpoint = m->checkpoint};
	m1_error err;

	if (plan != NULL)
		assert_ok(m1_adapter_create(plan, &m->config, m->checkpoint, &a.adapter, &err));
	else
	{
		const adapter_spec spec = everything(FOLDER, path, 1);

		write_adapter(&spec);
		assert_ok(m1_adapter_load(FOLDER, &base, &a.adapter, &err));
	}
	w.options.adapter = a.adapter;
	assert_ok(m1_trainer_open(a.b.model, &w.options, &a.b.trainer, &err));
	assert_ok(m1_checkpoint_open_file(path, "grad_golden.safetensors", &a.b.golden, &err));
	read_batch(&a.b);
	return a;
}

static void
close_adapted(adapted *a)
{
	close_bench(&a->b);
	m1_adapter_free(a->adapter);
}

/* ---- against the gradients of merged weights ---- */

/* All weights of the model with the adapter merged into them. */
static bench
open_merged(const char *path)
{
	const m1_convert_options merge = {
		.in = path, .out = MERGED, .adapter = FOLDER, .threads = 2, .shard_bytes = 1 << 30};
	bench b = {0};
	m1_error err;

	assert_int_equal(system("rm -rf '" MERGED "'"), 0);
	assert_ok(m1_merge(&merge, &err));
	b.model = open_base(MERGED, usual);
	assert_ok(m1_trainer_open(b.model, &(m1_trainer_options){0}, &b.trainer, &err));
	assert_ok(m1_checkpoint_open_file(path, "grad_golden.safetensors", &b.golden, &err));
	read_batch(&b);
	return b;
}

static const m1_parameter *
parameter_of(const bench *b, const m1_adapter_target *t, const char *suffix)
{
	char module[M1_ADAPTER_NAME_SIZE];
	char name[M1_ADAPTER_NAME_SIZE];

	m1_adapter_module_name(t->role, t->layer, t->expert, module);
	m1_adapter_tensor_name(module, suffix, name);
	return parameter_named(b, name);
}

static void
assert_near(const float *got, const float *want, size_t n, const m1_parameter *p, const char *loss)
{
	double size = 0.0;
	const double distance = test_distance(got, want, n);

	for (size_t i = 0; i < n; i++)
		size = fmax(size, fabs((double) want[i]));
	if (size > 0.0 ? !(distance < 2e-4) : memcmp(got, want, n * sizeof *got) != 0)
		fail_msg("%s of %s: %g of its norm, largest %g", p->name, loss, distance, size);
}

/* W' = W + s B A: dA = s B^T dW and dB = s dW A^T. */
static void
check_target(const adapted *a, const bench *merged, const m1_adapter_target *t, const char *loss)
{
	const m1_parameter *pa, *pb;
	char name[128];
	const float *dw;
	float *da, *db;

	m1_role_name(t->role, M1_NAMES_SAFETENSORS, t->layer, t->expert, name, sizeof name);
	dw = parameter_named(merged, name)->gradient;
	if (t->whole != NULL)
	{
		pa = parameter_of(&a->b, t, ".weight");
		assert_near(pa->gradient, dw, pa->n, pa, loss);
		return;
	}
	pa = parameter_of(&a->b, t, ".lora_A.weight");
	pb = parameter_of(&a->b, t, ".lora_B.weight");
	assert_false(pa->transposed);
	assert_true(pb->transposed);
	da = calloc(pa->n, sizeof *da);
	db = calloc(pb->n, sizeof *db);
	for (int r = 0; r < t->rank; r++)
		for (int j = 0; j < t->rows; j++)
			for (int k = 0; k < t->cols; k++)
			{
				da[r * t->cols + k] +=
					t->scale * t->b[r * t->rows + j] * dw[(size_t) j * (size_t) t->cols + (size_t) k];
				db[r * t->rows + j] +=
					t->scale * t->a[r * t->cols + k] * dw[(size_t) j * (size_t) t->cols + (size_t) k];
			}
	assert_near(pa->gradient, da, pa->n, pa, loss);
	assert_near(pb->gradient, db, pb->n, pb, loss);
	free(da);
	free(db);
}

static void
check_against_merged(const char *path, const char *const *losses, int n_losses)
{
	adapted a = open_adapted(path, usual, NULL);
	bench merged = open_merged(path);
	const m1_adapter_target *targets;
	int n;

	targets = m1_adapter_targets(a.adapter, &n);
	assert_true(n > 100);
	for (int i = 0; i < n_losses; i++)
	{
		const m1_batch_result got = gradients_of(&a.b, losses[i]);
		const m1_batch_result want = gradients_of(&merged, losses[i]);

		assert_true(fabs(got.loss - want.loss) < 1e-5);
		for (int t = 0; t < n; t++)
			check_target(&a, &merged, &targets[t], losses[i]);
	}
	close_bench(&merged);
	close_adapted(&a);
}

static void
test_against_merged(void **state)
{
	(void) state;
	check_against_merged(TINY, (const char *[]){"cispo", "ce_aux"}, 2);
	check_against_merged(ODD, (const char *[]){"weighted"}, 1); /* with a tied head */
}

/* A router with A and B, which files may have though none is made so. */
static void
test_low_rank_router(void **state)
{
	const adapter_spec spec = {.folder = FOLDER,
							   .model = TINY,
							   .config = "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 5, \"target_modules\": "
										 "[\"block_sparse_moe.gate\"]}",
							   .rank = {[M1_ROLE_ROUTER] = 3}};
	adapted a = {.b.model = open_base(TINY, usual)};
	const m1_adapter_base base = {
		.source = a.b.model->source, .config = &a.b.model->config, .checkpoint = a.b.model->checkpoint};
	m1_trainer_options options = {0};
	const m1_adapter_target *targets;
	bench merged;
	int n;
	m1_error err;

	(void) state;
	write_adapter(&spec);
	assert_ok(m1_adapter_load(FOLDER, &base, &a.adapter, &err));
	options.adapter = a.adapter;
	assert_ok(m1_trainer_open(a.b.model, &options, &a.b.trainer, &err));
	assert_ok(m1_checkpoint_open_file(TINY, "grad_golden.safetensors", &a.b.golden, &err));
	read_batch(&a.b);
	merged = open_merged(TINY);
	gradients_of(&a.b, "ce_aux");
	gradients_of(&merged, "ce_aux");
	targets = m1_adapter_targets(a.adapter, &n);
	for (int t = 0; t < n; t++)
		check_target(&a, &merged, &targets[t], "ce_aux");
	close_bench(&merged);
	close_adapted(&a);
}

/* ---- against differences ---- */

static bool
is_of(const m1_parameter *p, const char *kind)
{
	return strstr(p->name, kind) != NULL;
}

/* Moves all parameters of a kind along the gradient that is given, by h of its norm. */
static void
move_along(const bench *b, const char *kind, const float *gradient, double h, double norm)
{
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &n);

	for (size_t i = 0; i < n; gradient += p[i].n, i++)
		for (size_t k = 0; k < p[i].n && is_of(&p[i], kind); k++)
			p[i].value[k] += (float) (h * gradient[k] / norm);
}

static double
loss_of(bench *b)
{
	const m1_objective o = objective_named(b, "weighted");
	m1_batch_result result;
	m1_error err;

	assert_ok(m1_trainer_evaluate(b->trainer, b->sequences, b->n, &o, &result, &err));
	return result.loss;
}

static double
norm_of(const bench *b, const char *kind, const float *gradient)
{
	double squares = 0.0;
	size_t n;
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &n);

	for (size_t i = 0; i < n; gradient += p[i].n, i++)
		for (size_t k = 0; k < p[i].n && is_of(&p[i], kind); k++)
			squares += (double) gradient[k] * gradient[k];
	return sqrt(squares);
}

/* How much the loss grows along the gradient, by a step that changes it by about so much. */
static double
slope_along(bench *b, const char *kind, const float *gradient, double norm, double change)
{
	const double h = change / norm;
	double up, down;

	move_along(b, kind, gradient, h, norm);
	up = loss_of(b);
	move_along(b, kind, gradient, -2.0 * h, norm);
	down = loss_of(b);
	move_along(b, kind, gradient, h, norm);
	return (up - down) / (2.0 * h);
}

/*
 * The loss grows along the gradient as its norm says: of steps that are too small or too large, one is right.
 * Not of the router, whose choices differ at once.
 */
static void
test_against_differences(void **state)
{
	static const char *const kinds[] = {"qkv_proj.lora_A", "o_proj.lora_B", "w1.lora_A",
										"w2.lora_B",	   "w3.lora_A",		"lm_head.lora_B"};
	static const double changes[] = {1e-4, 3e-4, 1e-3};
	adapted a = open_adapted(TINY, usual, NULL);
	float *gradient;
	size_t n;

	(void) state;
	gradients_of(&a.b, "weighted");
	gradient = copy_gradients(&a.b, &n);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
	{
		const double norm = norm_of(&a.b, kinds[i], gradient);
		double best = INFINITY;

		for (int k = 0; k < 3; k++)
			best = fmin(best, fabs(slope_along(&a.b, kinds[i], gradient, norm, changes[k]) / norm - 1.0));
		if (!(best < 0.03))
			fail_msg("%s: the loss does not grow by %g, but by %g of it more or less", kinds[i], norm, best);
	}
	free(gradient);
	close_adapted(&a);
}

/* ---- what does not matter ---- */

static void
assert_same_gradients(adapted *a, const float *want, const char *what)
{
	size_t n;
	float *got;

	gradients_of(&a->b, "ce_aux");
	got = copy_gradients(&a->b, &n);
	for (size_t i = 0; i < n; i++)
		if (memcmp(&got[i], &want[i], sizeof *got) != 0)
			fail_msg("%s: gradient %zu is %.9g instead of %.9g", what, i, got[i], want[i]);
	free(got);
}

static void
test_same_bits(void **state)
{
	static const struct
	{
		const char *what;
		way way;
	} ways[] = {
		{"one thread", {{0}, 1, 256, 0, NULL}},
		{"three threads, every sequence alone", {{.rows = 1}, 3, 256, 0, NULL}},
		{"kept inputs only", {{.recompute = true}, 2, 256, 0, NULL}},
		{"steps of 7 rows", {{0}, 2, 7, 0, NULL}},
	};
	adapted a = open_adapted(ODD, usual, NULL);
	float *want;
	m1_sequence first;
	size_t n;

	(void) state;
	gradients_of(&a.b, "ce_aux");
	want = copy_gradients(&a.b, &n);
	first = a.b.sequences[0];
	memmove(a.b.sequences, a.b.sequences + 1, (size_t) (a.b.n - 1) * sizeof first);
	a.b.sequences[a.b.n - 1] = first;
	assert_same_gradients(&a, want, "another order");
	close_adapted(&a);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
	{
		a = open_adapted(ODD, ways[i].way, NULL);
		assert_same_gradients(&a, want, ways[i].what);
		close_adapted(&a);
	}
	free(want);
}

/* A and B of experts that no token has chosen, and A of all that B still switches off, have gradients of exactly 0. */
static void
test_exact_zeros(void **state)
{
	const m1_adapter_plan plan = m1_adapter_default_plan();
	adapted a = open_adapted(TINY, usual, &plan);
	const int32_t tokens[] = {3, 5};
	const m1_sequence s = {.tokens = tokens, .n = 2, .prompt = 1, .share = -1};
	const m1_objective o = m1_objective_of(M1_LOSS_CE);
	const m1_adamw_options adamw = m1_adamw_defaults(1e-3f);
	size_t n, still = 0;
	m1_parameter *p = m1_trainer_parameters(a.b.trainer, &n);
	m1_batch_result result;
	m1_update update;
	m1_error err;

	(void) state;
	assert_ok(m1_trainer_gradients(a.b.trainer, &s, 1, &o, &result, &err));
	for (size_t i = 0; i < n; i++)
	{
		bool zero = true;

		for (size_t k = 0; k < p[i].n; k++)
			zero = zero && p[i].gradient[k] == 0.0f;
		assert_true(zero || !is_of(&p[i], "lora_A"));
		still += zero && is_of(&p[i], "lora_B") && is_of(&p[i], "experts");
	}
	assert_true(still > 0 && still % 3 == 0); /* w1, w2 and w3 of experts */
	assert_ok(m1_trainer_update(a.b.trainer, &adamw, &result, &update, &err));
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < p[i].n && is_of(&p[i], "lora_B"); k++)
			assert_true((p[i].value[k] == 0.0f) == (p[i].gradient[k] == 0.0f));
	close_adapted(&a);
}

/* ---- bases of every type ---- */

static double
loss_after(adapted *a, int steps)
{
	const m1_adamw_options adamw = {.rate = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-15f, .clip = 1.0f};
	m1_update update;
	m1_error err;

	for (int i = 0; i < steps; i++)
	{
		const m1_batch_result result = gradients_of(&a->b, "weighted");

		assert_ok(m1_trainer_update(a->b.trainer, &adamw, &result, &update, &err));
		assert_false(update.dropped);
	}
	return loss_of(&a->b);
}

static void
test_stored_types(void **state)
{
	static const struct
	{
		m1_weight_format format;
		double tolerance; /* of gradients */
	} types[] = {{M1_WEIGHTS_Q8_0, 0.25}, {M1_WEIGHTS_FP8, 0.5}, {M1_WEIGHTS_Q4, 0.9}};
	adapted a = open_adapted(TINY, usual, NULL);
	float *want;
	size_t n;

	(void) state;
	gradients_of(&a.b, "weighted");
	want = copy_gradients(&a.b, &n);
	close_adapted(&a);
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
	{
		const way w = {.threads = 2, .batch_tokens = 256, .format = types[i].format};
		double before;
		float *got;

		a = open_adapted(TINY, w, NULL);
		before = loss_of(&a.b);
		gradients_of(&a.b, "weighted");
		got = copy_gradients(&a.b, &n);
		if (!(test_distance(got, want, n) < types[i].tolerance))
			fail_msg("type %zu: %g", i, test_distance(got, want, n));
		assert_true(loss_after(&a, 3) < before);
		free(got);
		close_adapted(&a);
	}
	free(want);
}

/* ---- what is saved ---- */

/* A file has what was trained, to the last bit. */
static void
test_saved(void **state)
{
	const m1_adapter_plan plan = m1_adapter_default_plan();
	adapted a = open_adapted(TRAINED, usual, &plan);
	const m1_model *m = a.b.model;
	const m1_adapter_base base = {.source = m->source, .config = &m->config, .checkpoint = m->checkpoint};
	const double before = loss_of(&a.b);
	const double after = loss_after(&a, 4);
	m1_adapter *again;
	int n;
	m1_error err;

	(void) state;
	assert_true(after < before);
	assert_int_equal(system("mkdir -p '" FOLDER "'"), 0);
	assert_ok(m1_adapter_save(a.adapter, FOLDER, &base, &err));
	assert_ok(m1_adapter_load(FOLDER, &base, &again, &err));
	m1_adapter_targets(again, &n);
	for (int i = 0; i < n; i++)
	{
		const m1_adapter_target *x = m1_adapter_targets(a.adapter, &n) + i;
		const m1_adapter_target *y = m1_adapter_targets(again, &n) + i;

		assert_int_equal(x->rank, y->rank);
		if (x->rank > 0)
			assert_memory_equal(x->a, y->a, (size_t) x->rank * (size_t) (x->rows + x->cols) * sizeof *x->a);
		if (x->whole != NULL)
			assert_memory_equal(x->whole, y->whole, (size_t) x->rows * (size_t) x->cols * sizeof *x->whole);
	}
	m1_adapter_free(again);
	close_adapted(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_merged),
		cmocka_unit_test(test_low_rank_router),
		cmocka_unit_test(test_against_differences),
		cmocka_unit_test(test_same_bits),
		cmocka_unit_test(test_exact_zeros),
		cmocka_unit_test(test_stored_types),
		cmocka_unit_test(test_saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
