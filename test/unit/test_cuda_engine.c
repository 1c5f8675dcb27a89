/*
 * test_cuda_engine.c - the whole engine on CUDA, or on its emulation, against the same engine on the CPU: tokens that
 * are chosen on the device, beside requests that want the logits themselves; and a training from files.
 */
#include "cuda_testing.h"
#include "engine_testing.h"

#include <math.h>

#include "backend/cuda/cuda_internal.h"
#include "train/fit.h"

#define TINY "test/checkpoints/tiny-f32" /* computed in fp32 throughout: logits are the CPU's to rounding */
#define TINY_VOCAB 320
#define REPLIES 12
#define REPLY_TOKENS (1 + REPEATED(9)) /* decoding is recorded by its second step, and run from then on */

static m1_engine *
open_on(const char *device, m1_engine_options options)
{
	options.device = device;
	options.max_context = options.max_context > 0 ? options.max_context : 256;
	options.kv_bytes = options.kv_bytes > 0 ? options.kv_bytes : (size_t) 4 << 20;
	return open_engine(options);
}

/* ---- ids ---- */

static void
submit_ids(m1_engine *e)
{
	static const float temperatures[] = {0, 0.7f, 1, 3};
	static const float nuclei[] = {1, 0.95f, 0.5f};
	static const int tops[] = {0, 5};

	for (int i = 0; i < REPLIES; i++)
	{
		const int32_t ids[] = {1 + i, 17, 99, 200 + i};
		m1w_generate g = {.ids = {ids, 4},
						  .max_tokens = REPLY_TOKENS,
						  .temperature = temperatures[i % 4],
						  .top_p = nuclei[i % 3],
						  .top_k = tops[i % 2],
						  .seed = (uint64_t) i + 7};

		submit(e, (uint64_t) i + 1, &g);
	}
}

static void
check_tokens(int gpus, const m1_buf want[REPLIES])
{
	m1_engine *e = open_on("cuda", (m1_engine_options){.model_path = TINY, .gpus = gpus});

	submit_ids(e);
	run_all(e);
	for (int i = 0; i < REPLIES; i++)
	{
		assert_int_equal(outcomes[i + 1].ids.len, REPLY_TOKENS * sizeof(int32_t));
		assert_memory_equal(outcomes[i + 1].ids.data, want[i].data, want[i].len);
	}
	m1_engine_close(e);
}

/* The same seed, the same tokens: in a batch that changes its size, and so in recorded steps and others. */
static void
test_tokens_are_those_of_the_cpu(void **state)
{
	m1_buf want[REPLIES] = {{0}};
	m1_engine *e = open_on("cpu", (m1_engine_options){.model_path = TINY});
	int different = 0;

	(void) state;
	submit_ids(e);
	run_all(e);
	for (int i = 0; i < REPLIES; i++)
	{
		m1_buf_append(&want[i], outcomes[i + 1].ids.data, outcomes[i + 1].ids.len);
		different += i > 0 && !same_text(&want[i], &want[0]);
	}
	assert_true(different > REPLIES / 2);
	m1_engine_close(e);
	for (int gpus = 1; gpus <= 2 && gpus <= devices(); gpus++)
	{
		check_tokens(gpus, want);
#ifdef M1K_EMULATED
		/* nor do recordings decide that are refused: of a choice, then of layers, and that by one of two GPUs */
		assert_int_equal(emulated_spoil_recordings(2), 0);
		check_tokens(gpus, want);
		assert_int_equal(emulated_spoil_recordings(0), 0);
#endif
	}
	for (int i = 0; i < REPLIES; i++)
		m1_buf_free(&want[i]);
}

static m1_engine *counted;
static m1b_ops hooked;
static const m1b_ops *real;
static size_t floats_read;
static int rows_sampled;

static m1_status
count_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	floats_read += n;
	return real->read(b, device, n, host, err);
}

static m1_status
count_sample(m1b_backend *b, const m1b_sample *p, m1_error *err)
{
	rows_sampled += p->n;
	return real->sample(b, p, err);
}

static m1_engine *
open_counted(const char *model, int gpus)
{
	m1b_backend *b;

	counted = open_on("cuda", (m1_engine_options){.model_path = model, .gpus = gpus});
	b = m1_engine_model(counted)->backend;
	real = b->ops;
	hooked = *real;
	hooked.read = count_read;
	hooked.sample = count_sample;
	b->ops = &hooked;
	floats_read = 0;
	rows_sampled = 0;
	return counted;
}

/* Sampling reads no logits; who wants them gets them, beside others. */
static void
check_logits_stay(int gpus)
{
	const int32_t ids[] = {5, 6, 7};
	m1_engine *e = open_counted(TINY, gpus);
	m1_error err;

	submit_ids(e);
	run_all(e);
	assert_int_equal(floats_read, 0);
	assert_int_equal(rows_sampled, REPLIES * REPLY_TOKENS);
	submit_ids(e);
	assert_ok(m1_engine_logits(e, 100, (m1w_id_slice){ids, 3}, &err));
	for (int i = 1; i <= REPLIES; i++)
		outcomes[i].done = false;
	run_all(e);
	assert_int_equal(floats_read, TINY_VOCAB);
	assert_int_equal(outcomes[100].content.len, TINY_VOCAB * sizeof(float));
	m1_engine_close(e);
}

static void
test_logits_stay_on_the_device(void **state)
{
	(void) state;
	for (int gpus = 1; gpus <= 2 && gpus <= devices(); gpus++)
		check_logits_stay(gpus);
}

/* ---- text ---- */

static m1w_generate
constrained(m1w_constraint kind, const char *text)
{
	m1w_generate g = prompt("Answer yes or no: the customer wants a refund.\n\nThe lamp broke. I would like a refund.");

	g.constraint = kind;
	g.constraint_text = m1_slice_of(text);
	g.thinking_budget = 0;
	g.max_tokens = 40;
	return g;
}

static double
logprob(uint64_t id, size_t i)
{
	return m1w_double_at((m1_slice){outcomes[id].logprobs.data, outcomes[id].logprobs.len}, i);
}

/* Masks go to the device; choices that are scored take their logits from it; both in one batch. */
static void
test_masks_and_scores(void **state)
{
	m1_engine *e = open_counted(MODEL, 1);
	m1w_generate g = constrained(M1W_CONSTRAINT_REGEX, "[xq]{3}7");

	(void) state;
	g.temperature = 2.0f;
	for (uint64_t i = 1; i <= 3; i++)
	{
		g.seed = i;
		submit(e, i, &g);
	}
	g = constrained(M1W_CONSTRAINT_CHOICES, "[\"yes\", \"no\", \"hardware\"]");
	g.score_choices = 1;
	submit(e, 4, &g);
	run_all(e);
	for (uint64_t i = 1; i <= 3; i++)
	{
		const m1_buf *text = &outcomes[i].content;

		assert_true(outcomes[i].done && text->len == 4 && text->data[3] == '7');
		for (int j = 0; j < 3; j++)
			assert_true(text->data[j] == 'x' || text->data[j] == 'q');
	}
	assert_text(&outcomes[4].content, logprob(4, 0) > logprob(4, 1) ? "yes" : "no");
	assert_true(fabs(exp(logprob(4, 0)) + exp(logprob(4, 1)) + exp(logprob(4, 2)) - 1) < 1e-9);
	assert_true(floats_read > 0 && rows_sampled > 0);
	m1_engine_close(e);
}

/* Scoring has memory of its own, however little the prefix cache has. */
static void
test_scores_without_a_prefix_cache(void **state)
{
	static const size_t budgets[] = {0, 100 << 10}; /* the second is less than one snapshot of this model */
	m1w_generate g = constrained(M1W_CONSTRAINT_CHOICES, "[\"yes\", \"no\"]");
	m1_engine *e = open_on("cpu", (m1_engine_options){0});
	double want;

	(void) state;
	g.score_choices = 1;
	g.cache_owner = 1;
	submit(e, 1, &g);
	run_all(e);
	want = logprob(1, 0);
	m1_engine_close(e);
	for (int i = 0; i < 2; i++)
	{
		e = open_on("cuda", (m1_engine_options){.prefix_cache_bytes = budgets[i]});
		for (uint64_t id = 1; id <= 2; id++)
			submit(e, id, &g);
		run_all(e);
		for (uint64_t id = 1; id <= 2; id++)
		{
			assert_text(&outcomes[id].content, want > log(.5) ? "yes" : "no");
			assert_true(fabs(logprob(id, 0) - want) < 0.02);
		}
		assert_int_equal(cache_now.snapshots, 0);
		m1_engine_close(e);
	}
}

/* As a broken weight would: one logit of the first row, in the first two steps. */
static m1_status
break_first_row(m1b_backend *b, const m1b_sample *p, m1_error *err)
{
	static const float broken[] = {NAN, -INFINITY};
	float *row = (float *) p->logits + (size_t) p->draws[0].row * TINY_VOCAB;

	if (rows_sampled < 2)
		m1b_cuda_upload(m1b_cuda_of(b), row + TINY_VOCAB / 2, &broken[rows_sampled++], sizeof *broken, "breaking");
	return real->sample(b, p, err);
}

/* What is chosen on the device is refused there, too, when its logits mean nothing; what is beside it is not. */
static void
test_logits_that_are_not_finite(void **state)
{
	m1_engine *e = open_counted(TINY, 1);
	int failed = 0;

	(void) state;
	hooked.sample = break_first_row;
	submit_ids(e);
	run_all(e);
	for (uint64_t id = 1; id <= REPLIES; id++)
	{
		failed += outcomes[id].failed;
		if (outcomes[id].failed)
			assert_int_equal(outcomes[id].error.code, M1_E_CORRUPT);
		else
			assert_int_equal(outcomes[id].ids.len, REPLY_TOKENS * sizeof(int32_t));
	}
	assert_int_equal(failed, 2);
	m1_engine_close(e);
}

#ifdef M1K_EMULATED
#define KB ((size_t) 1 << 10)

/*
 * Where there is memory for one place only, requests that score wait for it, are overtaken by one that does not need
 * it, and none of them fails.
 */
static void
test_scoring_waits_for_a_place(void **state)
{
	m1w_generate g = constrained(M1W_CONSTRAINT_CHOICES, "[\"yes\", \"no\"]");
	const m1w_generate plain = prompt("Hello.");
	m1_engine_options options = {.model_path = MODEL, .device = "cuda", .max_requests = 3, .max_context = 192};
	m1_engine *e = NULL;
	m1_error err;

	(void) state;
	/* the smallest device that holds the context */
	for (size_t memory = (size_t) 513 << 20; e == NULL || m1_engine_info(e).context < 192; memory += 64 * KB)
	{
		m1_engine_close(e);
		emulated_set_memory(0, memory);
		if (m1_engine_open(&options, &engine_events, &e, &err) != M1_OK)
			e = NULL;
		assert_true(memory < (size_t) 1 << 30);
	}
	forget_outcomes();
	assert_int_equal(m1_engine_model(e)->backend->ops->memory(m1_engine_model(e)->backend).own_places, 1);
	g.score_choices = 1;
	g.max_tokens = 8;
	for (uint64_t id = 1; id <= 3; id++)
		submit(e, id, &g);
	{
		m1w_generate last = plain;

		last.max_tokens = 1;
		last.thinking_budget = 0;
		submit(e, 4, &last);
	}
	run_all(e);
	for (uint64_t id = 1; id <= 4; id++)
		assert_true(outcomes[id].done);
	for (uint64_t id = 1; id <= 3; id++)
		assert_int_equal(outcomes[id].logprobs.len, 2 * sizeof(double));
	assert_true(outcomes[2].first_progress > outcomes[4].first_progress);
	assert_true(outcomes[3].first_progress > outcomes[2].first_progress);
	m1_engine_close(e);
	emulated_set_memory(0, (size_t) 4 << 30);
}
#endif

/* The probability of what was chosen comes from the device, too. */
static void
test_loop_guard(void **state)
{
	m1_engine *e = open_on("cuda", (m1_engine_options){.loop_guard = 3});
	m1w_generate g = prompt("What is 2 plus 2?");

	(void) state;
	submit(e, 1, &g);
	run_all(e);
	assert_int_equal(outcomes[1].facts.finish, M1W_FINISH_LOOP);
	m1_engine_close(e);
}

/* ---- trainings ---- */

#define TRAINED TEST_BUILD "/test_cuda_engine"
#define STEPS 3

/* The losses of the steps, the held-out one last. */
typedef struct losses
{
	double of[STEPS + 1];
	int n;
} losses;

static void
on_step(void *context, const m1_fit_step *s)
{
	losses *l = context;

	assert_false(s->dropped);
	l->of[l->n++] = s->loss;
	if (s->evaluated)
		l->of[l->n++] = s->held_out_loss;
}

static void
on_begun(void *context, const m1_example_counts *counts, size_t examples, size_t held_out, uint64_t step,
		 uint64_t steps)
{
	(void) context;
	(void) counts;
	(void) examples;
	(void) held_out;
	(void) step;
	(void) steps;
}

static bool
goes_on(void *context)
{
	(void) context;
	return true;
}

static losses
train_on(const char *device, const char *out)
{
	static const char *const files[] = {TRAINED "/data.jsonl"};
	losses l = {.n = 0};
	const m1_fit_options o = {
		.model = TINY,
		.out = out,
		.replace = true,
		.files = files,
		.n_files = 1,
		.answer_weight = 1.0f,
		.held_out = 0.2,
		.batch_tokens = 16,
		.steps = STEPS,
		.schedule = {.rate = 1e-3, .last = 1e-3, .decay = M1_DECAY_NONE},
		.adamw = m1_adamw_defaults(0.0f),
		.device = device,
		.threads = 1,
		.observer = {.context = &l, .begun = on_begun, .step = on_step, .goes_on = goes_on},
	};
	m1_error err;

	assert_ok(m1_fit(&o, &err));
	assert_int_equal(l.n, STEPS + 1);
	return l;
}

/* From files, as on the CPU; with as many steps as show that the weights have changed alike. */
static void
test_trains(void **state)
{
	static const char lines[] =
		"{\"ids\": [1, 2, 3, 4, 5, 6]}\n{\"ids\": [7, 2, 9, 4, 11, 6]}\n{\"ids\": [1, 5, 3, 7, 5]}\n"
		"{\"ids\": [8, 2, 8, 4, 8, 6]}\n{\"ids\": [3, 2, 3, 4, 3]}\n";
	losses cpu, cuda;

	(void) state;
	test_write_file(TRAINED, "data.jsonl", lines, sizeof lines - 1);
	cpu = train_on("cpu", TRAINED "/cpu");
	cuda = train_on("cuda", TRAINED "/cuda");
	for (int i = 0; i <= STEPS; i++)
		assert_true(fabs(cpu.of[i] - cuda.of[i]) < 1e-4 * cpu.of[i]);
	assert_true(fabs(cpu.of[0] - cpu.of[STEPS - 1]) > 1e-2);
}

/* A clear error, before anything is loaded; better than a reply without the adapter. */
static void
test_adapters_are_refused(void **state)
{
	const m1_adapter_option adapter = {"poet", "nowhere"};
	const m1_engine_options options = {
		.model_path = MODEL, .device = "cuda", .max_requests = 1, .adapters = &adapter, .n_adapters = 1};
	m1_engine *e;
	m1_error err;

	(void) state;
	assert_int_equal(m1_engine_open(&options, &engine_events, &e, &err), M1_E_UNSUPPORTED);
	assert_string_equal(err.message, "adapters cannot be used on a GPU yet");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tokens_are_those_of_the_cpu),
		cmocka_unit_test(test_logits_stay_on_the_device),
		cmocka_unit_test(test_masks_and_scores),
		cmocka_unit_test(test_scores_without_a_prefix_cache),
		cmocka_unit_test(test_logits_that_are_not_finite),
#ifdef M1K_EMULATED
		cmocka_unit_test(test_scoring_waits_for_a_place),
#endif
		cmocka_unit_test(test_loop_guard),
		cmocka_unit_test(test_trains),
		cmocka_unit_test(test_adapters_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
