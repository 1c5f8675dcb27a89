/*
 * test_plan.c - what a plan says of MiniMax-M1 as released, whose sizes are known, and of the operations that a model takes,
 * which are counted.
 */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "model/forward.h"
#include "model/plan.h"
#include "model/state.h"

#define GB 1e9

static m1_config
released(void)
{
	m1_config c = {
		.vocab_size = 200064,
		.hidden_size = 6144,
		.layers = 80,
		.heads = 64,
		.kv_heads = 8,
		.head_dim = 128,
		.rotary_dim = 64,
		.expert_width = 9216,
		.experts = 32,
		.experts_per_token = 2,
		.max_context = 10240000,
	};

	for (int i = 0; i < c.layers; i++)
		c.attention[i] = i % 8 == 7 ? M1_SOFTMAX : M1_LIGHTNING;
	return c;
}

static m1_plan
plan(int devices, int context, int requests, m1_weight_format format)
{
	const m1_config c = released();
	m1_plan p;
	m1_error err;
	const m1_plan_options o = {
		.devices = devices,
		.device_bytes = 141 * GB,
		.bandwidth = 4.8e12,
		.flops = 989e12,
		.context = context,
		.requests = requests,
		.format = format,
	};

	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_OK);
	return p;
}

static void
is_near(double got, double wanted, double part)
{
	if (!(fabs(got - wanted) <= part * wanted))
		fail_msg("%.17g is not %.17g", got, wanted);
}

static void
test_sizes_as_released(void **state)
{
	const m1_plan p = plan(8, 1000000, 1, M1_WEIGHTS_STORED);

	(void) state;
	is_near(p.parameters, 456.09e9, 1e-4);
	is_near(p.active_parameters, 45.93e9, 1e-3);
	is_near(p.head_parameters, 1.23e9, 1e-2);
	is_near(p.weights, 912210767872.0, 1e-4); /* total_size of the released index */
	is_near(p.active_weights, 94.3 * GB, 2e-3);
	assert_true(p.state == 280.0 * (1 << 20));
	assert_true(p.kv_token == 40.0 * (1 << 10));
	is_near(p.sequence, 38.4 * (1 << 30), 1e-2);
}

static void
test_fewer_bits_take_less(void **state)
{
	const m1_plan stored = plan(4, 32768, 1, M1_WEIGHTS_STORED);
	const m1_plan fp8 = plan(4, 32768, 1, M1_WEIGHTS_FP8);
	const m1_plan q4 = plan(4, 32768, 1, M1_WEIGHTS_Q4);

	(void) state;
	assert_true(stored.room < 0 && stored.fits == 0);
	assert_true(fp8.room > 0 && q4.room > fp8.room);
	/* head and embedding stay BF16: 4.5 bits for all else */
	is_near(q4.active_weights, 45.93e9 * 4.5 / 8 + 1.23e9 * 2, 0.01);
	assert_true(q4.decode.speed > fp8.decode.speed && fp8.decode.speed > stored.decode.speed);
}

/* Many requests share what is read, until all experts are. */
static void
test_requests_share_weights(void **state)
{
	const m1_plan one = plan(8, 4096, 1, M1_WEIGHTS_Q8_0);
	const m1_plan many = plan(8, 4096, 64, M1_WEIGHTS_Q8_0);

	(void) state;
	assert_true(many.decode.speed > 3 * one.decode.speed && many.decode.speed < 64 * one.decode.speed);
	assert_true(many.step_bytes < many.weights + 64 * (2 * many.state + many.kv_token * 4096));
	assert_true(one.prefill.speed == many.prefill.speed);
}

/* Whichever is less: on GPUs, a token waits for memory, and a prompt for arithmetic if it is long; on a CPU, many tokens do. */
static void
test_bounds(void **state)
{
	const m1_plan few = plan(8, 64, 1, M1_WEIGHTS_STORED);
	const m1_plan more = plan(8, 4096, 1, M1_WEIGHTS_STORED);
	const m1_config c = released();
	const m1_plan_options o = {.devices = 1,
							   .device_bytes = GB,
							   .bandwidth = 3e11,
							   .flops = 2e12,
							   .context = 4096,
							   .requests = 64,
							   .format = M1_WEIGHTS_Q4};
	m1_plan cpu;
	m1_error err;

	(void) state;
	assert_true(!few.decode.by_arithmetic && !few.prefill.by_arithmetic);
	assert_true(!more.decode.by_arithmetic && more.prefill.by_arithmetic);
	is_near(few.prefill.speed, 64 / (few.prefill_bytes / (8 * 4.8e12)), 1e-9);
	/* 64 tokens choose nearly all of 32 experts, of which two are for each */
	assert_true(few.prefill_bytes > 0.95 * few.weights && few.prefill_bytes < few.weights);
	assert_int_equal(m1_plan_make(&c, &o, &cpu, &err), M1_OK);
	assert_true(cpu.decode.by_arithmetic);
	/* 80 layers, 10 of them softmax with 64 heads of 128 */
	is_near(cpu.decode.speed, 2e12 / (2 * 47.16e9 + 10 * 4.0 * 64 * 128 * 4096 + 70 * 4.0 * 64 * 128 * 128), 1e-3);
}

/* A machine whose experts are floats keeps keys and values so, too, if it is no GPU. */
static void
test_keys_of_a_cpu(void **state)
{
	static const m1b_dtype f32 = M1B_F32;
	static const m1b_dtype q6 = M1B_Q6_K;
	const m1_config c = released();
	m1_plan_options o = {.devices = 1, .cpu = true, .device_bytes = GB, .context = 1, .requests = 1};
	m1_plan p;
	m1_error err;

	(void) state;
	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_OK);
	assert_true(p.kv_token == 80.0 * (1 << 10));
	o.type = &q6;
	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_OK);
	assert_true(p.kv_token == 40.0 * (1 << 10));
	o.cpu = false;
	o.type = &f32;
	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_OK);
	assert_true(p.kv_token == 80.0 * (1 << 10));
}

/* Of a checkpoint whose files are there, each tensor's own type counts. */
static void
test_types_of_headers(void **state)
{
	m1_checkpoint *headers;
	m1_config c;
	m1_plan_options o = {.devices = 1, .device_bytes = GB, .context = 1, .requests = 1};
	m1_plan p;
	m1_error err;
	double bytes = 0;

	(void) state;
	assert_int_equal(m1_config_load("test/checkpoints/tiny-f32", &c, &err), M1_OK);
	assert_int_equal(m1_checkpoint_open("test/checkpoints/tiny-f32", &headers, &err), M1_OK);
	o.checkpoint = headers;
	for (size_t i = 0; i < m1_checkpoint_tensors(headers); i++)
		bytes += (double) m1_checkpoint_tensor(headers, i)->bytes;
	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_OK);
	is_near(p.weights, bytes, 1e-9);
	c.layers++;
	assert_int_equal(m1_plan_make(&c, &o, &p, &err), M1_E_NOT_FOUND);
	m1_checkpoint_close(headers);
}

/* ---- operations, counted where the model asks its backend for them ---- */

static const m1b_ops *real;
static const m1_config *counted_config;
static double counted;

static void
count_linear(m1b_backend *b, const m1b_linear *p)
{
	for (int i = 0; i < p->n_products; i++)
		if (p->products[i].weight->use != M1B_USE_HEAD)
			counted += 2.0 * p->n * p->products[i].weight->rows * p->products[i].weight->cols;
	real->linear(b, p);
}

static void
count_moe(m1b_backend *b, const m1b_moe *p)
{
	counted += 2.0 * p->n * p->router->rows * p->router->cols;
	counted += 2.0 * p->n * p->top_k * 3 * p->w1->rows * p->w1->cols;
	real->moe(b, p);
}

/* A state's update and its output. */
static void
count_lightning(m1b_backend *b, const m1b_lightning *p)
{
	counted += 4.0 * p->batch->n_tokens * counted_config->heads * counted_config->head_dim * counted_config->head_dim;
	real->lightning(b, p);
}

/* Scores and values of all keys up to its own. */
static void
count_attention(m1b_backend *b, const m1b_attention *p)
{
	for (int i = 0; i < p->batch->n_tokens; i++)
		counted += 4.0 * counted_config->heads * counted_config->head_dim * (p->batch->segments->start + i + 1);
	real->attention(b, p);
}

static void
count_prompt(m1_model *m, int n, int chunk)
{
	m1b_ops counting = *m->backend->ops;
	m1b_state *state = m1_state_acquire(m, n, NULL);
	int32_t *tokens = calloc((size_t) n, sizeof *tokens);
	float *logits = malloc((size_t) m->config.vocab_size * sizeof *logits);
	m1_error err;

	assert_true(state != NULL && tokens != NULL && logits != NULL);
	real = m->backend->ops;
	counted_config = &m->config;
	counted = 0;
	counting.linear = count_linear;
	counting.moe = count_moe;
	counting.lightning = count_lightning;
	counting.attention = count_attention;
	m->backend->ops = &counting;
	for (int at = 0; at < n; at += chunk)
	{
		const int row = chunk - 1;
		m1b_segment segment = {.state = state, .start = at, .n_tokens = chunk};
		m1b_batch batch = {.tokens = tokens + at, .n_tokens = chunk, .segments = &segment, .n_segments = 1};

		assert_int_equal(m1_forward(m, &batch, &row, 1, logits, &err), M1_OK);
	}
	m->backend->ops = real;
	m1_state_release(m, state);
	free(tokens);
	free(logits);
}

static void
test_operations_are_those_of_the_engine(void **state)
{
	static const char *const paths[] = {"models/m1-nano", "test/checkpoints/tiny-f32"};
	const int n = 512;

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		const m1_model_options options = {
			.path = paths[i], .device = "cpu", .threads = 1, .max_sequences = 1, .max_batch_tokens = 64};
		const m1_plan_options o = {.devices = 1,
								   .cpu = true,
								   .device_bytes = GB,
								   .bandwidth = INFINITY,
								   .flops = 1,
								   .context = n,
								   .requests = 1};
		m1_model *m;
		m1_plan p;
		m1_error err;

		assert_int_equal(m1_model_open(&options, &m, &err), M1_OK);
		count_prompt(m, n, 64);
		assert_int_equal(m1_plan_make(&m->config, &o, &p, &err), M1_OK);
		/* norms are no matrices, and count a little in models as small as these */
		is_near(n / p.prefill.speed, counted, 0.02);
		m1_model_close(m);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_as_released),
		cmocka_unit_test(test_fewer_bits_take_less),
		cmocka_unit_test(test_requests_share_weights),
		cmocka_unit_test(test_keys_of_a_cpu),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_types_of_headers),
		cmocka_unit_test(test_operations_are_those_of_the_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
