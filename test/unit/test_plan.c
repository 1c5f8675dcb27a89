/* test_plan.c - what a plan says of MiniMax-M1 as released, whose sizes are known. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "model/plan.h"

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
	const m1_plan_options o = {
		.devices = devices,
		.device_bytes = 141 * GB,
		.bandwidth = 4.8e12,
		.flops = 989e12,
		.context = context,
		.requests = requests,
		.format = format,
	};

	return m1_plan_make(&c, &o);
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
	assert_true(q4.decode > fp8.decode && fp8.decode > stored.decode);
}

/* Many requests share what is read, until all experts are. */
static void
test_requests_share_weights(void **state)
{
	const m1_plan one = plan(8, 4096, 1, M1_WEIGHTS_Q8_0);
	const m1_plan many = plan(8, 4096, 64, M1_WEIGHTS_Q8_0);

	(void) state;
	assert_true(many.decode > 3 * one.decode && many.decode < 64 * one.decode);
	assert_true(many.step_bytes < many.weights + 64 * (2 * many.state + many.kv_token * 4096));
	assert_true(one.prefill == many.prefill);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_as_released),
		cmocka_unit_test(test_fewer_bits_take_less),
		cmocka_unit_test(test_requests_share_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
