/*
 * test_bpe_train.c - tokenizers that are learnt: merges worked out by hand, the same ones as of a plain implementation,
 * files that are read back, and what is refused.
 */
#define _GNU_SOURCE /* mkdir */
#include "testing.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files/jsonfile.h"
#include "text/bpe_train.h"
#include "text/tokenizer_write.h"
#include "train/learn_tokenizer.h"

#define SCRATCH TEST_BUILD "/test_bpe_train"
#define OUT SCRATCH "/out"

/* ---- merges ---- */

typedef struct counted
{
	const char *word;
	int times;
} counted;

static m1_bpe_learned
learn(const counted *words, size_t n, int tokens)
{
	m1_bpe_trainer *t = m1_bpe_trainer_create();
	m1_bpe_learned learned;
	m1_error err;

	assert_non_null(t);
	for (size_t i = 0; i < n; i++)
		for (int k = 0; k < words[i].times; k++)
			assert_true(m1_bpe_trainer_add(t, m1_slice_of(words[i].word)));
	assert_ok(m1_bpe_trainer_learn(t, tokens, NULL, NULL, &learned, &err));
	m1_bpe_trainer_free(t);
	return learned;
}

static void
assert_merges(const m1_bpe_learned *l, const int32_t (*wanted)[2], int n)
{
	assert_int_equal(l->n_merges, n);
	for (int i = 0; i < n; i++)
		if (l->pairs[i][0] != wanted[i][0] || l->pairs[i][1] != wanted[i][1])
			fail_msg("merge %d is %d %d", i, l->pairs[i][0], l->pairs[i][1]);
}

static void
assert_token(const m1_bpe_learned *l, int32_t id, const char *text)
{
	const m1_slice token = m1_bpe_learned_token(l, id);

	assert_int_equal(token.len, strlen(text));
	assert_memory_equal(token.data, text, token.len);
}

static void
test_by_hand(void **state)
{
	/* aa 4 times, as pairs overlap; then ab before (aa)a, both twice; then (aa)(ab); the rest is there once */
	static const counted one[] = {{"aaabdaaabac", 1}};
	static const int32_t one_merges[][2] = {{'a', 'a'}, {'a', 'b'}, {256, 257}};
	/* ug 20, un 16, hug 15, pun 12, then pug before hugs, both 5 times, bun 4 */
	static const counted several[] = {{"hug", 10}, {"pug", 5}, {"pun", 12}, {"bun", 4}, {"hugs", 5}};
	static const int32_t several_merges[][2] = {{'u', 'g'}, {'u', 'n'}, {'h', 256}, {'p', 257},
												{'p', 256}, {258, 's'}, {'b', 257}};
	m1_bpe_learned l = learn(one, 1, 1000);

	(void) state;
	assert_merges(&l, one_merges, 3);
	assert_int_equal(l.n_tokens, 259);
	assert_token(&l, 'a', "a");
	assert_token(&l, 258, "aaab");
	m1_bpe_learned_free(&l);

	l = learn(several, 5, 1000);
	assert_merges(&l, several_merges, 7);
	assert_token(&l, 261, "hugs");
	m1_bpe_learned_free(&l);

	l = learn(several, 5, 259); /* as many as were asked for */
	assert_merges(&l, several_merges, 3);
	m1_bpe_learned_free(&l);

	l = learn(several, 0, 300); /* of nothing, nothing */
	assert_merges(&l, several_merges, 0);
	assert_int_equal(l.n_tokens, 256);
	m1_bpe_learned_free(&l);
}

/* ---- a plain implementation: counts all pairs anew for every merge ---- */

#define PLAIN_WORDS 40
#define PLAIN_LENGTH 12
#define PLAIN_TOKENS 512

typedef struct plain
{
	int32_t words[PLAIN_WORDS][PLAIN_LENGTH];
	int lengths[PLAIN_WORDS];
	int times[PLAIN_WORDS];
	char tokens[PLAIN_TOKENS][PLAIN_LENGTH + 1];
	int n_tokens;
	int32_t merges[4096][2];
	int n_merges;
	int counts[PLAIN_TOKENS][PLAIN_TOKENS];
} plain;

static bool
plain_choose(plain *p, int32_t *left, int32_t *right)
{
	int best = 1;

	memset(p->counts, 0, sizeof p->counts);
	for (int w = 0; w < PLAIN_WORDS; w++)
		for (int i = 0; i + 1 < p->lengths[w]; i++)
			p->counts[p->words[w][i]][p->words[w][i + 1]] += p->times[w];
	for (int a = 0; a < p->n_tokens; a++)
		for (int b = 0; b < p->n_tokens; b++)
			if (p->counts[a][b] > best)
			{
				best = p->counts[a][b];
				*left = a;
				*right = b;
			}
	return best > 1;
}

static void
plain_merge(plain *p, int32_t left, int32_t right)
{
	char joined[2 * PLAIN_LENGTH + 1];
	int id = 0;
	bool merged = false;

	snprintf(joined, sizeof joined, "%s%s", p->tokens[left], p->tokens[right]);
	while (id < p->n_tokens && strcmp(p->tokens[id], joined) != 0)
		id++;
	if (id == p->n_tokens)
		memcpy(p->tokens[p->n_tokens++], joined, PLAIN_LENGTH + 1);
	for (int i = 0; i < p->n_merges; i++)
		merged |= p->merges[i][0] == left && p->merges[i][1] == right;
	if (!merged)
	{
		p->merges[p->n_merges][0] = left;
		p->merges[p->n_merges++][1] = right;
	}
	for (int w = 0; w < PLAIN_WORDS; w++)
	{
		int n = 0;

		for (int i = 0; i < p->lengths[w]; i++)
		{
			const bool pair = i + 1 < p->lengths[w] && p->words[w][i] == left && p->words[w][i + 1] == right;

			p->words[w][n++] = pair ? id : p->words[w][i];
			i += pair;
		}
		p->lengths[w] = n;
	}
}

static void
test_like_plain(void **state)
{
	static plain p;
	uint64_t seed = 7;

	(void) state;
	for (int round = 0; round < 30; round++)
	{
		char text[PLAIN_LENGTH + 1];
		m1_bpe_trainer *t = m1_bpe_trainer_create();
		m1_bpe_learned l;
		m1_error err;
		int32_t left, right;

		memset(&p, 0, sizeof p);
		for (int b = 0; b < 256; b++)
			p.tokens[b][0] = (char) b;
		p.n_tokens = 256;
		for (int w = 0; w < PLAIN_WORDS; w++)
		{
			p.lengths[w] = 1 + (int) (test_random(&seed) % PLAIN_LENGTH);
			p.times[w] = 1 + (int) (test_random(&seed) % 3);
			for (int i = 0; i < p.lengths[w]; i++)
				text[i] = (char) (p.words[w][i] = 'a' + (int) (test_random(&seed) % (unsigned) (2 + round % 3)));
			for (int k = 0; k < p.times[w]; k++)
				assert_true(m1_bpe_trainer_add(t, (m1_slice){text, (size_t) p.lengths[w]}));
		}
		while (p.n_tokens < 400 && plain_choose(&p, &left, &right))
			plain_merge(&p, left, right);
		assert_ok(m1_bpe_trainer_learn(t, 400, NULL, NULL, &l, &err));
		assert_int_equal(l.n_tokens, p.n_tokens);
		assert_merges(&l, (const int32_t(*)[2]) p.merges, p.n_merges);
		m1_bpe_learned_free(&l);
		m1_bpe_trainer_free(t);
	}
}

/* ---- files ---- */

static const char lines[] =
	"{\"messages\": [{\"role\": \"user\", \"content\": \"the old house <end_of_sentence>\"}, {\"role\": \"assistant\", "
	"\"content\": \"<think>\\nthe house\\n</think>\\n\\nthe old house\"}]}\n"
	"\n"
	"{\"prompt\": \"the new house 12 12\", \"answer\": \"the house 12\", \"reasoning\": \"\"}\n"
	"{\"text\": \"the houses of the town\"}\n";
static const char plain_text[] = "the mouse in the house, \xc3\xa9t\xc3\xa9 \xc3\xa9t\xc3\xa9\n";

static m1_status
learn_files(const char *const *files, int n, int vocab, bool single_digits, m1_error *err)
{
	const m1_added_token added[] = {{"<tool>", true}};
	const m1_learn_tokenizer_options options = {
		.files = files,
		.n_files = n,
		.out = OUT,
		.replace = true,
		.vocab_size = vocab,
		.added = added,
		.n_added = 1,
		.single_digits = single_digits,
		.system = "the house",
	};
	int tokens;
	m1_status status;

	test_write_file(SCRATCH, "a.jsonl", lines, sizeof lines - 1);
	test_write_file(SCRATCH, "b.txt", plain_text, sizeof plain_text - 1);
	status = m1_learn_tokenizer(&options, &tokens, err);
	if (status == M1_OK)
		assert_true(tokens <= vocab);
	return status;
}

static m1_buf
file_of_out(const char *name)
{
	char path[200];
	m1_buf text = {0};
	FILE *f;
	int c;

	snprintf(path, sizeof path, OUT "/%s", name);
	f = fopen(path, "rb");
	assert_non_null(f);
	while ((c = fgetc(f)) != EOF)
		m1_buf_append(&text, &(char){(char) c}, 1);
	fclose(f);
	assert_non_null(m1_buf_cstr(&text));
	return text;
}

static bool
has_token(const m1_tokenizer *t, const char *text)
{
	for (int32_t id = 0; id < 300; id++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, id);

		if (piece.len == strlen(text) && memcmp(piece.data, text, piece.len) == 0)
			return true;
	}
	return false;
}

static void
test_files(void **state)
{
	static const char *const files[] = {SCRATCH "/a.jsonl", SCRATCH "/b.txt"};
	static const char *const other_way[] = {SCRATCH "/b.txt", SCRATCH "/a.jsonl"};
	static const char text[] = "the old h\xc3\xa9use <think> <end_of_sentence> 12";
	m1_tokenizer *t;
	m1_buf first, again, back = {0};
	m1_ids ids = {0};
	m1_error err;

	(void) state;
	assert_ok(learn_files(files, 2, 290, false, &err));
	assert_ok(m1_tokenizer_open(OUT, 290, &t, &err));
	assert_true(has_token(t, " house"));
	assert_true(has_token(t, "12"));
	assert_true(m1_tokenizer_added_id(t, "<tool>") > 256);
	assert_true(m1_tokenizer_is_special(t, m1_tokenizer_eos(t)));
	assert_false(m1_tokenizer_is_special(t, m1_tokenizer_added_id(t, "<think>")));
	/* markup is part of what is learnt, but control tokens are not */
	assert_true(has_token(t, "user"));
	assert_int_equal(m1_tokenizer_piece(t, m1_tokenizer_added_id(t, "<end_of_sentence>")).len, 17);
	assert_ok(m1_tokenizer_encode(t, m1_slice_of(text), M1_ADDED_NONE, &ids, NULL, NULL, &err));
	assert_ok(m1_tokenizer_decode(t, ids.data, ids.len, &back, NULL, &err));
	assert_int_equal(back.len, sizeof text - 1);
	assert_memory_equal(back.data, text, back.len);
	assert_true(ids.len < sizeof text - 1 - 8);
	m1_tokenizer_close(t);

	first = file_of_out("tokenizer.json");
	assert_ok(learn_files(other_way, 2, 290, false, &err));
	again = file_of_out("tokenizer.json");
	assert_string_equal(first.data, again.data);

	assert_ok(learn_files(files, 2, 290, true, &err));
	assert_ok(m1_tokenizer_open(OUT, 290, &t, &err));
	assert_false(has_token(t, "12"));
	m1_tokenizer_close(t);
	m1_buf_free(&first);
	m1_buf_free(&again);
	m1_buf_free(&back);
	m1_ids_free(&ids);
}

/* Others read these files: the fields are those of the bundled model's. */
static void
test_format(void **state)
{
	static const char *const files[] = {SCRATCH "/b.txt"};
	static const char *const same[] = {"version",		"truncation",	  "padding", "normalizer",
									   "pre_tokenizer", "post_processor", "decoder"};
	json_t *ours, *theirs, *model;
	m1_error err;

	(void) state;
	assert_ok(learn_files(files, 1, 270, false, &err));
	assert_ok(m1_json_load_object(OUT, "tokenizer.json", &ours, &err));
	assert_ok(m1_json_load_object("models/m1-nano", "tokenizer.json", &theirs, &err));
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (!json_equal(json_object_get(ours, same[i]), json_object_get(theirs, same[i])))
			fail_msg("%s differs", same[i]);
	model = json_object_get(ours, "model");
	assert_string_equal(json_string_value(json_object_get(model, "type")), "BPE");
	assert_int_equal(json_object_size(json_object_get(model, "vocab")) +
						 json_array_size(json_object_get(ours, "added_tokens")),
					 270);
	assert_int_equal(json_array_size(json_object_get(model, "merges")), 270 - 256 - 7);
	json_decref(ours);
	json_decref(theirs);
	assert_ok(m1_json_load_object(OUT, "tokenizer_config.json", &ours, &err));
	assert_ok(m1_json_load_object("models/m1-nano", "tokenizer_config.json", &theirs, &err));
	assert_string_equal(json_string_value(json_object_get(ours, "chat_template")),
						json_string_value(json_object_get(theirs, "chat_template")));
	json_decref(ours);
	json_decref(theirs);
}

static void
assert_refused(const char *name, const char *data, int vocab, m1_status wanted, const char *says)
{
	char path[200];
	const char *const files[] = {path};
	m1_error err;
	m1_status status;

	if (data != NULL)
		test_write_file(SCRATCH, name, data, strlen(data));
	snprintf(path, sizeof path, SCRATCH "/%s", name);
	status = learn_files(files, 1, vocab, false, &err);
	if (status != wanted || strstr(err.message, says) == NULL)
		fail_msg("%s: \"%s\" where \"%s\" was expected", m1_status_name(status), err.message, says);
}

static bool
halt(void *context, int tokens, int wanted)
{
	(void) context;
	(void) tokens;
	(void) wanted;
	return false;
}

static void
test_refused(void **state)
{
	static const char *const files[] = {SCRATCH "/b.txt"};
	m1_learn_tokenizer_options options = {.files = files, .n_files = 1, .out = OUT, .vocab_size = 300};
	m1_buf before, after;
	int tokens;
	m1_error err;

	(void) state;
	assert_ok(learn_files(files, 1, 270, false, &err));
	before = file_of_out("tokenizer.json");
	assert_refused("none.txt", NULL, 300, M1_E_NOT_FOUND, "none.txt");
	assert_refused("bad.txt", "caf\xe9", 300, M1_E_INVALID_ARGUMENT, "bad.txt\" is not valid UTF-8");
	assert_refused("bad.jsonl", "{\"text\": \"a\"}\n\n{\"text\": 1}\n", 300, M1_E_INVALID_ARGUMENT,
				   "bad.jsonl, line 3: \"text\" is not a text");
	assert_refused("bad.jsonl", "{\"ids\": [1, 2]}\n", 300, M1_E_INVALID_ARGUMENT, "line 1: \"ids\" is no text");
	assert_refused("b.txt", NULL, 262, M1_E_INVALID_ARGUMENT, "a vocabulary of 262 tokens is not possible");
	assert_int_equal(m1_learn_tokenizer(&options, &tokens, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "exists already"));
	options.replace = true;
	options.progress = halt;
	assert_int_equal(m1_learn_tokenizer(&options, &tokens, &err), M1_E_CANCELLED);
	after = file_of_out("tokenizer.json");
	assert_string_equal(before.data, after.data);
	m1_buf_free(&before);
	m1_buf_free(&after);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_hand), cmocka_unit_test(test_like_plain), cmocka_unit_test(test_files),
		cmocka_unit_test(test_format),	cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
