/*
 * test_adapter.c - adapters: the operations against plain arithmetic, on every instruction set; what they make of a
 * model against merged weights; rows of several adapters in one batch; the format's errors, one by one.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "adapter_testing.h"

#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model/adapter_config.h"
#include "model/adapter_files.h"
#include "model/adapter_plan.h"
#include "model/digest.h"
#include "model/forward.h"
#include "model/merge.h"
#include "model/state.h"

#define FOLDER TEST_BUILD "/adapter"
#define TINY "test/checkpoints/tiny-f32"
#define MODEL "models/m1-nano"
#define TOKENS 150 /* of a sequence: more than one block of lightning attention */

static const char *const isas[] = {"portable", "avx2", "avx512", "avx512vnni"};

/* ---- the operations ---- */

#define COLS 70
#define ROWS 45
#define EXPERTS 3
#define TOP_K 2
#define MAX_RANK 19

/* NULL: this processor has no such instructions. */
static m1b_backend *
open_backend(const char *isa)
{
	const m1b_geometry g = {.heads = 1,
							.kv_heads = 1,
							.head_dim = COLS,
							.lightning_layers = 1,
							.max_context = 64,
							.max_states = 2,
							.max_tokens = 40,
							.max_moe_pairs = 40 * TOP_K,
							.expert_width = ROWS,
							.hidden = COLS,
							.experts = EXPERTS};
	m1b_backend *b;
	m1_error err;

	if (m1b_cpu_open(2, isa, &b, &err) != M1_OK)
		return NULL;
	assert_ok(b->ops->configure(b, &g, &err));
	assert_ok(b->ops->prepare_adapters(b, 4, &err));
	assert_ok(b->ops->prepare_adapters(b, MAX_RANK, &err));
	return b;
}

static m1b_matrix
matrix(const float *x, int rows, int cols)
{
	return (m1b_matrix){.data = x, .type = M1B_F32, .use = M1B_USE_PRODUCT, .rows = rows, .cols = cols};
}

static m1b_adapted
low_rank(uint64_t *seed, int rank, int rows, int cols)
{
	return (m1b_adapted){.a = test_random_floats(seed, (size_t) (rank * cols)),
						 .b = test_random_floats(seed, (size_t) (rank * rows)),
						 .rank = rank,
						 .scale = 0.3f};
}

static void
free_low_rank(const m1b_adapted *m)
{
	free((void *) m->a);
	free((void *) m->b);
}

/* x W'^T + scale (x a^T) b in double; m may be NULL. */
static double
plain(const float *x, const float *w, int rows, int cols, int row, const m1b_adapted *m)
{
	double sum = 0;

	if (m != NULL && m->whole != NULL)
		w = m->whole->data;
	for (int k = 0; k < cols; k++)
		sum += (double) x[k] * w[row * cols + k];
	for (int r = 0; m != NULL && r < m->rank; r++)
	{
		double inner = 0;

		for (int k = 0; k < cols; k++)
			inner += (double) x[k] * m->a[r * cols + k];
		sum += m->scale * inner * m->b[r * rows + row];
	}
	return sum;
}

static void
check_linear(const char *isa)
{
	m1b_backend *b = open_backend(isa);
	uint64_t seed = 42;
	float *x = test_random_floats(&seed, 40 * COLS);
	float *w[2] = {test_random_floats(&seed, ROWS * COLS), test_random_floats(&seed, ROWS * COLS)};
	float *whole = test_random_floats(&seed, ROWS * COLS);
	const m1b_matrix weights[2] = {matrix(w[0], ROWS, COLS), matrix(w[1], ROWS, COLS)};
	const m1b_matrix replaced = matrix(whole, ROWS, COLS);
	m1b_adapted adapted[3] = {low_rank(&seed, 1, ROWS, COLS), low_rank(&seed, 16, ROWS, COLS),
							  low_rank(&seed, MAX_RANK, ROWS, COLS)};
	const m1b_run runs[] = {{.row = 2, .n = 1, .matrices = {&adapted[0], &adapted[1]}},
							{.row = 5, .n = 18, .matrices = {NULL, &adapted[2]}},
							{.row = 30, .n = 10, .matrices = {&adapted[1]}}};
	float *out[2] = {test_random_floats(&seed, 40 * ROWS), test_random_floats(&seed, 40 * ROWS)};
	m1b_linear p = {.x = x,
					.n = 40,
					.products = {{&weights[0], M1B_NONE, out[0]}, {&weights[1], M1B_SILU, out[1]}},
					.n_products = 2,
					.adapters = {runs, 3}};

	assert_non_null(b);
	adapted[1].whole = &replaced;
	b->ops->linear(b, &p);
	for (int t = 0; t < 40; t++)
		for (int i = 0; i < 2; i++)
			for (int j = 0; j < ROWS; j++)
			{
				const m1b_adapted *m = NULL;
				double want;

				for (int r = 0; r < 3; r++)
					if (t >= runs[r].row && t < runs[r].row + runs[r].n)
						m = runs[r].matrices[i];
				want = plain(x + t * COLS, w[i], ROWS, COLS, j, m);
				want = i == 1 ? want / (1 + exp(-want)) : want;
				assert_true(fabs(out[i][t * ROWS + j] - want) < 1e-4 * (1 + fabs(want)));
			}
	for (int i = 0; i < 3; i++)
		free_low_rank(&adapted[i]);
	for (int i = 0; i < 2; i++)
	{
		free(w[i]);
		free(out[i]);
	}
	free(x);
	free(whole);
	b->ops->close(b);
}

static void
test_linear(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
	{
		m1b_backend *b = open_backend(isas[i]);

		if (b == NULL)
			continue;
		b->ops->close(b);
		check_linear(isas[i]);
	}
}

/* Where there is no memory for a larger rank, what was there stays, and serves. */
static void
test_no_memory_for_rank(void **state)
{
	const struct rlimit small = {(rlim_t) 1 << 40, RLIM_INFINITY};
	m1b_backend *b = open_backend("portable");
	struct rlimit usual;
	uint64_t seed = 7;
	float *x = test_random_floats(&seed, COLS);
	float *w = test_random_floats(&seed, ROWS * COLS);
	const m1b_matrix weight = matrix(w, ROWS, COLS);
	const m1b_adapted adapted = low_rank(&seed, MAX_RANK, ROWS, COLS);
	const m1b_run run = {.n = 1, .matrices = {&adapted}};
	float out[ROWS];
	m1b_linear p = {.x = x, .n = 1, .products = {{&weight, M1B_NONE, out}}, .n_products = 1, .adapters = {&run, 1}};
	m1_error err;

	(void) state;
	assert_int_equal(getrlimit(RLIMIT_AS, &usual), 0);
#ifndef __SANITIZE_ADDRESS__ /* which reserves more than any limit, and ends a process that asks for too much */
	assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
	assert_int_equal(b->ops->prepare_adapters(b, INT_MAX, &err), M1_E_NO_MEMORY);
#else
	(void) small;
	(void) err;
#endif
	assert_int_equal(setrlimit(RLIMIT_AS, &usual), 0);
	b->ops->linear(b, &p);
	for (int j = 0; j < ROWS; j++)
	{
		const double want = plain(x, w, ROWS, COLS, j, &adapted);

		assert_true(fabs(out[j] - want) < 1e-4 * (1 + fabs(want)));
	}
	free_low_rank(&adapted);
	free(x);
	free(w);
	b->ops->close(b);
}

/* ---- a model with adapters ---- */

static m1_model *
open_model(const char *path, m1_weight_format format, const m1_adapter_option *adapters, int n)
{
	const m1_model_options options = {.path = path,
									  .device = "cpu",
									  .weight_format = format,
									  .threads = 2,
									  .max_context = 512,
									  .max_sequences = 8,
									  .max_batch_tokens = 256,
									  .adapters = adapters,
									  .n_adapters = n};
	m1_model *m;
	m1_error err;

	assert_ok(m1_model_open(&options, &m, &err));
	return m;
}

/* The same text for every sequence. */
static int32_t
token(const m1_model *m, int i)
{
	return (int32_t) ((i * 7919 + 13) % m->config.vocab_size);
}

/* Logits of all positions: a prompt at once, then the last tokens one by one. The caller's. */
static float *
logits_of(m1_model *m, int adapter)
{
	const size_t vocab = (size_t) m->config.vocab_size;
	m1b_state *state = m1_state_acquire(m, TOKENS, NULL);
	float *logits = malloc(TOKENS * vocab * sizeof *logits);
	const int prompt = TOKENS - 10;
	m1_error err;

	assert_true(state != NULL && logits != NULL);
	for (int at = 0, n; at < TOKENS; at += n)
	{
		int32_t tokens[TOKENS];
		int rows[TOKENS];
		m1b_segment segment;
		m1b_batch batch;

		n = at == 0 ? prompt : 1;
		for (int i = 0; i < n; i++)
		{
			tokens[i] = token(m, at + i);
			rows[i] = i;
		}
		segment = (m1b_segment){.state = state, .start = at, .n_tokens = n, .adapter = adapter};
		batch = (m1b_batch){.tokens = tokens, .n_tokens = n, .segments = &segment, .n_segments = 1};
		assert_ok(m1_forward(m, &batch, rows, n, logits + (size_t) at * vocab, &err));
	}
	m1_state_release(m, state);
	return logits;
}

static void
remove_folder(const char *folder)
{
	char command[200];

	snprintf(command, sizeof command, "rm -rf '%s'", folder);
	assert_int_equal(system(command), 0);
}

static float *
logits_at(const char *path, m1_weight_format format)
{
	m1_model *m = open_model(path, format, NULL, 0);
	float *logits = logits_of(m, 0);

	m1_model_close(m);
	return logits;
}

/* Served with the model, and merged into a folder of several files and into a GGUF file, an adapter gives one result. */
static void
check_merged(const char *model, double tolerance)
{
	const adapter_spec a = everything(FOLDER, model, 1);
	const m1_adapter_option adapter = {"a", FOLDER};
	const char *const outs[] = {TEST_BUILD "/adapter_merged", TEST_BUILD "/adapter_merged.gguf"};
	m1_model *m;
	float *base, *served;
	size_t n;
	m1_error err;

	write_adapter(&a);
	m = open_model(model, M1_WEIGHTS_STORED, &adapter, 1);
	n = (size_t) TOKENS * (size_t) m->config.vocab_size;
	base = logits_of(m, 0);
	served = logits_of(m, 1);
	m1_model_close(m);
	assert_true(test_distance(served, base, n) > 0.05);
	for (int i = 0; i < 2; i++)
	{
		const m1_convert_options options = {
			.in = model, .out = outs[i], .adapter = FOLDER, .replace = true, .threads = 2, .shard_bytes = 200000};
		float *merged;

		remove_folder(outs[i]);
		assert_ok(m1_merge(&options, &err));
		merged = logits_at(outs[i], M1_WEIGHTS_STORED);
		if (!(test_distance(served, merged, n) < tolerance))
			fail_msg("%s of %s: %g", outs[i], model, test_distance(served, merged, n));
		free(merged);
	}
	free(base);
	free(served);
}

static void
test_merged(void **state)
{
	(void) state;
	check_merged(TINY, 2e-5);
	check_merged("test/checkpoints/tiny-odd", 2e-5); /* with a tied head, which comes apart */
	check_merged("test/checkpoints/tiny-bf16-sharded", 5e-2);
	check_merged("test/checkpoints/trained", 5e-2);
}

/* ---- one batch ---- */

#define SEQUENCES 5

/* Each sequence's adapter in the mixed batch. */
static const int adapter_of[SEQUENCES] = {0, 1, 2, 1, 0};

/* All sequences side by side: prompts of different lengths at once, then token by token; the last logits of each step. */
static float *
mixed_logits(m1_model *m, const int *lengths, int steps)
{
	const size_t vocab = (size_t) m->config.vocab_size;
	float *logits = malloc((size_t) (steps * SEQUENCES) * vocab * sizeof *logits);
	m1b_state *states[SEQUENCES];
	m1_error err;

	assert_non_null(logits);
	for (int s = 0; s < SEQUENCES; s++)
		assert_non_null(states[s] = m1_state_acquire(m, lengths[s] + steps, NULL));
	for (int step = 0; step < steps; step++)
	{
		int32_t tokens[256];
		int rows[SEQUENCES];
		m1b_segment segments[SEQUENCES];
		m1b_batch batch = {.tokens = tokens, .segments = segments, .n_segments = SEQUENCES};

		for (int s = 0; s < SEQUENCES; s++)
		{
			const int start = step == 0 ? 0 : lengths[s] + step - 1;
			const int n = step == 0 ? lengths[s] : 1;

			segments[s] = (m1b_segment){
				.state = states[s], .start = start, .n_tokens = n, .row = batch.n_tokens, .adapter = adapter_of[s]};
			for (int i = 0; i < n; i++)
				tokens[batch.n_tokens++] = token(m, start + i + 31 * s);
			rows[s] = batch.n_tokens - 1;
		}
		assert_ok(m1_forward(m, &batch, rows, SEQUENCES, logits + (size_t) (step * SEQUENCES) * vocab, &err));
	}
	for (int s = 0; s < SEQUENCES; s++)
		m1_state_release(m, states[s]);
	return logits;
}

/* The same of one sequence alone. */
static void
check_alone(m1_model *m, int s, int length, int steps, const float *mixed)
{
	const size_t vocab = (size_t) m->config.vocab_size;
	m1b_state *state = m1_state_acquire(m, length + steps, NULL);
	float *logits = malloc(vocab * sizeof *logits);
	m1_error err;

	assert_true(state != NULL && logits != NULL);
	for (int step = 0; step < steps; step++)
	{
		const int start = step == 0 ? 0 : length + step - 1;
		const int n = step == 0 ? length : 1;
		const int row = n - 1;
		int32_t tokens[256];
		const m1b_segment segment = {.state = state,
									 .start = start,
									 .n_tokens = n,
									 .adapter = m1_adapter_set_count(m->adapters) > 0 ? adapter_of[s] : 0};
		const m1b_batch batch = {.tokens = tokens, .n_tokens = n, .segments = &segment, .n_segments = 1};

		for (int i = 0; i < n; i++)
			tokens[i] = token(m, start + i + 31 * s);
		assert_ok(m1_forward(m, &batch, &row, 1, logits, &err));
		assert_memory_equal(logits, mixed + (size_t) (step * SEQUENCES + s) * vocab, vocab * sizeof *logits);
	}
	m1_state_release(m, state);
	free(logits);
}

/*
 * To the last bit: a sequence in a mixed batch is what it is alone, and one without an adapter what it is in a model
 * that has none loaded.
 */
static void
test_mixed_batch(void **state)
{
	static const m1_weight_format formats[] = {M1_WEIGHTS_STORED, M1_WEIGHTS_Q8_0, M1_WEIGHTS_Q4, M1_WEIGHTS_FP8};
	static const int lengths[SEQUENCES] = {20, 70, 5, 1, 90};
	const char *const folders[] = {FOLDER "_1", FOLDER "_2"};
	const m1_adapter_option adapters[] = {{"one", folders[0]}, {"two", folders[1]}};
	adapter_spec a = everything(folders[0], MODEL, 1);
	adapter_spec b = everything(folders[1], MODEL, 2);

	(void) state;
	b.config = "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"use_rslora\": true,"
			   "\"target_modules\": [\"qkv_proj\", \"k_proj\", \"w2\"]}";
	memset(b.rank, 0, sizeof b.rank);
	b.rank[M1_ROLE_QKV] = b.rank[M1_ROLE_K] = b.rank[M1_ROLE_W2] = 8;
	b.router = false;
	write_adapter(&a);
	write_adapter(&b);
	for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
	{
		m1_model *with = open_model(MODEL, formats[f], adapters, 2);
		m1_model *without = open_model(MODEL, formats[f], NULL, 0);
		float *mixed = mixed_logits(with, lengths, 4);

		for (int s = 0; s < SEQUENCES; s++)
		{
			check_alone(with, s, lengths[s], 4, mixed);
			if (adapter_of[s] == 0)
				check_alone(without, s, lengths[s], 4, mixed);
		}
		free(mixed);
		m1_model_close(with);
		m1_model_close(without);
	}
}

/* On quantized weights an adapter moves the logits near to where it does on the others: as shares of how far that is. */
static void
test_quantized_base(void **state)
{
	static const struct
	{
		m1_weight_format format;
		double most;
	} cases[] = {{M1_WEIGHTS_Q8_0, 0.2}, {M1_WEIGHTS_FP8, 0.3}, {M1_WEIGHTS_Q4, 0.5}};
	const adapter_spec a = everything(FOLDER, MODEL, 1);
	const m1_adapter_option adapter = {"a", FOLDER};
	float *base, *want;
	double moved;
	size_t n;
	m1_model *m;

	(void) state;
	write_adapter(&a);
	m = open_model(MODEL, M1_WEIGHTS_STORED, &adapter, 1);
	n = (size_t) TOKENS * (size_t) m->config.vocab_size;
	base = logits_of(m, 0);
	want = logits_of(m, 1);
	moved = test_distance(base, want, n);
	free(base);
	m1_model_close(m);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		float *got;

		m = open_model(MODEL, cases[i].format, &adapter, 1);
		got = logits_of(m, 1);
		m1_model_close(m);
		if (!(test_distance(got, want, n) < cases[i].most * moved))
			fail_msg("format %d: %g of %g", cases[i].format, test_distance(got, want, n), moved);
		free(got);
	}
	free(want);
}

/* ---- the format ---- */

typedef struct base
{
	m1_source *source;
	m1_config config;
	m1_checkpoint *checkpoint;
	m1_adapter_base as;
} base;

static void
open_base(const char *path, base *b)
{
	m1_error err;

	assert_ok(m1_source_open(path, &b->source, &err));
	assert_ok(m1_source_config(b->source, &b->config, &err));
	assert_ok(m1_source_checkpoint(b->source, &b->checkpoint, &err));
	b->as = (m1_adapter_base){.source = b->source, .config = &b->config, .checkpoint = b->checkpoint};
}

static void
close_base(base *b)
{
	m1_checkpoint_close(b->checkpoint);
	m1_source_close(b->source);
}

static void
digest_of(const char *path, char digest[M1_DIGEST_SIZE])
{
	base b;
	m1_error err;

	open_base(path, &b);
	assert_ok(m1_digest(b.source, &b.config, b.checkpoint, digest, &err));
	close_base(&b);
}

/* Writes the adapter, and finds the error that it is refused with. */
static void
assert_refused(const adapter_spec *a, m1_status code, const char *message, const char *detail)
{
	m1_adapter *loaded;
	base b;
	m1_error err = {0};

	write_adapter(a);
	open_base(a->model, &b);
	assert_int_equal(m1_adapter_load(a->folder, &b.as, &loaded, &err), code);
	if (strstr(err.message, message) == NULL || strstr(err.detail, detail) == NULL)
		fail_msg("\"%s\" (%s) instead of \"%s\" (%s)", err.message, err.detail, message, detail);
	close_base(&b);
}

#define Q_PROJ "base_model.model.model.layers.7.self_attn.q_proj"

/* A small adapter of this config, which has q_proj. */
static adapter_spec
of_config(const char *config)
{
	return (adapter_spec){.folder = FOLDER, .model = TINY, .config = config, .rank = {[M1_ROLE_Q] = 4}};
}

#define SMALL "\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"]"

static void
test_refused_tensors(void **state)
{
	adapter_spec a = of_config("{" SMALL "}");
	char digest[M1_DIGEST_SIZE];

	(void) state;
	a.missing = Q_PROJ ".lora_A.weight";
	assert_refused(&a, M1_E_NOT_FOUND, "tensor \"" Q_PROJ ".lora_A.weight\" is missing", "adapter_config.json");
	a.missing = Q_PROJ ".lora_B.weight";
	assert_refused(&a, M1_E_NOT_FOUND, "tensor \"" Q_PROJ ".lora_B.weight\" is missing", "");
	a.missing = NULL;
	a.odd = Q_PROJ ".lora_A.weight";
	assert_refused(&a, M1_E_CORRUPT, "has the wrong shape", "It is [5, 64]; the model and");
	a.odd = Q_PROJ ".lora_B.weight";
	assert_refused(&a, M1_E_CORRUPT, "has the wrong shape", "It is [65, 4]");
	a.odd = NULL;
	a.not_a_number = Q_PROJ ".lora_B.weight";
	assert_refused(&a, M1_E_CORRUPT, "holds values that are not finite", "");
	a.not_a_number = NULL;
	a.extra = Q_PROJ ".lora_magnitude_vector";
	assert_refused(&a, M1_E_UNSUPPORTED, "lora_magnitude_vector\" of the adapter is not supported", "DoRA");
	a.extra = "base_model.model.model.embed_tokens.lora_embedding_A";
	assert_refused(&a, M1_E_UNSUPPORTED, "lora_embedding_A\" of the adapter", "embedding");
	a.extra = "base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight";
	assert_refused(&a, M1_E_UNSUPPORTED, "qkv_proj.lora_A.weight\" of the adapter", "target_modules");
	a.extra = "base_model.model.model.norm.weight";
	assert_refused(&a, M1_E_UNSUPPORTED, "model.norm.weight\" of the adapter", "");
	a.extra = NULL;
	digest_of(MODEL, digest);
	a.digest = digest;
	assert_refused(&a, M1_E_INVALID_ARGUMENT, "made for another model", digest);
}

static void
test_refused_configs(void **state)
{
	static const struct
	{
		const char *config;
		m1_status code;
		const char *message;
	} cases[] = {
		{"[]", M1_E_CORRUPT, "is not a JSON object"},
		{"{\"r\": 4, \"lora_alpha\": 8}", M1_E_CORRUPT, "\"peft_type\" must be"},
		{"{\"peft_type\": \"IA3\"}", M1_E_UNSUPPORTED, "\"peft_type\" is not supported"},
		{"{" SMALL ", \"use_dora\": true}", M1_E_UNSUPPORTED, "\"use_dora\" is not supported"},
		{"{" SMALL ", \"bias\": \"lora_only\"}", M1_E_UNSUPPORTED, "\"bias\" is not supported"},
		{"{" SMALL ", \"lora_bias\": true}", M1_E_UNSUPPORTED, "\"lora_bias\" is not supported"},
		{"{" SMALL ", \"fan_in_fan_out\": true}", M1_E_UNSUPPORTED, "\"fan_in_fan_out\" is not supported"},
		{"{" SMALL ", \"layer_replication\": [[0, 4]]}", M1_E_UNSUPPORTED, "\"layer_replication\" is not supported"},
		{"{" SMALL ", \"init_lora_weights\": \"pissa\"}", M1_E_UNSUPPORTED, "\"init_lora_weights\" is not supported"},
		{"{" SMALL ", \"trainable_token_indices\": [1]}", M1_E_UNSUPPORTED, "\"trainable_token_indices\" is not"},
		{"{" SMALL ", \"invented_later\": 7}", M1_E_UNSUPPORTED, "\"invented_later\" is not supported"},
		{"{" SMALL ", \"modules_to_save\": [\"w1\"]}", M1_E_UNSUPPORTED, "cannot replace \"model.layers.0.block"},
		{"{" SMALL ", \"modules_to_save\": [3]}", M1_E_CORRUPT, "\"modules_to_save\" must be a list of names"},
		{"{" SMALL ", \"modules_to_save\": [\"block_sparse_moe.gate\"]}", M1_E_NOT_FOUND, "gate.weight\" is missing"},
		{"{" SMALL ", \"rank_pattern\": {\"(\": 3}}", M1_E_CORRUPT, "\"(\" is not a regular expression"},
		{"{" SMALL ", \"rank_pattern\": {\"q_proj\": 1025}}", M1_E_CORRUPT, "\"rank_pattern\" must be"},
		{"{" SMALL ", \"alpha_pattern\": {\"q_proj\": -1}}", M1_E_CORRUPT, "\"alpha_pattern\" must be"},
		{"{" SMALL ", \"rank_pattern\": {\"(([a-z_.0-9]*)*)*[!?]\": 3}}", M1_E_UNSUPPORTED, "takes too long"},
		{"{" SMALL ", \"layers_to_transform\": \"all\"}", M1_E_CORRUPT, "\"layers_to_transform\" must be"},
		{"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 8}", M1_E_CORRUPT, "\"r\" must be a rank between"},
		{"{\"peft_type\": \"LORA\", \"r\": 4}", M1_E_CORRUPT, "\"lora_alpha\" must be a positive number"},
		{"{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1e39, \"target_modules\": [\"q_proj\"]}", M1_E_CORRUPT,
		 "\"lora_alpha\" must be a number that a float can hold"},
		{"{" SMALL ", \"alpha_pattern\": {\"q_proj\": 1e300}}", M1_E_CORRUPT, "must be a number that a float can hold"},
		{"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8}", M1_E_UNSUPPORTED, "q_proj.lora_A.weight\" of the"},
		{"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\", \"k_proj\"]}",
		 M1_E_NOT_FOUND, "k_proj.lora_A.weight\" is missing"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		const adapter_spec a = of_config(cases[i].config);

		assert_refused(&a, cases[i].code, cases[i].message, "");
	}
}

/* Ways to name the same module. */
static void
test_accepted_configs(void **state)
{
#define HEAD "\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8"
	static const char *const configs[] = {
		"{" SMALL
		", \"exclude_modules\": null, \"lora_bias\": false, \"loftq_config\": {}, \"target_parameters\": null,"
		" \"megatron_core\": \"megatron.core\", \"qalora_group_size\": 16, \"revision\": \"main\"}",
		"{" HEAD ", \"target_modules\": \".*\\\\.self_attn\\\\.q_proj\"}",
		"{" HEAD ", \"target_modules\": [\"model.layers.7.self_attn.q_proj\"], \"layers_to_transform\": [1]}",
		"{" HEAD ", \"target_modules\": [\"q_proj\", \"k_proj\"], \"exclude_modules\": [\"k_proj\"]}",
		"{" HEAD ", \"target_modules\": [\"q_proj\", \"w1\"], \"exclude_modules\": \".*w1\"}",
		"{" HEAD ", \"target_modules\": [\"q_proj\", \"qkv_proj\"], \"layers_to_transform\": 7}",
		"{" HEAD ", \"target_modules\": [\"q_proj\", \"qkv_proj\"], \"layers_to_transform\": [7, 9],"
		" \"layers_pattern\": [\"blocks\", \"layers\"]}",
		"{\"peft_type\": \"LORA\", \"r\": 9, \"lora_alpha\": 18, \"target_modules\": [\"q_proj\"],"
		" \"rank_pattern\": {\"k_proj\": 5, \"layers.*q_proj\": 4}, \"alpha_pattern\": {\"q_proj\": 8, \"proj\": 1}}",
	};

	(void) state;
	for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
	{
		const adapter_spec a = of_config(configs[i]);
		const m1_adapter_target *targets;
		m1_adapter *loaded;
		base b;
		int n;
		m1_error err;

		write_adapter(&a);
		open_base(TINY, &b);
		assert_ok(m1_adapter_load(FOLDER, &b.as, &loaded, &err));
		targets = m1_adapter_targets(loaded, &n);
		assert_int_equal(n, 1);
		assert_int_equal(targets->role, M1_ROLE_Q);
		assert_int_equal(targets->layer, 7);
		assert_int_equal(targets->rank, 4);
		assert_true(targets->scale == 2.0f);
		assert_int_equal(m1_adapter_bytes(loaded), 4 * 4 * (64 + 64));
		m1_adapter_free(loaded);
		close_base(&b);
	}
}

/* Makes a folder with the model's files, so that one of them can differ. */
static void
link_model(const char *model, const char *folder, const char *config)
{
	char from[200];
	char to[200];

	remove_folder(folder);
	test_write_file(folder, "config.json", config, strlen(config));
	snprintf(from, sizeof from, "%s/model.safetensors", model);
	snprintf(to, sizeof to, "%s/model.safetensors", folder);
	test_link(from, to);
}

/* It is the same for a file of the same numbers and for one that was quantized, and another for another config. */
static void
test_digest(void **state)
{
	const m1_weight_format formats[] = {M1_WEIGHTS_STORED, M1_WEIGHTS_Q8_0, M1_WEIGHTS_Q4};
	char want[M1_DIGEST_SIZE];
	char got[M1_DIGEST_SIZE];
	m1_buf config = {0};
	char *theta;
	FILE *f;
	m1_error err;

	(void) state;
	digest_of(TINY, want);
	for (int i = 0; i < 3; i++)
	{
		const m1_convert_options options = {
			.in = TINY, .out = FOLDER ".gguf", .replace = true, .format = formats[i], .threads = 1};

		assert_ok(m1_convert(&options, &err));
		digest_of(FOLDER ".gguf", got);
		assert_string_equal(got, want);
	}
	digest_of("test/checkpoints/tiny-bf16-sharded", got);
	assert_string_not_equal(got, want);
	assert_non_null(f = fopen(TINY "/config.json", "rb"));
	assert_true(m1_buf_reserve(&config, 10000));
	config.len = fread(config.data, 1, 9999, f);
	fclose(f);
	theta = strstr(m1_buf_cstr(&config), "\"rope_theta\": 1");
	assert_non_null(theta);
	theta[strlen("\"rope_theta\": ")] = '2';
	link_model(TINY, FOLDER "_model", config.data);
	digest_of(FOLDER "_model", got);
	assert_string_not_equal(got, want);
	m1_buf_free(&config);
}

static void
assert_same_targets(const m1_adapter *a, const m1_adapter *b)
{
	int n, m;
	const m1_adapter_target *x = m1_adapter_targets(a, &n);
	const m1_adapter_target *y = m1_adapter_targets(b, &m);

	assert_int_equal(n, m);
	assert_int_equal(m1_adapter_bytes(a), m1_adapter_bytes(b));
	for (int i = 0; i < n; i++, x++, y++)
	{
		assert_true(x->role == y->role && x->layer == y->layer && x->expert == y->expert && x->rank == y->rank);
		assert_true(x->scale == y->scale);
		if (x->rank > 0)
		{
			assert_memory_equal(x->a, y->a, (size_t) (x->rank * x->cols) * sizeof *x->a);
			assert_memory_equal(x->b, y->b, (size_t) (x->rank * x->rows) * sizeof *x->b);
		}
		assert_int_equal(x->whole == NULL, y->whole == NULL);
		if (x->whole != NULL)
			assert_memory_equal(x->whole, y->whole, (size_t) (x->rows * x->cols) * sizeof *x->whole);
	}
}

/* What is written is read again, with the digest of its base; on another base it is refused. */
static void
check_saved(const m1_adapter *a, base *b)
{
	m1_adapter *again;
	base other;
	m1_error err;

	remove_folder(FOLDER "_saved");
	assert_int_equal(mkdir(FOLDER "_saved", 0777), 0);
	assert_ok(m1_adapter_save(a, FOLDER "_saved", &b->as, &err));
	assert_ok(m1_adapter_load(FOLDER "_saved", &b->as, &again, &err));
	assert_same_targets(a, again);
	m1_adapter_free(again);
	open_base("test/checkpoints/tiny-odd", &other);
	assert_int_equal(m1_adapter_load(FOLDER "_saved", &other.as, &again, &err), M1_E_INVALID_ARGUMENT);
	close_base(&other);
}

static void
test_saved(void **state)
{
	adapter_spec a = everything(FOLDER, TINY, 3);
	m1_adapter *loaded;
	base b;
	m1_error err;

	(void) state;
	open_base(TINY, &b);
	write_adapter(&a);
	assert_ok(m1_adapter_load(FOLDER, &b.as, &loaded, &err));
	check_saved(loaded, &b);
	m1_adapter_free(loaded);
	/* ranks that differ within a role, and a role of which only some are there */
	a.config = "{\"peft_type\": \"LORA\", \"r\": 6, \"lora_alpha\": 7,"
			   "\"target_modules\": [\"qkv_proj\"], \"layers_to_transform\": [1, 4], \"modules_to_save\": []}";
	memset(a.rank, 0, sizeof a.rank);
	a.rank[M1_ROLE_QKV] = 6;
	a.router = false;
	a.layers = 1 << 1 | 1 << 4;
	write_adapter(&a);
	assert_ok(m1_adapter_load(FOLDER, &b.as, &loaded, &err));
	m1_adapter_targets(loaded, &(int){0})->scale = 0.5f;
	check_saved(loaded, &b);
	m1_adapter_free(loaded);
	close_base(&b);
}

/* A new adapter changes nothing but is there: B is 0, and the router the base's. */
static void
test_new(void **state)
{
	m1_adapter_plan plan = m1_adapter_default_plan();
	const m1_adapter_option adapter = {"new", FOLDER "_saved"};
	const m1_adapter_target *targets;
	m1_adapter *a;
	m1_model *m;
	float *base_logits, *logits;
	m1_work work;
	base b;
	int n;
	m1_error err;

	(void) state;
	open_base(MODEL, &b);
	assert_ok(m1_adapter_create(&plan, &b.config, b.checkpoint, &a, &err));
	/* as many as shared facts have it: 8064 of attention for each rank, 49152 of experts, 8192 of the router */
	assert_int_equal(m1_adapter_bytes(a), sizeof(float) * (16 * 8064 + 49152 + 8192));
	targets = m1_adapter_targets(a, &n);
	assert_true(targets->a[0] != targets->a[1] && fabsf(targets->a[0]) <= 1 / sqrtf((float) targets->cols));
	check_saved(a, &b);
	m1_adapter_free(a);
	close_base(&b);
	m = open_model(MODEL, M1_WEIGHTS_STORED, &adapter, 1);
	base_logits = logits_of(m, 0);
	logits = logits_of(m, 1);
	assert_true(test_distance(logits, base_logits, (size_t) TOKENS * (size_t) m->config.vocab_size) < 1e-6);
	m1_model_close(m);
	free(base_logits);
	free(logits);
	open_base(MODEL, &b);
	m1_work_init(&work, M1_WORK_UNBOUNDED);
	m1_work_cancel(&work);
	plan.work = &work;
	assert_int_equal(m1_adapter_create(&plan, &b.config, b.checkpoint, &a, &err), M1_E_CANCELLED);
	assert_null(a);
	plan.rank = -1;
	assert_int_equal(m1_adapter_create(&plan, &b.config, b.checkpoint, &a, &err), M1_E_INVALID_ARGUMENT);
	plan = (m1_adapter_plan){.alpha = 1.0f};
	assert_int_equal(m1_adapter_create(&plan, &b.config, b.checkpoint, &a, &err), M1_E_INVALID_ARGUMENT);
	close_base(&b);
}

static void
test_targets(void **state)
{
	static const struct
	{
		const char *names;
		size_t numbers; /* of m1-nano's adapter with rank 2, and 1 of experts */
	} cases[] = {
		{"attention,experts,router", 2 * 8064 + 49152 + 8192},
		{"attention", 2 * 8064},
		{"experts", 49152},
		{"w2", 49152 / 3},
		{"router", 8192},
		{"gate", 8192},
		{"qkv_proj,output_gate,out_proj,q_proj,k_proj,v_proj,o_proj", 2 * 8064},
		{"head", 2 * (128 + 1600)},
		{"lm_head,w1,w2,w3", 2 * (128 + 1600) + 49152},
	};
	static const char *const bad[] = {"", "attention,", "self_attn.q_proj", "Attention", "embed_tokens", "norm", ",w1"};
	m1_adapter_plan plan = m1_adapter_default_plan();
	m1_adapter *a;
	base b;
	m1_error err;

	(void) state;
	plan.rank = 2;
	open_base(MODEL, &b);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		assert_ok(m1_adapter_plan_targets(&plan, m1_slice_of(cases[i].names), &err));
		assert_ok(m1_adapter_create(&plan, &b.config, b.checkpoint, &a, &err));
		assert_int_equal(m1_adapter_bytes(a), sizeof(float) * cases[i].numbers);
		m1_adapter_free(a);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(m1_adapter_plan_targets(&plan, m1_slice_of(bad[i]), &err), M1_E_INVALID_ARGUMENT);
	close_base(&b);
}

/* ---- merging ---- */

static void
assert_not_merged(m1_convert_options options, m1_status code, const char *message)
{
	m1_error err;

	options.threads = 1;
	assert_int_equal(m1_merge(&options, &err), code);
	if (strstr(err.message, message) == NULL)
		fail_msg("\"%s\" instead of \"%s\"", err.message, message);
	if (options.out != NULL && strcmp(options.out, FOLDER) != 0)
		assert_int_not_equal(access(options.out, F_OK), 0);
}

static bool
halt(void *context, const m1_convert_progress *p)
{
	(void) context;
	return p->done < p->total / 2;
}

static void
test_not_merged(void **state)
{
	const adapter_spec a = everything(FOLDER, TINY, 1);
	const char *out = TEST_BUILD "/adapter_none";
	const m1_convert_options gguf = {
		.in = TINY, .out = FOLDER ".gguf", .replace = true, .format = M1_WEIGHTS_STORED, .threads = 1};
	m1_error err;

	(void) state;
	write_adapter(&a);
	remove_folder(out);
	assert_ok(m1_convert(&gguf, &err));
	assert_not_merged((m1_convert_options){.in = TINY, .out = FOLDER, .adapter = FOLDER}, M1_E_INVALID_ARGUMENT,
					  "exists already");
	assert_not_merged((m1_convert_options){.in = TINY, .out = out, .adapter = FOLDER, .format = M1_WEIGHTS_Q8_0},
					  M1_E_INVALID_ARGUMENT, "a folder keeps weights");
	assert_not_merged((m1_convert_options){.in = FOLDER ".gguf", .out = out, .adapter = FOLDER}, M1_E_INVALID_ARGUMENT,
					  "a GGUF file cannot be merged into a folder");
	assert_not_merged((m1_convert_options){.in = TINY, .out = out, .adapter = TINY}, M1_E_NOT_FOUND, "adapter_config");
	assert_not_merged((m1_convert_options){.in = TINY, .out = out, .adapter = FOLDER, .progress = halt}, M1_E_CANCELLED,
					  "was not written");
	assert_not_merged((m1_convert_options){.in = TINY, .out = "/nowhere/at/all", .adapter = FOLDER}, M1_E_IO,
					  "could not create");
}

/* Weights that no number of their type can be are told, not written. */
static void
test_merged_too_large(void **state)
{
	static const char *const models[] = {TINY, "test/checkpoints/tiny-bf16-sharded"};
	adapter_spec a = of_config("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1.3e39, "
							   "\"target_modules\": [\"q_proj\"]}");

	(void) state;
	a.width = 1e4f;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
	{
		a.model = models[i];
		write_adapter(&a);
		assert_not_merged((m1_convert_options){.in = a.model, .out = TEST_BUILD "/adapter_none", .adapter = FOLDER},
						  M1_E_CORRUPT, "q_proj.weight\" cannot be merged");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear),
		cmocka_unit_test(test_no_memory_for_rank),
		cmocka_unit_test(test_merged),
		cmocka_unit_test(test_mixed_batch),
		cmocka_unit_test(test_quantized_base),
		cmocka_unit_test(test_refused_tensors),
		cmocka_unit_test(test_refused_configs),
		cmocka_unit_test(test_accepted_configs),
		cmocka_unit_test(test_digest),
		cmocka_unit_test(test_saved),
		cmocka_unit_test(test_new),
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_not_merged),
		cmocka_unit_test(test_merged_too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
