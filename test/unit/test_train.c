/*
 * test_train.c - losses, gradients and optimizer steps of every checkpoint against numbers that another program has
 * made in double precision (grad_golden.safetensors beside each checkpoint).
 */
#include "train_testing.h"

#define PROJECTIONS 2

static const char *const losses[] = {"weighted", "ce", "ce_aux", "cispo", "grpo", "dapo"};

#define LOSSES (sizeof losses / sizeof *losses)

/* -1 where the top bit of splitmix64 is set, else +1: a projection that sees every entry. */
static double
sign_at(uint64_t i, uint64_t projection)
{
	uint64_t z = (i * PROJECTIONS + projection + 1) * 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return (z ^ z >> 31) >> 63 ? -1.0 : 1.0;
}

static void
assert_near(double got, double want, double tolerance, const char *loss, const char *name, const char *what)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%s, %s: %s is %.9g instead of %.9g, off by %.3g of what is allowed", loss, name, what, got, want,
				 fabs(got - want) / tolerance);
}

/* One row of the golden arrays: samples, norm and projections of one parameter's gradient. */
static void
check_parameter(const char *loss, const m1_parameter *p, const int64_t *index, const float *sample, size_t samples,
				double norm, const float *projection, double tolerance)
{
	double squares = 0.0;
	double projected[PROJECTIONS] = {0.0, 0.0};

	for (size_t i = 0; i < p->n; i++)
	{
		const double g = p->gradient[i];

		squares += g * g;
		for (int q = 0; q < PROJECTIONS; q++)
			projected[q] += sign_at(i, (uint64_t) q) * g;
	}
	assert_near(sqrt(squares), norm, tolerance * norm, loss, p->name, "the norm");
	for (size_t i = 0; i < samples; i++)
		assert_near(p->gradient[index[i]], sample[i], tolerance * norm, loss, p->name, "an entry");
	for (int q = 0; q < PROJECTIONS; q++)
		assert_near(projected[q], projection[q], tolerance * norm, loss, p->name, "a projection");
}

static float *
golden_part(const bench *b, const char *loss, const char *part, size_t *n)
{
	char name[64];

	snprintf(name, sizeof name, "grad.%s.%s", loss, part);
	return golden_floats(b, name, n);
}

static void
check_gradients(const bench *b, const char *loss, double tolerance)
{
	size_t n, entries, rows, projections, parameters;
	int64_t *index = golden_integers(b, "index", &entries);
	float *sample = golden_part(b, loss, "sample", &n);
	float *norm = golden_part(b, loss, "norm", &rows);
	float *projection = golden_part(b, loss, "proj", &projections);
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &parameters);
	const size_t samples = entries / rows;

	/* the golden file's rows are in the order of names, too */
	assert_int_equal(parameters, rows);
	assert_int_equal(projections, rows * PROJECTIONS);
	for (size_t i = 0; i < rows; i++)
		check_parameter(loss, &p[i], index + i * samples, sample + i * samples, samples, norm[i],
						projection + i * PROJECTIONS, tolerance);
	free(index);
	free(sample);
	free(norm);
	free(projection);
}

static void
check_loss(bench *b, const char *loss, double tolerance)
{
	char name[64];
	const m1_batch_result result = gradients_of(b, loss);

	snprintf(name, sizeof name, "loss.%s", loss);
	assert_near(result.loss, golden_scalar(b, name), 2e-6 * (1.0 + fabs(golden_scalar(b, name))), loss, "", "the loss");
	check_gradients(b, loss, tolerance);
}

static void
check_all_losses(const char *path, double tolerance)
{
	bench b = open_bench(path);

	for (size_t i = 0; i < LOSSES; i++)
		check_loss(&b, losses[i], tolerance);
	close_bench(&b);
}

static void
test_tiny_gradients(void **state)
{
	(void) state;
	check_all_losses(TINY, 1e-4);
}

static void
test_odd_gradients(void **state)
{
	(void) state;
	check_all_losses(ODD, 1e-4);
}

static void
test_sharded_gradients(void **state)
{
	(void) state;
	check_all_losses(SHARDED, 1e-4);
}

/* test/golden/gradients.py has the other losses; here they would take too long under sanitizers. */
static void
test_nano_gradients(void **state)
{
	bench b = open_bench(TRAINED);

	(void) state;
	check_loss(&b, "ce_aux", 1e-3);
	close_bench(&b);
}

/* Every entry of one gradient. */
static void
test_every_entry(void **state)
{
	bench b = open_bench(TINY);
	m1_checkpoint *full;
	m1_error err;
	size_t parameters;
	const m1_parameter *p = m1_trainer_parameters(b.trainer, &parameters);

	(void) state;
	gradients_of(&b, "cispo");
	assert_ok(m1_checkpoint_open_file(TINY, "grad_full.safetensors", &full, &err));
	assert_int_equal(m1_checkpoint_tensors(full), parameters);
	for (size_t i = 0; i < parameters; i++)
	{
		const m1_tensor *want = m1_checkpoint_find(full, p[i].name);
		double squares = 0.0;

		assert_non_null(want);
		assert_int_equal(want->bytes, p[i].n * sizeof(float));
		for (size_t j = 0; j < p[i].n; j++)
		{
			float value;

			memcpy(&value, (const char *) want->data + j * sizeof value, sizeof value);
			squares += (double) value * value;
		}
		for (size_t j = 0; j < p[i].n; j++)
		{
			float value;

			memcpy(&value, (const char *) want->data + j * sizeof value, sizeof value);
			assert_near(p[i].gradient[j], value, 1e-4 * sqrt(squares), "cispo", p[i].name, "an entry");
		}
	}
	m1_checkpoint_close(full);
	close_bench(&b);
}

/* Log-probabilities and entropies of all tokens that are predicted, without gradients. */
static void
test_evaluation(void **state)
{
	bench b = open_bench(TINY);
	const m1_objective o = objective_named(&b, "ce");
	m1_batch_result result;
	m1_error err;
	size_t n;
	float *logprob = golden_floats(&b, "logprob", &n);
	float *entropy = golden_floats(&b, "entropy", &n);

	(void) state;
	for (int i = 0; i < b.n; i++)
	{
		b.sequences[i].logprob = b.logprob + (b.sequences[i].tokens - b.tokens);
		b.sequences[i].entropy = b.entropy + (b.sequences[i].tokens - b.tokens);
		b.sequences[i].prompt = 0;
	}
	assert_ok(m1_trainer_evaluate(b.trainer, b.sequences, b.n, &o, &result, &err));
	assert_int_equal(result.predicted, n - (size_t) b.n);
	for (size_t i = 0; i < n; i++)
	{
		assert_near(b.logprob[i], logprob[i], 2e-5 + 1e-5 * fabs(logprob[i]), "ce", "", "a log-probability");
		if (logprob[i] != 0.0f)
			assert_near(b.entropy[i], entropy[i], 2e-5 + 1e-5 * fabs(entropy[i]), "ce", "", "an entropy");
	}
	free(logprob);
	free(entropy);
	close_bench(&b);
}

/* ---- the optimizer ---- */

/* The sampled weights, of which the second half have gradients that are more than rounding. */
static void
check_weights(const bench *b, const char *name, double tolerance)
{
	size_t n, entries, parameters;
	int64_t *index = golden_integers(b, "index", &entries);
	float *want = golden_floats(b, name, &n);
	const m1_parameter *p = m1_trainer_parameters(b->trainer, &parameters);
	const size_t samples = entries / parameters;

	for (size_t i = 0; i < parameters; i++)
		for (size_t j = samples / 2; j < samples; j++)
		{
			const double value = want[i * samples + j];
			const double ulp = nextafterf((float) fabs(value), INFINITY) - fabs(value);

			assert_near(p[i].value[index[i * samples + j]], value, tolerance + ulp, name, p[i].name, "a weight");
		}
	free(index);
	free(want);
}

static void
check_updates(const char *path, double tolerance)
{
	bench b = open_bench(path);
	const double rate = 1e-4;
	m1_adamw_options o = m1_adamw_defaults((float) rate);
	size_t n;
	float *want = golden_floats(&b, "adam_loss_norm", &n);
	m1_error err;

	o.weight_decay = 0.01f;
	for (int i = 0; i < 10; i++)
	{
		const m1_batch_result result = gradients_of(&b, "cispo");
		m1_update update;

		assert_ok(m1_trainer_update(b.trainer, &o, &result, &update, &err));
		assert_false(update.dropped);
		assert_near(result.loss, want[2 * i], tolerance * fabs(want[2 * i]), path, "update", "the loss");
		assert_near(update.norm, want[2 * i + 1], tolerance * want[2 * i + 1], path, "update", "the norm");
		if (i == 0)
			check_weights(&b, "adam1.sample", 0.005 * rate);
	}
	check_weights(&b, "adam10.sample", 0.02 * rate);
	assert_int_equal(m1_trainer_updates(b.trainer), 10);
	free(want);
	close_bench(&b);
}

static void
test_tiny_updates(void **state)
{
	(void) state;
	check_updates(TINY, 1e-5);
}

static void
test_odd_updates(void **state)
{
	(void) state;
	check_updates(ODD, 1e-5);
}

static void
test_sharded_updates(void **state)
{
	(void) state;
	check_updates(SHARDED, 1e-5);
}

static void
test_nano_updates(void **state)
{
	(void) state;
	check_updates(TRAINED, 2e-3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_odd_gradients),
		cmocka_unit_test(test_every_entry),
		cmocka_unit_test(test_evaluation),
		cmocka_unit_test(test_odd_updates),
	};
	/* the same code once more, for minutes if it is sanitized */
	const struct CMUnitTest more[] = {
		cmocka_unit_test(test_tiny_gradients),	cmocka_unit_test(test_sharded_gradients),
		cmocka_unit_test(test_nano_gradients),	cmocka_unit_test(test_tiny_updates),
		cmocka_unit_test(test_sharded_updates), cmocka_unit_test(test_nano_updates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) || (!SANITIZED && cmocka_run_group_tests(more, NULL, NULL));
}
