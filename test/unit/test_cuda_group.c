/*
 * test_cuda_group.c - several GPUs as one backend: whole models with random weights against one
 * GPU and against the CPU, what cannot be divided, and what happens when a GPU or NCCL fails.
 *
 * Without GPUs they are emulated, each with memory that the others cannot touch. Sums over them are
 * made in an order that depends on where a value lies, as NCCL's are.
 */
#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "cuda_testing.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blocks/blocks.h"
#include "backend/cuda/cuda_group.h"
#include "model/forward.h"
#include "model/roles.h"
#ifdef M1K_EMULATED
#include <dlfcn.h>
#include <nccl.h>
#endif

#define SCRATCH TEST_BUILD "/test_cuda_group"
#define LIKE "test/checkpoints/tiny-f32/config.json"
#define MAX_SEQUENCES 12
#define MAX_TOKENS 128

static uint64_t seed = 20261125;

/* ---- checkpoints ---- */

typedef struct shape
{
	const char *name;
	const char *attention; /* a letter for each layer: l or s */
	m1b_dtype type;		   /* F32 or BF16 */
	int heads, kv_heads, head_dim, hidden, width, experts, vocab;
	bool tied;
} shape;

static const shape plain = {"plain", "lsl", M1B_F32, 8, 4, 16, 96, 64, 5, 4 * 37, false};
static const shape odd = {"odd", "sll", M1B_BF16, 6, 2, 24, 72, 48, 3, 2 * 33, true};

static void
write_config(const shape *s, const char *folder)
{
	json_error_t why;
	json_t *root = json_load_file(LIKE, 0, &why);
	json_t *attention = json_array();
	char path[200];

	assert_non_null(root);
	for (size_t i = 0; i < strlen(s->attention); i++)
		json_array_append_new(attention, json_integer(s->attention[i] == 's'));
	json_object_set_new(root, "attn_type_list", attention);
	json_object_set_new(root, "num_hidden_layers", json_integer((json_int_t) strlen(s->attention)));
	json_object_set_new(root, "num_attention_heads", json_integer(s->heads));
	json_object_set_new(root, "num_key_value_heads", json_integer(s->kv_heads));
	json_object_set_new(root, "head_dim", json_integer(s->head_dim));
	json_object_set_new(root, "hidden_size", json_integer(s->hidden));
	json_object_set_new(root, "intermediate_size", json_integer(s->width));
	json_object_set_new(root, "num_local_experts", json_integer(s->experts));
	json_object_set_new(root, "vocab_size", json_integer(s->vocab));
	json_object_set_new(root, "tie_word_embeddings", json_boolean(s->tied));
	snprintf(path, sizeof path, "%s/config.json", folder);
	assert_int_equal(json_dump_file(root, path, 0), 0);
	json_decref(root);
}

typedef struct writer
{
	json_t *header;
	FILE *data;
	size_t at;
	m1b_dtype type;
	const m1_config *config;
} writer;

/* One tensor of random numbers, of a size that neither vanishes nor overflows; norms are near 1. */
static void
write_tensor(writer *w, m1_role role, int layer, int expert)
{
	char name[128];
	int rows, cols;
	size_t n, bytes;

	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, name, sizeof name);
	m1_role_shape(role, w->config, &rows, &cols);
	n = (size_t) rows * (size_t) (cols > 0 ? cols : 1);
	bytes = m1b_bytes(w->type, n);
	for (size_t i = 0; i < n; i++)
	{
		const float x = test_random_float(&seed);
		const float value = cols == 0 ? 1.0f + 0.2f * x : 1.7f * x / sqrtf((float) cols);
		uint32_t bits;

		memcpy(&bits, &value, sizeof bits);
		if (w->type == M1B_F32)
			fwrite(&bits, 4, 1, w->data);
		else
			fwrite((uint8_t *) &bits + 2, 2, 1, w->data);
	}
	json_object_set_new(w->header, name,
						json_pack("{s:s, s:o, s:[I,I]}", "dtype", w->type == M1B_F32 ? "F32" : "BF16", "shape",
								  cols > 0 ? json_pack("[i,i]", rows, cols) : json_pack("[i]", rows), "data_offsets",
								  (json_int_t) w->at, (json_int_t) (w->at + bytes)));
	w->at += bytes;
}

static void
write_weights(const shape *s, const m1_config *config, const char *folder)
{
	writer w = {.header = json_object(), .type = s->type, .config = config};
	m1_role roles[M1_ROLES];
	char path[200];
	char *data = NULL;
	char *header;
	size_t size = 0;
	uint64_t length;
	FILE *file;

	w.data = open_memstream(&data, &size);
	write_tensor(&w, M1_ROLE_EMBED, 0, 0);
	write_tensor(&w, M1_ROLE_FINAL_NORM, 0, 0);
	if (!s->tied)
		write_tensor(&w, M1_ROLE_HEAD, 0, 0);
	for (int layer = 0; layer < config->layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(config, layer, roles); i < n; i++)
			for (int e = 0; e < (m1_role_of_expert(roles[i]) ? config->experts : 1); e++)
				write_tensor(&w, roles[i], layer, e);
	fclose(w.data);
	header = json_dumps(w.header, 0);
	length = strlen(header);
	snprintf(path, sizeof path, "%s/model.safetensors", folder);
	assert_non_null(file = fopen(path, "wb"));
	fwrite(&length, sizeof length, 1, file);
	fwrite(header, 1, length, file);
	fwrite(data, 1, size, file);
	assert_int_equal(fclose(file), 0);
	free(header);
	free(data);
	json_decref(w.header);
}

static const char *
checkpoint(const shape *s)
{
	static char folder[100];
	m1_config *config = calloc(1, sizeof *config);
	m1_error err;

	mkdir("build", 0777);
	mkdir(SCRATCH, 0777);
	snprintf(folder, sizeof folder, SCRATCH "/%s", s->name);
	mkdir(folder, 0777);
	write_config(s, folder);
	assert_ok(m1_config_load(folder, config, &err));
	write_weights(s, config, folder);
	free(config);
	return folder;
}

/* ---- models ---- */

static m1_model_options
options_of(const char *path, int gpus, m1_weight_format format)
{
	return (m1_model_options){.path = path,
							  .device = gpus > 0 ? "cuda" : "cpu",
							  .gpus = gpus,
							  .weight_format = format,
							  .threads = 1,
							  .max_context = 256,
							  .max_sequences = MAX_SEQUENCES,
							  .max_batch_tokens = MAX_TOKENS,
							  .snapshot_bytes = (size_t) 4 << 20};
}

/* gpus 0 is the CPU */
static m1_model *
open_model(const char *path, int gpus, m1_weight_format format)
{
	const m1_model_options options = options_of(path, gpus, format);
	m1_model *m;
	m1_error err;

	assert_ok(m1_model_open(&options, &m, &err));
	return m;
}

static m1_status
refusal(const shape *s, int gpus, m1_weight_format format, m1_error *err)
{
	const m1_model_options options = options_of(checkpoint(s), gpus, format);
	m1_model *m;

	return m1_model_open(&options, &m, err);
}

/* ---- a schedule of steps ---- */

#define SEQUENCES 3
#define STEPS 8

/*
 * Tokens that each sequence is given in each step: chunks of odd sizes and single tokens, side by side, and the same
 * shape of single tokens again and again, which is recorded the second time and replayed from then on.
 */
static const int schedule[STEPS][SEQUENCES] = {
	{17, 0, 1}, {1, 1, 66}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {2, 11, 1}, {1, 0, 1}, {1, 1, 1},
};

typedef struct feeding
{
	m1_model *model;
	m1b_state *states[SEQUENCES];
	int position[SEQUENCES];
	float *logits; /* of all tokens so far, [rows, vocab] */
	size_t rows;
} feeding;

static int32_t
token_of(const feeding *f, int sequence, int position)
{
	return (int32_t) ((unsigned) (7 * position * position + 31 * sequence + position) %
					  (unsigned) f->model->config.vocab_size);
}

/* One step with n[s] tokens of each sequence; the logits of all of them. */
static m1_status
feed(feeding *f, const int n[SEQUENCES], m1_error *err)
{
	const size_t vocab = (size_t) f->model->config.vocab_size;
	m1b_segment segments[SEQUENCES];
	int32_t tokens[MAX_TOKENS];
	int rows[MAX_TOKENS];
	m1b_batch batch = {.tokens = tokens, .segments = segments};
	m1_status status;

	for (int s = 0; s < SEQUENCES; s++)
	{
		if (n[s] == 0)
			continue;
		segments[batch.n_segments++] =
			(m1b_segment){.state = f->states[s], .start = f->position[s], .n_tokens = n[s], .row = batch.n_tokens};
		for (int i = 0; i < n[s]; i++, batch.n_tokens++)
		{
			tokens[batch.n_tokens] = token_of(f, s, f->position[s] + i);
			rows[batch.n_tokens] = batch.n_tokens;
		}
		f->position[s] += n[s];
	}
	f->logits = realloc(f->logits, (f->rows + (size_t) batch.n_tokens) * vocab * sizeof *f->logits);
	memset(f->logits + f->rows * vocab, 0xff, (size_t) batch.n_tokens * vocab * sizeof *f->logits);
	status = m1_forward(f->model, &batch, rows, batch.n_tokens, f->logits + f->rows * vocab, err);
	f->rows += (size_t) batch.n_tokens;
	return status;
}

static feeding
start(m1_model *m)
{
	feeding f = {.model = m};

	for (int s = 0; s < SEQUENCES; s++)
		assert_non_null(f.states[s] = m->backend->ops->state_acquire(m->backend, m->max_context));
	return f;
}

static void
finish(feeding *f)
{
	const m1b_ops *ops = f->model->backend->ops;

	for (int s = 0; s < SEQUENCES; s++)
		ops->state_release(f->model->backend, f->states[s]);
	m1_model_close(f->model);
	free(f->logits);
}

/* Several steps; then the last sequence, which has begun its second page, is dropped and goes on from a snapshot. */
static feeding
run_schedule(m1_model *m)
{
	static const int after[SEQUENCES] = {1, 0, 9};
	const m1b_ops *ops = m->backend->ops;
	feeding f = start(m);
	const m1b_memory before = ops->memory(m->backend);
	m1b_snapshot *snapshot;
	m1_error err;

	for (int step = 0; step < STEPS; step++)
		assert_ok(feed(&f, schedule[step], &err));
	assert_non_null(snapshot = ops->snapshot_take(m->backend, f.states[2], f.position[2], M1B_SHARED));
	assert_int_equal(ops->memory(m->backend).snapshots, 1);
	ops->state_release(m->backend, f.states[2]);
	assert_non_null(f.states[2] = ops->state_acquire_from(m->backend, m->max_context, snapshot));
	assert_ok(feed(&f, after, &err));
	ops->state_trim(m->backend, f.states[0], f.position[0]);
	ops->snapshot_release(m->backend, snapshot);
	assert_int_equal(ops->memory(m->backend).snapshots, 0);
	assert_true(ops->memory(m->backend).free_pages >= before.free_pages);
	return f;
}

/* ---- against one GPU and the CPU ---- */

/* The last layer's router has seen the same bits on every rank: they never disagree about experts. */
static void
check_ranks_agree(const m1_model *m)
{
	m1b_cuda_group *g = m1b_cuda_group_of(m->backend);
	const size_t bytes = (size_t) m->config.experts * sizeof(float);
	float *scores[2] = {malloc(bytes), malloc(bytes)};

	for (int r = 0; r < g->n; r++)
	{
		m1b_cuda *c = m1b_cuda_group_use(g, r);

		cudaMemcpyAsync(scores[r > 0], c->routed.scores, bytes, cudaMemcpyDeviceToHost, c->stream);
		cudaStreamSynchronize(c->stream);
		if (r > 0)
			assert_memory_equal(scores[0], scores[1], bytes);
	}
	free(scores[0]);
	free(scores[1]);
}

static void
check_model(const shape *s, m1_weight_format format, int gpus, double to_one, double to_cpu)
{
	const char *path = checkpoint(s);
	feeding group = run_schedule(open_model(path, gpus, format));
	feeding one = run_schedule(open_model(path, 1, format));
	feeding cpu = run_schedule(open_model(path, 0, format));
	const size_t n = group.rows * (size_t) s->vocab;
	const char *const formats[] = {
		[M1_WEIGHTS_STORED] = "its own type", [M1_WEIGHTS_Q8_0] = "q8_0", [M1_WEIGHTS_Q4] = "q4"};
	char what[100];

	check_ranks_agree(group.model);
	snprintf(what, sizeof what, "%s in %s on %d GPUs and one", s->name, formats[format], gpus);
	assert_near(group.logits, one.logits, n, to_one, what);
	snprintf(what, sizeof what, "%s in %s on %d GPUs and the CPU", s->name, formats[format], gpus);
	assert_near(group.logits, cpu.logits, n, to_cpu, what);
	finish(&group);
	finish(&one);
	finish(&cpu);
}

static void
need(int gpus)
{
	if (devices() < gpus)
		skip();
}

static void
test_two(void **state)
{
	(void) state;
	need(2);
	check_model(&plain, M1_WEIGHTS_STORED, 2, 2e-5, 1e-4);
	check_model(&odd, M1_WEIGHTS_STORED, 2, 1e-2, 3e-2);
	check_model(&plain, M1_WEIGHTS_Q8_0, 2, 1e-2, 3e-2);
}

static void
test_four(void **state)
{
	(void) state;
	need(4);
	check_model(&plain, M1_WEIGHTS_STORED, 4, 2e-5, 1e-4);
}

/* Few rows: a sequence's logits are the same bits alone and beside others, recorded or not, however NCCL adds up. */
static void
test_rows_are_independent(void **state)
{
	static const int single[SEQUENCES] = {1, 0, 0};
	static const int beside[SEQUENCES] = {1, 5, 1};
	const size_t vocab = (size_t) plain.vocab;
	const char *path = checkpoint(&plain);
	feeding alone, together;
	m1_error err;

	(void) state;
	need(4);
	alone = start(open_model(path, 4, M1_WEIGHTS_STORED));
	together = start(open_model(path, 4, M1_WEIGHTS_STORED));
	for (int step = 0; step < 4; step++)
	{
		const size_t row = together.rows;

		assert_ok(feed(&alone, single, &err));
		assert_ok(feed(&together, beside, &err));
		assert_memory_equal(alone.logits + (alone.rows - 1) * vocab, together.logits + row * vocab,
							vocab * sizeof(float));
	}
	finish(&alone);
	finish(&together);
}

/* ---- what is refused ---- */

static void
check_refused(const shape *s, int gpus, const char *field, const char *numbers, const char *advice)
{
	m1_error err;

	assert_int_equal(refusal(s, gpus, M1_WEIGHTS_STORED, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.detail, field));
	assert_non_null(strstr(err.detail, numbers));
	assert_non_null(strstr(err.hint, advice));
}

static void
test_indivisible(void **state)
{
	shape s = plain;
	m1_error err;

	(void) state;
	need(4);
	check_refused(&odd, 4, "num_attention_heads", "6", "{gpus} to 2");
	s.kv_heads = 2;
	check_refused(&s, 4, "num_key_value_heads", "2", "{gpus} to 2");
	s = plain;
	s.width = 70;
	check_refused(&s, 4, "intermediate_size", "70", "{gpus} to 2");
	s = plain;
	s.vocab = 149;
	check_refused(&s, 2, "vocab_size", "149", "{gpus} to 1");
	/* a part of the columns would end within a block, or be too narrow for the kernels */
	s = plain;
	s.width = 96;
	assert_int_equal(refusal(&s, 2, M1_WEIGHTS_Q8_0, &err), M1_E_UNSUPPORTED);
	assert_non_null(strstr(err.message, "96 columns cannot be divided among 2 GPUs"));
	assert_non_null(strstr(err.detail, "Q8_0"));
	assert_non_null(strstr(err.hint, "{gpus}"));
	s.width = 72;
	assert_int_equal(refusal(&s, 2, M1_WEIGHTS_STORED, &err), M1_E_UNSUPPORTED);
	assert_int_equal(refusal(&plain, devices() + 1, M1_WEIGHTS_STORED, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.hint, "{gpus}"));
}

#ifdef M1K_EMULATED
#define MB ((size_t) 1000000)

static char logged[4][512];
static int n_logged;

static void
remember(void *context, const char *line)
{
	(void) context;
	snprintf(logged[n_logged++ % 4], sizeof logged[0], "%s", line);
}

/* The number of pages in a plan's line. */
static int
pages_in(const char *line)
{
	const char *at = strstr(line, " KV pages");

	assert_non_null(at);
	while (at[-1] != ' ')
		at--;
	return atoi(at);
}

/* Every GPU is planned for by itself; all get the pages that the tightest has room for. */
static void
check_plan(int tight)
{
	m1_model_options options = options_of(checkpoint(&plain), 2, M1_WEIGHTS_STORED);
	m1_model *m;
	m1_error err;

	options.log = remember;
	options.max_context = 1 << 20;
	emulated_set_memory(1 - tight, 1800 * MB);
	emulated_set_memory(tight, 1750 * MB);
	n_logged = 0;
	assert_ok(m1_model_open(&options, &m, &err));
	assert_string_equal(m->backend->ops->describe(m->backend), "cuda (2 x emulated on the CPU, 4 GB)");
	assert_int_equal(n_logged, 2);
	assert_non_null(strstr(logged[0], "GPU 0: device memory"));
	assert_non_null(strstr(logged[1], "GPU 1: device memory"));
	assert_true(pages_in(logged[0]) > 1000);
	assert_int_equal(pages_in(logged[0]), pages_in(logged[1]));
	assert_null(strstr(logged[1 - tight], "; 0.00 left"));
	assert_non_null(strstr(logged[tight], "; 0.00 left"));
	m1_model_close(m);

	emulated_set_memory(tight, 1550 * MB);
	assert_int_equal(m1_model_open(&options, &m, &err), M1_E_NO_MEMORY);
	assert_non_null(strstr(err.detail, tight == 0 ? "GPU 0: Bytes: " : "GPU 1: Bytes: "));
	assert_non_null(strstr(err.hint, "max_context"));

	emulated_set_memory(tight, 8000 * MB);
	assert_int_equal(m1_model_open(&options, &m, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.message, "not of one kind"));
	emulated_set_devices(4);
}

static void
test_plan(void **state)
{
	(void) state;
	check_plan(0);
	check_plan(1);
}

/* ---- failures ---- */

/* A GPU that is lost, or NCCL that reports an error, ends a step of all others too, and they can be closed. */
static void
check_failure(bool lose_device, const char *says)
{
	feeding f = start(open_model(checkpoint(&plain), 2, M1_WEIGHTS_STORED));
	static const int one_each[SEQUENCES] = {1, 1, 1};
	m1_error err;

	for (int i = 0; i < 3; i++)
		assert_ok(feed(&f, one_each, &err));
	if (lose_device)
		emulated_lose_device(1);
	else
		emulated_break_nccl(ncclRemoteError);
	assert_int_equal(feed(&f, one_each, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.detail, says));
	/* and it stays so */
	assert_int_equal(feed(&f, schedule[0], &err), M1_E_DEVICE);
	finish(&f);
	emulated_break_nccl(ncclSuccess);
	emulated_set_devices(4);
}

/* One GPU needs no NCCL. */
static void
test_without_nccl(void **state)
{
	m1_error err;

	(void) state;
	emulated_hide_libraries(true);
	assert_int_equal(refusal(&plain, 2, M1_WEIGHTS_STORED, &err), M1_E_DEVICE);
	assert_string_equal(err.message, "NCCL could not be loaded, which adds up over 2 GPUs");
	assert_non_null(strstr(err.detail, "libnccl.so.2"));
	m1_model_close(open_model(checkpoint(&plain), 1, M1_WEIGHTS_STORED));
	emulated_hide_libraries(false);
}

static void
test_failures(void **state)
{
	(void) state;
	check_failure(true, "GPU 1: cudaErrorIllegalAddress");
	check_failure(false, "remote process");
}
#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two),
		cmocka_unit_test(test_four),
		cmocka_unit_test(test_rows_are_independent),
		cmocka_unit_test(test_indivisible),
#ifdef M1K_EMULATED
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_without_nccl),
		cmocka_unit_test(test_failures),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
