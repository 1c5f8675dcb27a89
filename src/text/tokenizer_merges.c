/*
 * tokenizer_merges.c - reads merges.txt, where the rule of the released model gives the ids: a byte is its own id,
 * merge i makes id 256 + i, added tokens follow.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "files/regular.h"
#include "text/markup.h"
#include "text/tokenizer_internal.h"

#define FILE_NAME "merges.txt"
#define FIRST_MERGE 256
#define FIRST_ADDED 200000
#define N_MERGES (FIRST_ADDED - FIRST_MERGE)
#define LINE_BYTES 4096 /* far above the longest of the released file */

/* Added tokens of the released tokenizer, from FIRST_ADDED on; NULL marks a gap. */
static const char *const released_added[] = {
	"<pad>",
	"<fim_prefix>",
	"<fim_middle>",
	"<fim_suffix>",
	"<fim_pad>",
	"<reponame>",
	"<filename>",
	"<gh_stars>",
	"<issue_start>",
	"<issue_comment>",
	"<issue_closed>",
	"<jupyter_start>",
	"<jupyter_text>",
	"<jupyter_code>",
	"<jupyter_output>",
	"<empty_output>",
	"<commit_before>",
	"<commit_msg>",
	"<commit_after>",
	M1_TURN_OPEN,
	M1_TURN_CLOSE,
	M1_DOCUMENT_CLOSE,
	"<function_call>",
	"<code_interpreter>",
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	M1_DOCUMENT_OPEN,
};

static m1_status
add_token(m1_tokenizer *t, m1_token_index *index, int32_t id, m1_slice bytes, m1_error *err)
{
	m1_status status = m1_tokenizer_set(t, id, bytes, false, false, err);

	if (status == M1_OK)
		*m1_token_index_slot(t, index, bytes) = id;
	return status;
}

static m1_status
add_merge(m1_tokenizer *t, m1_token_index *index, int32_t i, m1_slice line, m1_buf *bytes, m1_error *err)
{
	size_t left_len;
	int32_t left, right;
	m1_status status;

	if (!m1_tokenizer_unspell_merge(line, bytes, &left_len))
		return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %d is not a pair of tokens", i);
	left = *m1_token_index_slot(t, index, (m1_slice){bytes->data, left_len});
	right = *m1_token_index_slot(t, index, (m1_slice){bytes->data + left_len, bytes->len - left_len});
	if (left < 0 || right < 0)
		return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %d names a token that no earlier merge makes", i);
	status = add_token(t, index, FIRST_MERGE + i, (m1_slice){bytes->data, bytes->len}, err);
	if (status == M1_OK && !m1_bpe_add(t->bpe, i, left, right, FIRST_MERGE + i))
		status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %d is there twice", i);
	return status;
}

/* The file holds all merges, one a line, maybe after a line that tells a version. Fewer: it was cut short. */
static m1_status
read_lines(m1_tokenizer *t, m1_token_index *index, FILE *file, m1_error *err)
{
	char line[LINE_BYTES];
	m1_buf bytes = {0};
	m1_status status = M1_OK;
	int32_t n = 0;

	for (bool first = true; status == M1_OK && fgets(line, sizeof line, file) != NULL; first = false)
	{
		size_t len = strcspn(line, "\n");

		if (first && strncmp(line, "#version", 8) == 0)
			continue;
		if (line[len] != '\n' && !feof(file))
			status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %d is too long or holds NUL", n);
		else if (n == N_MERGES)
			status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": more than %d merges", N_MERGES);
		else
			status = add_merge(t, index, n++, (m1_slice){line, len}, &bytes, err);
	}
	if (status == M1_OK && ferror(file))
		status = m1_fail(err, M1_E_IO, "could not read " FILE_NAME ": %s", strerror(errno));
	else if (status == M1_OK && n < N_MERGES)
		status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": ends after %d of %d merges", n, N_MERGES);
	m1_buf_free(&bytes);
	return status;
}

static m1_status
load_file(m1_tokenizer *t, m1_token_index *index, FILE *file, m1_error *err)
{
	m1_status status = M1_OK;

	for (int b = 0; b < 256 && status == M1_OK; b++)
	{
		char byte = (char) b;

		status = add_token(t, index, b, (m1_slice){&byte, 1}, err);
	}
	if (status == M1_OK)
		status = read_lines(t, index, file, err);
	for (size_t i = 0; i < sizeof released_added / sizeof *released_added && status == M1_OK; i++)
		if (released_added[i] != NULL)
			status = m1_tokenizer_set(t, FIRST_ADDED + (int32_t) i, m1_slice_of(released_added[i]), true, true, err);
	return status;
}

m1_status
m1_tokenizer_load_merges(m1_tokenizer *t, const char *dir, m1_error *err)
{
	m1_token_index index = {0};
	FILE *file;
	m1_status status;

	t->file = FILE_NAME;
	if ((status = m1_regular_fopen(dir, FILE_NAME, &file, err)) != M1_OK)
		return status;
	status = m1_pretokenizer_create(m1_pretokenizer_o200k, &t->pretokenizer, err);
	t->bpe = m1_bpe_create(N_MERGES);
	if (status == M1_OK && (t->bpe == NULL || !m1_token_index_init(&index, FIRST_ADDED)))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the merges");
	if (status == M1_OK)
		status = load_file(t, &index, file, err);
	m1_token_index_free(&index);
	fclose(file);
	return status;
}
