/*
 * test_fit.c - trainings from files, of a model small enough for a step to take milliseconds: they go on to the same
 * bits, and whatever goes wrong leaves what was there before.
 */
#define _GNU_SOURCE /* setrlimit, mkdir, flock */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "files/checkpoint.h"
#include "files/regular.h"
#include "train/fit.h"
#include "train/training_files.h"

#define SCRATCH TEST_BUILD "/test_fit"
#define DATA SCRATCH "/data.jsonl"
#define STEPS 8

/* The width of experts, how many of them a token takes, and the context. */
#define CONFIG                                                                                                     \
	"{\"architectures\": [\"MiniMaxM1ForCausalLM\"], \"model_type\": \"minimax_m1\", \"vocab_size\": 300, "        \
	"\"hidden_size\": 32, \"num_hidden_layers\": 2, \"attn_type_list\": [0, 1], \"num_attention_heads\": 2, "      \
	"\"num_key_value_heads\": 1, \"head_dim\": 16, \"rotary_dim\": 8, \"rope_theta\": 10000, "                     \
	"\"intermediate_size\": %d, \"num_local_experts\": 4, \"num_experts_per_tok\": %d, \"hidden_act\": \"silu\", " \
	"\"rms_norm_eps\": 1e-5, \"postnorm\": true, \"layernorm_full_attention_alpha\": 1.41, "                       \
	"\"layernorm_full_attention_beta\": 1.0, \"layernorm_linear_attention_alpha\": 1.41, "                         \
	"\"layernorm_linear_attention_beta\": 1.0, \"layernorm_mlp_alpha\": 1.41, \"layernorm_mlp_beta\": 1.0, "       \
	"\"tie_word_embeddings\": false, \"max_position_embeddings\": %d}"

/* ---- a training ---- */

typedef struct watched
{
	int steps, dropped, warnings, evaluations;
	double first_loss, last_loss;
	bool begun;
	bool stop_reading; /* before it has begun */
	int stop_after;	   /* steps; 0: never */
	m1_example_counts counts;
	size_t held_out;
} watched;

static void
on_step(void *context, const m1_fit_step *s)
{
	watched *w = context;

	if (w->steps++ == 0)
		w->first_loss = s->loss;
	w->last_loss = s->loss;
	w->dropped += s->dropped;
	assert_true(s->all_dropped >= (uint64_t) w->dropped);
	w->evaluations += s->evaluated;
	assert_true(!s->evaluated || isfinite(s->held_out_loss));
}

static void
on_begun(void *context, const m1_example_counts *counts, size_t examples, size_t held_out, uint64_t step,
		 uint64_t steps)
{
	watched *w = context;

	(void) examples;
	(void) step;
	(void) steps;
	w->begun = true;
	w->counts = *counts;
	w->held_out = held_out;
}

static void
on_warning(void *context, const m1_error *err)
{
	watched *w = context;

	(void) err;
	w->warnings++;
}

static bool
goes_on(void *context)
{
	const watched *w = context;

	if (!w->begun)
		return !w->stop_reading;
	return w->stop_after == 0 || w->steps < w->stop_after;
}

static m1_fit_options
usual(const char *out, watched *w)
{
	static const char *const files[] = {DATA};

	*w = (watched){0};
	return (m1_fit_options){
		.config = SCRATCH "/config.json",
		.fresh_type = M1B_BF16,
		.out = out,
		.replace = true,
		.files = files,
		.n_files = 1,
		.answer_weight = 1.0f,
		.held_out = 0.1,
		.batch_tokens = 60,
		.steps = STEPS,
		.epochs = 1,
		.schedule = {.rate = 1e-2, .last = 1e-3, .warmup_steps = 2, .decay = M1_DECAY_COSINE},
		.adamw = m1_adamw_defaults(0.0f),
		.balance = 0.01f,
		.seed = 3,
		.device = "cpu",
		.threads = 1,
		.observer = {.context = w, .warn = on_warning, .begun = on_begun, .step = on_step, .goes_on = goes_on},
	};
}

/* ---- files ---- */

static m1_buf
file_of(const char *dir, const char *name)
{
	char path[200];
	m1_buf content = {0};
	m1_error err;
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (f == NULL)
		return content;
	assert_ok(m1_read_rest(f, path, &content, &err));
	fclose(f);
	return content;
}

static void
assert_same_file(const char *dir, const char *other, const char *name)
{
	m1_buf a = file_of(dir, name);
	m1_buf b = file_of(other, name);

	assert_true(a.len > 0);
	assert_int_equal(a.len, b.len);
	if (memcmp(a.data, b.data, a.len) != 0)
		fail_msg("%s differs between %s and %s", name, dir, other);
	m1_buf_free(&a);
	m1_buf_free(&b);
}

static bool
is_there(const char *dir, const char *name)
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static int
files_in(const char *folder)
{
	DIR *dir = opendir(folder);
	int n = 0;

	assert_non_null(dir);
	for (const struct dirent *e; (e = readdir(dir)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

static void
remove_folder(const char *dir)
{
	static const char *const names[] = {"config.json", "model.safetensors", "training.safetensors"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
	{
		char path[200];

		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

static void
write_config(const char *name, int expert_width, int top_k, int context)
{
	char text[2000];
	const int n = snprintf(text, sizeof text, CONFIG, expert_width, top_k, context);

	test_write_file(SCRATCH, name, text, (size_t) n);
}

/* Forty sequences that count up by a step of their own. */
static int
write_inputs(void **state)
{
	m1_buf text = {0};
	uint64_t seed = 9;

	(void) state;
	for (int i = 0; i < 40; i++)
	{
		const int by = 1 + i % 3;
		int id = (int) (test_random(&seed) % 200);

		m1_buf_puts(&text, "{\"ids\": [");
		for (int k = 0; k < 6 + i % 11; k++, id += by)
		{
			char number[16];

			snprintf(number, sizeof number, "%s%d", k > 0 ? ", " : "", id % 300);
			m1_buf_puts(&text, number);
		}
		m1_buf_puts(&text, "]}\n");
	}
	test_write_file(SCRATCH, "data.jsonl", text.data, text.len);
	write_config("config.json", 32, 2, 64);
	m1_buf_free(&text);
	return 0;
}

/* ---- what is right ---- */

static void
test_learns(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/learns", &w);
	m1_checkpoint *c;
	m1_error err;

	(void) state;
	o.steps = 60;
	o.evaluate_every = 20;
	assert_ok(m1_fit(&o, &err));
	assert_int_equal(w.steps, 60);
	assert_int_equal(w.evaluations, 3);
	assert_int_equal(w.held_out, 4);
	assert_true(w.last_loss < 0.7 * w.first_loss);
	assert_ok(m1_checkpoint_open(SCRATCH "/learns", &c, &err));
	assert_int_equal(m1_checkpoint_find(c, "lm_head.weight")->type, M1B_BF16);
	assert_int_equal(m1_checkpoint_find(c, "model.layers.0.block_sparse_moe.gate.weight")->type, M1B_F32);
	m1_checkpoint_close(c);
}

static void
test_goes_on(void **state)
{
	watched w;
	m1_fit_options all = usual(SCRATCH "/all", &w);
	m1_fit_options parts = usual(SCRATCH "/parts", &w);
	m1_error err;

	(void) state;
	assert_ok(m1_fit(&all, &err));
	w.steps = 0;
	parts.save_every = 2;
	parts.threads = 2; /* nor do threads matter */
	w.stop_after = 3;
	assert_int_equal(m1_fit(&parts, &err), M1_E_CANCELLED);
	assert_string_equal(err.message, "interrupted after step 3 of 8");
	parts.resume = true;
	w.stop_after = 5;
	assert_int_equal(m1_fit(&parts, &err), M1_E_CANCELLED);
	w.stop_after = 0;
	assert_ok(m1_fit(&parts, &err));
	assert_int_equal(w.steps, STEPS);
	assert_same_file(SCRATCH "/all", SCRATCH "/parts", M1_MODEL_FILE);
	assert_same_file(SCRATCH "/all", SCRATCH "/parts", M1_TRAINING_FILE);
	assert_ok(m1_fit(&parts, &err)); /* what is complete stays so */
	assert_int_equal(w.steps, STEPS);
	assert_same_file(SCRATCH "/all", SCRATCH "/parts", M1_TRAINING_FILE);
}

static void
test_interrupted_at_once(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/at_once", &w);
	m1_error err;

	(void) state;
	w.stop_after = -1; /* in the first batch */
	assert_int_equal(m1_fit(&o, &err), M1_E_CANCELLED);
	w.stop_after = 0;
	o.resume = true;
	assert_ok(m1_fit(&o, &err));
	assert_same_file(SCRATCH "/all", SCRATCH "/at_once", M1_MODEL_FILE);
}

static void
test_of_a_model(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/second", &w);
	m1_error err;

	(void) state;
	o.config = NULL;
	o.model = SCRATCH "/all";
	assert_ok(m1_fit(&o, &err));
	assert_same_file(SCRATCH "/all", SCRATCH "/second", "config.json");
	assert_true(w.first_loss < 5.0); /* ln 300 is 5.7 */
	o.model = SCRATCH "/none";
	assert_int_equal(m1_fit(&o, &err), M1_E_UNSUPPORTED);
}

/* ---- what goes wrong ---- */

static void
assert_refused(const m1_fit_options *o, m1_status wanted, const char *says)
{
	m1_error err;
	const m1_status status = m1_fit(o, &err);

	if (status != wanted || strstr(err.message, says) == NULL)
		fail_msg("%s: \"%s\" where \"%s\" was expected", m1_status_name(status), err.message, says);
}

static void
test_refused(void **state)
{
	static const char *const bad[] = {DATA, SCRATCH "/bad.jsonl"};
	static const char *const more[] = {DATA, SCRATCH "/more.jsonl"};
	static const char bad_line[] = "{\"ids\": [1, 2]}\n{\"ids\": [1, 300]}\n";
	static const char more_line[] = "{\"ids\": [1, 2]}\n";
	watched w;
	m1_fit_options o = usual(SCRATCH "/refused", &w);

	(void) state;
	test_write_file(SCRATCH, "bad.jsonl", bad_line, sizeof bad_line - 1);
	test_write_file(SCRATCH, "more.jsonl", more_line, sizeof more_line - 1);
	remove_folder(SCRATCH "/refused");
	o.replace = false;
	o.files = bad;
	o.n_files = 2;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "bad.jsonl, line 2: token id 300 is outside the vocabulary");
	assert_int_equal(files_in(SCRATCH "/refused"), 0); /* nothing was trained, and the next one may begin */
	o.n_files = 1;
	o.max_context = 10;
	assert_refused(&o, M1_E_CONTEXT_OVERFLOW, "are longer than the context");
	o.too_long = M1_LONG_SKIP;
	o.held_out = 1.5;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "the share that is held out must be from 0 to 0.999");
	o.held_out = 0.1;
	o.adamw.beta2 = NAN;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "the beta2 of AdamW must be");
	o.adamw.beta2 = 0.95f;
	o.schedule.warmup_steps = 9;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "warm-up and decay have more steps than the training");
	o.schedule.warmup_steps = 2;
	assert_refused(&(m1_fit_options){.resume = true, .out = SCRATCH "/none", .adamw = o.adamw}, M1_E_NOT_FOUND,
				   "there is no training to go on with");
	assert_int_equal(m1_fit(&o, NULL), M1_OK);
	assert_true(w.counts.skipped > 0);
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "has a model already");
	o.resume = true;
	o.seed = 4;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "it has begun with another seed");
	o.seed = 3;
	o.batch_tokens = 61;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "it has begun with other tokens of a batch");
	o.batch_tokens = 60;
	o.files = more;
	o.n_files = 2;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "it has begun with other examples");
}

/* Overwrites the first bytes of a tensor of a file. */
static void
poison(const char *dir, const char *file, const char *tensor)
{
	const float nan_value = NAN;
	char path[200];
	m1_checkpoint *c;
	m1_error err;
	long at;
	FILE *f;

	assert_ok(m1_checkpoint_open_file(dir, file, &c, &err));
	assert_non_null(m1_checkpoint_find(c, tensor));
	snprintf(path, sizeof path, "%s/%s", dir, file);
	f = fopen(path, "r+b");
	assert_non_null(f);
	/* the data ends with the file */
	fseek(f, 0, SEEK_END);
	at = ftell(f);
	for (size_t i = 0; i < m1_checkpoint_tensors(c); i++)
		if (m1_checkpoint_tensor(c, i)->data >= m1_checkpoint_find(c, tensor)->data)
			at -= (long) m1_checkpoint_tensor(c, i)->bytes;
	fseek(f, at, SEEK_SET);
	assert_int_equal(fwrite(&nan_value, sizeof nan_value, 1, f), 1);
	assert_int_equal(fclose(f), 0);
	m1_checkpoint_close(c);
}

static void
test_no_numbers(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/nan", &w);
	m1_buf before, after;
	m1_error err;

	(void) state;
	w.stop_after = 2;
	assert_int_equal(m1_fit(&o, &err), M1_E_CANCELLED);
	poison(SCRATCH "/nan", M1_TRAINING_FILE, "lm_head.weight");
	before = file_of(SCRATCH "/nan", M1_MODEL_FILE);
	o.resume = true;
	o.save_every = 1;
	w = (watched){0};
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "3 steps in a row had a loss or a gradient that is no number");
	assert_int_equal(w.steps, 3);
	assert_int_equal(w.dropped, 3);
	after = file_of(SCRATCH "/nan", M1_MODEL_FILE);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len); /* the last good checkpoint stays */
	m1_buf_free(&before);
	m1_buf_free(&after);
}

/* Weights that a first step has made too large: they are numbers, what is computed of them is none. */
static void
test_no_numbers_without_checkpoint(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/diverged", &w);
	m1_error err;

	(void) state;
	remove_folder(SCRATCH "/diverged");
	o.schedule = (m1_schedule){.rate = 1e3, .last = 1e3, .decay = M1_DECAY_NONE};
	o.adamw.weight_decay = 1e6f;
	assert_int_equal(m1_fit(&o, &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(w.dropped, 3);
	assert_string_equal(err.detail, "The last checkpoint is that of step 4.");
	assert_true(is_there(SCRATCH "/diverged", M1_MODEL_FILE) && is_there(SCRATCH "/diverged", M1_TRAINING_FILE));
}

/* Where no step was a good one, there is nothing to keep, and what was there stays. */
static void
test_never_numbers(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/never", &w);
	m1_error err;

	(void) state;
	remove_folder(o.out);
	o.config = NULL;
	o.model = SCRATCH "/diverged"; /* of the test before */
	assert_int_equal(m1_fit(&o, &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(w.dropped, 3);
	assert_string_equal(err.detail, "There is no checkpoint yet.");
	assert_int_equal(files_in(o.out), 0);
}

/* ---- what is begun anew ---- */

static const char *const kept_names[] = {"config.json", M1_MODEL_FILE, M1_TRAINING_FILE};

/* It fails, and leaves the folder as it is. */
static void
assert_left_alone(const m1_fit_options *o, m1_status wanted, const char *says)
{
	m1_buf before[3];

	for (int i = 0; i < 3; i++)
		before[i] = file_of(o->out, kept_names[i]);
	assert_refused(o, wanted, says);
	for (int i = 0; i < 3; i++)
	{
		m1_buf after = file_of(o->out, kept_names[i]);

		assert_true(before[i].len > 0 && before[i].len == after.len);
		if (memcmp(before[i].data, after.data, after.len) != 0)
			fail_msg("%s has changed: \"%s\"", kept_names[i], says);
		m1_buf_free(&before[i]);
		m1_buf_free(&after);
	}
	assert_int_equal(files_in(o->out), 3);
}

/* A sequence whose activations no machine's quarter holds, of a model that takes a hundred kilobytes for each token. */
static void
write_too_much(void)
{
	const size_t tokens = m1_machine_memory() / 4 / 100000;
	m1_buf text = {0};

	write_config("wide.json", 4096, 4, 100000000);
	m1_buf_puts(&text, "{\"ids\": [1");
	for (size_t i = 0; i < tokens; i++)
		m1_buf_puts(&text, ",1");
	m1_buf_puts(&text, "]}\n");
	test_write_file(SCRATCH, "long.jsonl", text.data, text.len);
	m1_buf_free(&text);
}

static void
test_force(void **state)
{
	static const char *const bad[] = {SCRATCH "/bad.jsonl"}; /* of test_refused */
	static const char *const long_one[] = {SCRATCH "/long.jsonl"};
	watched w;
	m1_fit_options o = usual(SCRATCH "/kept", &w);
	m1_fit_options other;
	m1_error err;

	(void) state;
	write_too_much();
	assert_ok(m1_fit(&o, &err));
	other = o;
	other.config = SCRATCH "/wide.json";
	other.held_out = 0.0;
	other.files = bad;
	assert_left_alone(&other, M1_E_INVALID_ARGUMENT, "token id 300 is outside");
	other.files = long_one;
	assert_left_alone(&other, M1_E_NO_MEMORY, "the activations of ");
	other.files = o.files;
	other.schedule.warmup_steps = 9;
	assert_left_alone(&other, M1_E_INVALID_ARGUMENT, "warm-up and decay have more steps");
	other.schedule.warmup_steps = 2;
	w = (watched){.stop_reading = true};
	assert_left_alone(&other, M1_E_CANCELLED, "interrupted");
	w = (watched){0};
	other.seed = 4;
	assert_ok(m1_fit(&other, &err));
	assert_int_equal(files_in(other.out), 3);
	other.resume = true;
	assert_ok(m1_fit(&other, &err)); /* config and weights belong together */
}

/* A killed one may have left what it was to begin with. */
static void
test_left_behind(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/kept", &w);
	m1_error err;

	(void) state;
	assert_int_equal(mkdir(SCRATCH "/kept/beginning.tmp", 0777), 0);
	test_write_file(SCRATCH "/kept/beginning.tmp", "model.safetensors.17.tmp", "half", 4);
	test_write_file(SCRATCH "/kept/beginning.tmp", "tokenizer.json", "half", 4); /* nor is that another one's */
	assert_ok(m1_fit(&o, &err));
	assert_int_equal(files_in(o.out), 3);
}

/* Another format of the base would be another training. */
static void
test_goes_on_with_format(void **state)
{
	const m1_adapter_plan plan = m1_adapter_default_plan();
	watched w;
	m1_fit_options o = usual(SCRATCH "/adapter", &w);
	m1_error err;

	(void) state;
	o.config = NULL;
	o.model = SCRATCH "/all";
	o.plan = &plan;
	o.weight_format = M1_WEIGHTS_Q8_0;
	w.stop_after = 2;
	assert_int_equal(m1_fit(&o, &err), M1_E_CANCELLED);
	o.resume = true;
	w.stop_after = 0;
	o.weight_format = M1_WEIGHTS_STORED;
	assert_refused(&o, M1_E_INVALID_ARGUMENT, "it has begun with another format of the weights");
	o.weight_format = M1_WEIGHTS_Q8_0;
	assert_ok(m1_fit(&o, &err));
}

static void
test_two_at_once(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/all", &w);
	m1_error err;
	const int fd = open(o.out, O_RDONLY | O_DIRECTORY);

	(void) state;
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	o.resume = true;
	assert_refused(&o, M1_E_UNAVAILABLE, "another training is at work in");
	assert_int_equal(close(fd), 0);
	assert_ok(m1_fit(&o, &err));
}

static void
test_damaged(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/damaged", &w);
	m1_buf file;
	m1_error err;

	(void) state;
	assert_ok(m1_fit(&o, &err));
	o.resume = true;
	file = file_of(SCRATCH "/damaged", M1_TRAINING_FILE);
	memcpy(memmem(file.data, file.len, "lm_head.weight.m", 16), "xx_head.weight.m", 16);
	test_write_file(SCRATCH "/damaged", M1_TRAINING_FILE, file.data, file.len);
	assert_refused(&o, M1_E_NOT_FOUND, "tensor \"lm_head.weight.m\" is missing");
	memcpy(memmem(file.data, file.len, "\\\"epoch\\\"", 9), "\\\"xxxxx\\\"", 9);
	test_write_file(SCRATCH "/damaged", M1_TRAINING_FILE, file.data, file.len);
	assert_refused(&o, M1_E_CORRUPT, "does not tell the training's place");
	test_write_file(SCRATCH "/damaged", M1_TRAINING_FILE, file.data, file.len / 2);
	assert_refused(&o, M1_E_CORRUPT, "lies beyond the end of the file");
	m1_buf_free(&file);
}

static void
test_full_disk(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/full", &w);
	struct rlimit limit;
	struct rlimit small;
	m1_buf before, after;
	m1_error err;

	(void) state;
	remove_folder(SCRATCH "/full");
	w.stop_after = 2;
	assert_int_equal(m1_fit(&o, &err), M1_E_CANCELLED);
	before = file_of(SCRATCH "/full", M1_TRAINING_FILE);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){20000, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	o.resume = true;
	o.save_every = 2;
	w = (watched){0};
	assert_int_equal(m1_fit(&o, &err), M1_E_IO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_non_null(strstr(err.message, "no room for"));
	assert_int_equal(w.steps, STEPS - 2); /* it went on, and tried again */
	assert_int_equal(w.warnings, 2);
	after = file_of(SCRATCH "/full", M1_TRAINING_FILE);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	assert_int_equal(files_in(SCRATCH "/full"), 3);
	w = (watched){0};
	assert_ok(m1_fit(&o, &err));
	assert_same_file(SCRATCH "/all", SCRATCH "/full", M1_MODEL_FILE);
	m1_buf_free(&before);
	m1_buf_free(&after);
}

/* There is room for the model, and none for what the training goes on from: that stays, and goes on to the same bits. */
static void
test_full_disk_at_second_file(void **state)
{
	watched w;
	m1_fit_options o = usual(SCRATCH "/half", &w);
	struct rlimit limit;
	struct rlimit small;
	m1_buf model, before, after;
	m1_error err;

	(void) state;
	w.stop_after = 2;
	assert_int_equal(m1_fit(&o, &err), M1_E_CANCELLED);
	model = file_of(o.out, M1_MODEL_FILE);
	before = file_of(o.out, M1_TRAINING_FILE);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){model.len + 1000, limit.rlim_max};
	assert_true(small.rlim_cur < before.len);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	o.resume = true;
	w = (watched){0};
	assert_int_equal(m1_fit(&o, &err), M1_E_IO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_non_null(strstr(err.message, M1_TRAINING_FILE));
	after = file_of(o.out, M1_TRAINING_FILE);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	assert_int_equal(files_in(o.out), 3);
	assert_ok(m1_fit(&o, &err));
	assert_same_file(SCRATCH "/all", o.out, M1_MODEL_FILE);
	assert_same_file(SCRATCH "/all", o.out, M1_TRAINING_FILE);
	m1_buf_free(&model);
	m1_buf_free(&before);
	m1_buf_free(&after);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learns),
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_interrupted_at_once),
		cmocka_unit_test(test_of_a_model),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_numbers),
		cmocka_unit_test(test_no_numbers_without_checkpoint),
		cmocka_unit_test(test_never_numbers),
		cmocka_unit_test(test_force),
		cmocka_unit_test(test_left_behind),
		cmocka_unit_test(test_goes_on_with_format),
		cmocka_unit_test(test_two_at_once),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_full_disk_at_second_file),
	};

	return cmocka_run_group_tests(tests, write_inputs, NULL);
}
