/* learn_tokenizer.c - see learn_tokenizer.h. */
#define _GNU_SOURCE /* mkdir */
#include "train/learn_tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "files/new_file.h"
#include "files/regular.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_write.h"
#include "train/examples.h"

#define BYTES 256
#define MOST_TOKENS (1 << 24)
#define PROGRESS_EVERY 65536 /* words */

typedef struct learner
{
	const m1_learn_tokenizer_options *o;
	m1_added_token *added;
	size_t n_added;
	m1_tokenizer *bytes; /* shows where a conversation has control tokens */
	m1_pretokenizer *pretokenizer;
	m1_bpe_trainer *trainer;
	m1_buf run; /* text between two control tokens */
	size_t words;
	bool cancelled;
	m1_new_file json, config;
} learner;

/* ---- words ---- */

static bool
has_digit(m1_slice word)
{
	for (size_t i = 0; i < word.len; i++)
		if (word.data[i] >= '0' && word.data[i] <= '9')
			return true;
	return false;
}

static bool
count_word(void *context, m1_slice word)
{
	learner *l = context;
	const m1_learn_tokenizer_options *o = l->o;

	if (l->words++ % PROGRESS_EVERY == 0 && o->progress != NULL)
		l->cancelled |= !o->progress(o->context, 0, o->vocab_size);
	if (l->cancelled)
		return false;
	return (o->single_digits && has_digit(word)) || m1_bpe_trainer_add(l->trainer, word);
}

static m1_status
count_run(learner *l, m1_error *err)
{
	m1_status status = M1_OK;

	if (l->run.failed)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a text");
	if (l->run.len > 0)
		status = m1_pretokenize(l->pretokenizer, (m1_slice){l->run.data, l->run.len}, count_word, l, NULL, err);
	l->run.len = 0;
	return l->cancelled ? m1_fail(err, M1_E_CANCELLED, "cancelled: no tokenizer was written") : status;
}

/* ---- files ---- */

/* A sequence of bytes and control tokens. */
static m1_status
count_example(void *context, const int32_t *ids, const float *weights, size_t n, m1_error *err)
{
	learner *l = context;

	(void) weights;
	for (size_t i = 0; i < n; i++)
	{
		const char byte = (char) ids[i];
		m1_status status;

		if (ids[i] < BYTES)
			m1_buf_append(&l->run, &byte, 1);
		else if ((status = count_run(l, err)) != M1_OK)
			return status;
	}
	return count_run(l, err);
}

static m1_status
count_lines(learner *l, const char *path, m1_error *err)
{
	const m1_example_rules rules = {
		.tokenizer = l->bytes,
		.max_tokens = SIZE_MAX,
		.system = l->o->system,
		.prompt_weight = 1.0f,
		.answer_weight = 1.0f,
	};
	m1_example_counts counts = {0};

	return m1_examples_each(path, &rules, count_example, l, &counts, err);
}

static m1_status
count_plain(learner *l, const char *path, m1_error *err)
{
	FILE *file = fopen(path, "rbe");
	m1_status status;

	if (file == NULL)
		return m1_fail(err, errno == ENOENT ? M1_E_NOT_FOUND : M1_E_IO, "could not open \"%.150s\": %s", path,
					   strerror(errno));
	status = m1_read_rest(file, path, &l->run, err);
	fclose(file);
	if (status != M1_OK)
		return status;
	if (!m1_utf8_valid((m1_slice){l->run.data, l->run.len}))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" is not valid UTF-8", path);
	return count_run(l, err);
}

static m1_status
count_file(learner *l, const char *path, m1_error *err)
{
	const size_t len = strlen(path);

	return len > 6 && strcmp(path + len - 6, ".jsonl") == 0 ? count_lines(l, path, err) : count_plain(l, path, err);
}

/* ---- all of it ---- */

static m1_status
list_added(learner *l, m1_error *err)
{
	const m1_learn_tokenizer_options *o = l->o;

	if ((l->added = calloc(m1_n_usual_added_tokens + o->n_added, sizeof *l->added)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the vocabulary");
	for (size_t i = 0; i < m1_n_usual_added_tokens; i++)
		l->added[l->n_added++] = m1_usual_added_tokens[i];
	for (size_t i = 0; i < o->n_added; i++)
		l->added[l->n_added++] = o->added[i];
	if (o->vocab_size < BYTES + (int) l->n_added || o->vocab_size > MOST_TOKENS)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "a vocabulary of %d tokens is not possible", o->vocab_size);
		m1_error_detail(err, "It needs 256 for the bytes and %zu for control tokens and tags; %d are the most.",
						l->n_added, MOST_TOKENS);
		return M1_E_INVALID_ARGUMENT;
	}
	return M1_OK;
}

static m1_status
create_file(learner *l, const char *name, m1_new_file *file, m1_error *err)
{
	char path[M1_MAX_PATH];

	if (snprintf(path, sizeof path, "%s/%s", l->o->out, name) >= (int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the folder to write is too long");
	return m1_new_file_create(path, l->o->replace, file, err);
}

/* Before the work: whether the files can be written. */
static m1_status
prepare(learner *l, m1_error *err)
{
	m1_status status;

	if ((status = list_added(l, err)) != M1_OK ||
		(status = m1_tokenizer_of_bytes(l->added, l->n_added, &l->bytes, err)) != M1_OK ||
		(status = m1_pretokenizer_create(m1_pretokenizer_o200k, &l->pretokenizer, err)) != M1_OK)
		return status;
	if ((l->trainer = m1_bpe_trainer_create()) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the words");
	if (mkdir(l->o->out, 0777) != 0 && errno != EEXIST)
		return m1_fail(err, M1_E_IO, "could not make \"%.150s\": %s", l->o->out, strerror(errno));
	if ((status = create_file(l, "tokenizer.json", &l->json, err)) != M1_OK)
		return status;
	return create_file(l, "tokenizer_config.json", &l->config, err);
}

static m1_status
write_files(learner *l, const m1_bpe_learned *learned, m1_error *err)
{
	m1_buf json = {0};
	m1_buf config = {0};
	m1_status status;

	if ((status = m1_tokenizer_json_text(learned, l->added, l->n_added, &json, err)) == M1_OK &&
		(status = m1_tokenizer_config_text(&config, err)) == M1_OK &&
		(status = m1_new_file_write(&l->json, json.data, json.len, err)) == M1_OK &&
		(status = m1_new_file_write(&l->config, config.data, config.len, err)) == M1_OK &&
		(status = m1_new_file_finish(&l->config, err)) == M1_OK)
		status = m1_new_file_finish(&l->json, err);
	m1_buf_free(&json);
	m1_buf_free(&config);
	return status;
}

static m1_status
run(learner *l, int *tokens, m1_error *err)
{
	m1_bpe_learned learned = {0};
	m1_status status = prepare(l, err);

	for (int i = 0; i < l->o->n_files && status == M1_OK; i++)
		status = count_file(l, l->o->files[i], err);
	if (status == M1_OK)
		status = m1_bpe_trainer_learn(l->trainer, l->o->vocab_size - (int) l->n_added, l->o->progress, l->o->context,
									  &learned, err);
	if (status == M1_OK)
		status = write_files(l, &learned, err);
	*tokens = learned.n_tokens + (int) l->n_added;
	m1_bpe_learned_free(&learned);
	return status;
}

m1_status
m1_learn_tokenizer(const m1_learn_tokenizer_options *options, int *tokens, m1_error *err)
{
	learner l = {.o = options, .json.fd = -1, .config.fd = -1};
	m1_status status = run(&l, tokens, err);

	m1_new_file_drop(&l.json);
	m1_new_file_drop(&l.config);
	m1_bpe_trainer_free(l.trainer);
	m1_pretokenizer_free(l.pretokenizer);
	m1_tokenizer_close(l.bytes);
	m1_buf_free(&l.run);
	free(l.added);
	return status;
}
