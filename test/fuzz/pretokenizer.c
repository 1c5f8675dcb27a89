/*
 * pretokenizer.c - patterns of pre-tokenizers, which come from a model's files: the pieces are the text, and a pattern
 * that would take long is refused.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/fuzz.h"

#include <pcre2.h>
#include <string.h>

#include "lib/regex_text.h"
#include "text/pretokenizer.h"

#define MOST_BYTES 20000
#define MOST_STEPS 1000000
#define MOST_COMPARED 6000 /* PCRE2 may read the rest of the text for each piece */

typedef struct pieces
{
	m1_slice text;
	size_t at;
	m1_ids ends;
} pieces;

static bool
take_piece(void *context, m1_slice piece)
{
	pieces *p = context;

	fuzz_check(piece.len > 0 && piece.data == p->text.data + p->at && piece.len <= p->text.len - p->at,
			   "a piece of %zu bytes at %td instead of %zu", piece.len, piece.data - p->text.data, p->at);
	p->at += piece.len;
	return m1_ids_push(&p->ends, (int32_t) p->at);
}

/* Another spelling of white space: that of PCRE2 is not Unicode's. */
static pcre2_code *
compile(const char *pattern)
{
	m1_buf spelled = {0};
	pcre2_code *code;
	PCRE2_SIZE at;
	int error;

	for (const char *c = pattern; *c != '\0'; c++)
		if (c[0] == '\\' && (c[1] == 's' || c[1] == 'S'))
			m1_buf_puts(&spelled, *++c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
		else
		{
			m1_buf_append(&spelled, c, 1);
			if (c[0] == '\\' && c[1] != '\0')
				m1_buf_append(&spelled, ++c, 1);
		}
	code = pcre2_compile((PCRE2_SPTR) spelled.data, spelled.len, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
	m1_buf_free(&spelled);
	return code;
}

/* The same pieces as PCRE2 finds them when it sees all of the text at once, as far as it does not take too long. */
static void
compare(const char *pattern, const pieces *p)
{
	pcre2_code *code = compile(pattern);
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	pcre2_match_context *context = pcre2_match_context_create(NULL);
	size_t at = 0;
	size_t i = 0;

	pcre2_set_match_limit(context, MOST_STEPS);
	while (at < p->text.len)
	{
		const int n = pcre2_match(code, (PCRE2_SPTR) p->text.data, p->text.len, at, PCRE2_NO_UTF_CHECK, data, context);
		const PCRE2_SIZE *span = pcre2_get_ovector_pointer(data);
		const size_t begin = n >= 0 && span[1] > at ? span[0] : p->text.len;
		const size_t end = n >= 0 && span[1] > at ? span[1] : p->text.len;

		if (n < 0 && n != PCRE2_ERROR_NOMATCH)
			break;
		if (begin > at)
			fuzz_check((size_t) p->ends.data[i++] == begin, "%s: no piece ends at byte %zu", pattern, begin);
		if (end > begin)
			fuzz_check((size_t) p->ends.data[i++] == end, "%s: no piece ends at byte %zu", pattern, end);
		at = end;
	}
	pcre2_match_context_free(context);
	pcre2_match_data_free(data);
	pcre2_code_free(code);
}

static void
check_pieces(const m1_pretokenizer *p, m1_slice text)
{
	pieces all = {.text = text};
	m1_error err;
	const m1_status status = m1_pretokenize(p, text, take_piece, &all, NULL, &err);

	if (status != M1_OK)
		fuzz_check(status == M1_E_UNSUPPORTED, "%s (%s)", err.message, err.detail);
	else
	{
		fuzz_check(all.at == text.len, "pieces of %zu bytes of %zu", all.at, text.len);
		if (text.len <= MOST_COMPARED)
			compare(m1_pretokenizer_pattern(p), &all);
	}
	m1_ids_free(&all.ends);
}

/* Long runs, where work that is not linear shows; and other texts. */
static m1_buf
make_text(fuzz_input *in)
{
	m1_buf text = {0};

	while (in->left > 0 && text.len < MOST_BYTES)
	{
		const char *unit = regex_text_character(in);
		const uint32_t n = fuzz_below(in, 4) == 3 ? 1 + fuzz_below(in, 6000) : 1 + fuzz_below(in, 3);

		for (uint32_t i = 0; i < n; i++)
			m1_buf_puts(&text, unit);
	}
	return text;
}

void
fuzz_one(fuzz_input *in)
{
	static const char *const known[] = {m1_pretokenizer_o200k, m1_pretokenizer_gpt2, "a+c|.", "(?:a|aa)+c|.", NULL};
	const uint32_t kind = fuzz_below(in, 4);
	m1_buf pattern = {0};
	m1_buf text;
	m1_pretokenizer *p;
	m1_error err;
	m1_status status;

	if (kind == 0)
		m1_buf_puts(&pattern, fuzz_one_of(in, known));
	else if (kind < 3)
		pattern = regex_text_make(in, 3).text;
	else
	{
		/* raw: what PCRE2 refuses is refused */
		m1_buf raw = fuzz_text(fuzz_take(in, fuzz_below(in, 40)));

		m1_buf_append(&pattern, raw.data, raw.len);
		m1_buf_free(&raw);
	}
	status = m1_pretokenizer_create(m1_buf_cstr(&pattern), &p, &err);
	if (status != M1_OK)
		fuzz_check_error(status, &err);
	else
	{
		text = make_text(in);
		check_pieces(p, (m1_slice){text.len > 0 ? text.data : "", text.len});
		m1_buf_free(&text);
		m1_pretokenizer_free(p);
	}
	m1_buf_free(&pattern);
}
