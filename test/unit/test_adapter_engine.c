/*
 * test_adapter_engine.c - requests with adapters: side by side as alone, prefixes that are never shared between adapters,
 * and adapters that there are not.
 */
#include "engine_testing.h"

#include "adapter_testing.h"

#define FOLDER TEST_BUILD "/adapter_engine"
#define MB ((size_t) 1 << 20)

static const m1_adapter_option adapters[] = {{"one", FOLDER "_1"}, {"two", FOLDER "_2"}};

static int
write_adapters(void **state)
{
	const adapter_spec one = everything(FOLDER "_1", MODEL, 1);
	const adapter_spec two = everything(FOLDER "_2", MODEL, 2);

	(void) state;
	write_adapter(&one);
	write_adapter(&two);
	return 0;
}

static m1w_generate
request(const char *text, const char *adapter)
{
	m1w_generate g = prompt(text);

	g.adapter = m1_slice_of(adapter);
	g.max_tokens = 40;
	g.thinking_budget = 0;
	g.temperature = 1.0f; /* so that the logits' last bits count */
	g.seed = 9;
	return g;
}

static const char *
adapter_name(uint64_t id)
{
	return id % 3 == 0 ? NULL : adapters[id % 3 - 1].name;
}

/* Nine requests with one text, three with each adapter and three with none: in one batch, then one after the other. */
static void
test_side_by_side(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.adapters = adapters, .n_adapters = 2, .max_requests = 9});
	m1_buf together[10] = {{0}};
	m1_buf without = {0};
	m1w_generate g;

	(void) state;
	for (uint64_t id = 1; id <= 9; id++)
	{
		g = request("Say something about the harbour.", adapter_name(id));
		submit(e, id, &g);
	}
	run_all(e);
	for (uint64_t id = 1; id <= 9; id++)
	{
		assert_true(outcomes[id].done);
		m1_buf_append(&together[id], outcomes[id].content.data, outcomes[id].content.len);
		assert_true(id <= 3 || same_text(&together[id], &together[id - 3]));
	}
	assert_false(same_text(&together[1], &together[2]) || same_text(&together[1], &together[3]));
	m1_engine_close(e);
	e = open_engine((m1_engine_options){.adapters = adapters, .n_adapters = 2});
	for (uint64_t id = 1; id <= 3; id++)
	{
		g = request("Say something about the harbour.", adapter_name(id));
		submit(e, id, &g);
		run_all(e);
		assert_true(same_text(&outcomes[id].content, &together[id]));
	}
	m1_engine_close(e);
	/* where none is loaded */
	e = open_engine((m1_engine_options){0});
	g = request("Say something about the harbour.", NULL);
	submit(e, 1, &g);
	run_all(e);
	m1_buf_append(&without, outcomes[1].content.data, outcomes[1].content.len);
	assert_true(same_text(&without, &together[3]));
	m1_engine_close(e);
	for (int i = 0; i < 10; i++)
		m1_buf_free(&together[i]);
	m1_buf_free(&without);
}

/* A prefix serves requests of its own adapter only, whoever was there first. */
static void
test_prefixes(void **state)
{
	static const char *const names[] = {"one", NULL, "two"};
	m1_engine *e = open_engine(
		(m1_engine_options){.adapters = adapters, .n_adapters = 2, .prefix_cache_bytes = 64 * MB, .prefill_chunk = 64});
	m1_buf first[3] = {{0}};
	uint64_t id = 0;

	(void) state;
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 3; i++)
		{
			m1w_generate g =
				request("What follows after this long template, in which nothing is said at all?", names[i]);

			g.template_len = 40;
			g.cache_owner = 7;
			submit(e, ++id, &g);
			run_all(e);
			assert_true(outcomes[id].done);
			assert_int_equal(outcomes[id].facts.cached_tokens > 0, round > 0);
			if (round == 0)
				m1_buf_append(&first[i], outcomes[id].content.data, outcomes[id].content.len);
			assert_true(same_text(&outcomes[id].content, &first[i]));
		}
	/* nor do those wait for each other that come at the same time */
	for (int i = 0; i < 3; i++)
	{
		m1w_generate g = request("What follows after this long template, in which nothing is said at all?", names[i]);

		g.template_len = 40;
		g.cache_owner = 8;
		submit(e, ++id, &g);
	}
	run_all(e);
	for (int i = 0; i < 3; i++)
	{
		assert_int_equal(outcomes[id - 2 + (uint64_t) i].facts.cached_tokens, 0);
		assert_true(same_text(&outcomes[id - 2 + (uint64_t) i].content, &first[i]));
		m1_buf_free(&first[i]);
	}
	m1_engine_close(e);
}

static void
test_unknown(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.adapters = adapters, .n_adapters = 1});
	const m1w_generate g = request("Hello", "two");
	m1_error err;

	(void) state;
	assert_int_equal(m1_engine_generate(e, 1, &g, NULL, &err), M1_E_NOT_FOUND);
	assert_string_equal(err.message, "there is no adapter \"two\"");
	m1_engine_close(e);
}

/* The error says which of several is wrong. */
static void
test_not_loaded(void **state)
{
	const m1_adapter_option twice[] = {adapters[0], {"one", FOLDER "_2"}};
	const m1_adapter_option nowhere[] = {adapters[0], {"lost", FOLDER "_3"}};
	m1_engine_options options = {
		.model_path = MODEL, .device = "cpu", .threads = 1, .max_requests = 1, .adapters = twice, .n_adapters = 2};
	m1_engine *e;
	m1_error err;

	(void) state;
	assert_int_equal(m1_engine_open(&options, &engine_events, &e, &err), M1_E_INVALID_ARGUMENT);
	assert_string_equal(err.message, "there are two adapters of the name \"one\"");
	options.adapters = nowhere;
	assert_int_equal(m1_engine_open(&options, &engine_events, &e, &err), M1_E_NOT_FOUND);
	assert_memory_equal(err.message, "adapter \"lost\": ", strlen("adapter \"lost\": "));
	options.model_path = "test/checkpoints/tiny-f32";
	options.adapters = adapters;
	assert_int_not_equal(m1_engine_open(&options, &engine_events, &e, &err), M1_OK);
	assert_memory_equal(err.message, "adapter \"one\": ", strlen("adapter \"one\": "));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_side_by_side),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_not_loaded),
	};

	return cmocka_run_group_tests(tests, write_adapters, teardown);
}
