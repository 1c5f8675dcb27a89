/*
 * tokenizer_file.c - tokenizer.json and merges.txt: one that can be opened gives every text back.
 */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include "lib/fuzz.h"

#include <jansson.h>
#include <string.h>

#include "lib/regex_text.h"
#include "lib/schema_text.h"
#include "text/tokenizer_internal.h"

#define ROWS 600
#define MERGED 256 /* tokens of merges are numbered from here */

/* ---- tokenizer.json ---- */

static char *
spelled(m1_slice bytes)
{
	m1_buf out = {0};

	fuzz_check(m1_tokenizer_spell(bytes, &out), "out of memory");
	return m1_buf_cstr(&out);
}

/* The bytes, and then merges of tokens that are there already. */
static void
put_model(json_t *model, fuzz_input *in)
{
	json_t *vocab = json_object();
	json_t *merges = json_array();
	char *texts[MERGED + 64];
	int n = MERGED;

	for (int b = 0; b < MERGED; b++)
		json_object_set_new(vocab, texts[b] = spelled((m1_slice){&(char){(char) b}, 1}), json_integer(b));
	for (uint32_t left = fuzz_below(in, 40); left > 0; left--)
	{
		const char *a = texts[fuzz_below(in, 2) ? 97 + fuzz_below(in, 3) : fuzz_below(in, (uint32_t) n)];
		const char *b = texts[fuzz_below(in, 2) ? 97 + fuzz_below(in, 3) : fuzz_below(in, (uint32_t) n)];
		json_t *joined = json_sprintf("%s%s", a, b);

		if (json_object_get(vocab, json_string_value(joined)) == NULL)
		{
			texts[n] = strdup(json_string_value(joined));
			json_object_set_new(vocab, texts[n], json_integer(n));
			n++;
		}
		json_array_append_new(merges, fuzz_below(in, 2) ? json_sprintf("%s %s", a, b) : json_pack("[s, s]", a, b));
		json_decref(joined);
	}
	while (n > 0)
		free(texts[--n]);
	json_object_set_new(model, "type", json_string("BPE"));
	json_object_set_new(model, "vocab", vocab);
	json_object_set_new(model, "merges", merges);
}

static json_t *
added_tokens(fuzz_input *in)
{
	static const char *const contents[] = {"<think>", "</think>", "a", "ab", "<x", "\xC3\xA4", "", NULL};
	json_t *list = json_array();

	json_array_append_new(list,
						  json_pack("{s:i, s:s, s:b}", "id", ROWS - 1, "content", "<end_of_sentence>", "special", 1));
	for (uint32_t n = fuzz_below(in, 4); n > 0; n--)
		json_array_append_new(list,
							  json_pack("{s:i, s:s, s:b}", "id", 400 + (int) fuzz_below(in, ROWS - 400), "content",
										fuzz_one_of(in, contents), "special", (int) fuzz_below(in, 2)));
	return list;
}

static m1_buf
make_json(fuzz_input *in)
{
	static const char *const keys[] = {"normalizer", "pre_tokenizer", "model", "added_tokens", "post_processor", NULL};
	regex_text pattern = regex_text_make(in, 2);
	json_t *root = json_pack("{s:{}, s:{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s, s:b}]}}", "model", "pre_tokenizer", "type",
							 "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex", pattern.text.data,
							 "behavior", "Isolated", "type", "ByteLevel", "use_regex", 0);

	put_model(json_object_get(root, "model"), in);
	json_object_set_new(root, "added_tokens", added_tokens(in));
	if (fuzz_below(in, 8) == 7)
		json_object_set_new(root, fuzz_one_of(in, keys), json_value_make(in, 3));
	m1_buf_free(&pattern.text);
	return json_text_of(root);
}

/* ---- what it does ---- */

static void
check_text(const m1_tokenizer *t, m1_slice text, m1_added_tokens added)
{
	m1_ids ids = {0};
	m1_ids ends = {0};
	m1_buf back = {0};
	m1_error err;
	m1_status status = m1_tokenizer_encode(t, text, added, &ids, &ends, NULL, &err);

	/* the pattern may take too long */
	if (status != M1_OK)
		fuzz_check(status == M1_E_UNSUPPORTED, "%s", err.message);
	else
	{
		fuzz_check(ids.len == ends.len && (ids.len == 0 || (size_t) ends.data[ids.len - 1] == text.len), "ends");
		fuzz_check(m1_tokenizer_decode(t, ids.data, ids.len, &back, NULL, &err) == M1_OK, "%s", err.message);
		fuzz_check(added == M1_ADDED_ALL ||
					   (back.len == text.len && (text.len == 0 || memcmp(back.data, text.data, text.len) == 0)),
				   "\"%.*s\" became \"%.*s\"", (int) text.len, text.data, (int) back.len, back.data);
	}
	m1_ids_free(&ids);
	m1_ids_free(&ends);
	m1_buf_free(&back);
}

static void
check_open(fuzz_input *in)
{
	m1_tokenizer *t;
	m1_error err;
	m1_status status = m1_tokenizer_open(fuzz_folder(), ROWS, &t, &err);

	if (status != M1_OK)
		fuzz_check_error(status, &err);
	else
	{
		m1_buf text = fuzz_text(fuzz_rest(in));

		for (int added = M1_ADDED_NONE; added <= M1_ADDED_ALL; added++)
			check_text(t, (m1_slice){text.data, text.len}, (m1_added_tokens) added);
		m1_buf_free(&text);
		m1_tokenizer_close(t);
	}
}

void
fuzz_one(fuzz_input *in)
{
	const uint32_t kind = fuzz_below(in, 8);

	fuzz_remove_file("tokenizer.json");
	fuzz_remove_file("merges.txt");
	if (kind == 7)
		fuzz_write_file("merges.txt", fuzz_rest(in));
	else if (kind == 6)
		fuzz_write_file("tokenizer.json", fuzz_rest(in));
	else
	{
		m1_buf text = make_json(in);

		fuzz_write_file("tokenizer.json", (m1_slice){text.data, text.len});
		m1_buf_free(&text);
	}
	check_open(in);
}
