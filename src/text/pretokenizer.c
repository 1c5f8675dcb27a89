/* pretokenizer.c - see pretokenizer.h. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define ENDING "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

const char m1_pretokenizer_o200k[] =
	"[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" ENDING "|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" ENDING
	"|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const char m1_pretokenizer_gpt2[] =
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define JIT_STACK_START ((size_t) 32 << 10)
#define JIT_STACK_MOST ((size_t) 16 << 20)

struct m1_pretokenizer
{
	pcre2_code *code;
	bool jit;
	char *pattern;
};

/*
 * PCRE2's \\s is Unicode's White_Space and U+180E, which other engines no longer count: spell the property out.
 * The escapes mean the same inside and outside a class.
 */
static bool
with_unicode_spaces(const char *pattern, m1_buf *out)
{
	const char *escape;

	for (; (escape = strchr(pattern, '\\')) != NULL && escape[1] != '\0'; pattern = escape + 2)
	{
		m1_buf_append(out, pattern, (size_t) (escape - pattern));
		if (escape[1] == 's')
			m1_buf_puts(out, "\\p{White_Space}");
		else if (escape[1] == 'S')
			m1_buf_puts(out, "\\P{White_Space}");
		else
			m1_buf_append(out, escape, 2);
	}
	return m1_buf_puts(out, pattern);
}

m1_status
m1_pretokenizer_create(const char *pattern, m1_pretokenizer **out, m1_error *err)
{
	m1_pretokenizer *p = calloc(1, sizeof *p);
	m1_buf spelled = {0};
	int code;
	PCRE2_SIZE at;

	*out = NULL;
	if (p == NULL || (p->pattern = strdup(pattern)) == NULL || !with_unicode_spaces(pattern, &spelled))
	{
		m1_pretokenizer_free(p);
		m1_buf_free(&spelled);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the pre-tokenizer");
	}
	p->code = pcre2_compile((PCRE2_SPTR) spelled.data, spelled.len, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
	m1_buf_free(&spelled);
	if (p->code == NULL)
	{
		PCRE2_UCHAR why[128];

		m1_pretokenizer_free(p);
		pcre2_get_error_message(code, why, sizeof why);
		m1_fail(err, M1_E_UNSUPPORTED, "the pre-tokenizer's pattern cannot be used");
		m1_error_detail(err, "At character %zu: %s.", (size_t) at, (const char *) why);
		return M1_E_UNSUPPORTED;
	}
	/* Without JIT (a hardened kernel may forbid it) matching is slower, not different. */
	p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
	*out = p;
	return M1_OK;
}

void
m1_pretokenizer_free(m1_pretokenizer *p)
{
	if (p == NULL)
		return;
	pcre2_code_free(p->code);
	free(p->pattern);
	free(p);
}

const char *
m1_pretokenizer_pattern(const m1_pretokenizer *p)
{
	return p->pattern;
}

/* What one call of m1_pretokenize needs; an open pre-tokenizer is shared. */
typedef struct matcher
{
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
} matcher;

static bool
open_matcher(const m1_pretokenizer *p, matcher *m)
{
	m->data = pcre2_match_data_create(1, NULL);
	m->context = pcre2_match_context_create(NULL);
	m->stack = p->jit ? pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL) : NULL;
	if (m->data == NULL || m->context == NULL)
		return false;
	if (m->stack != NULL)
		pcre2_jit_stack_assign(m->context, NULL, m->stack);
	/* The text's length is bounded; the pattern's work is linear in it. */
	pcre2_set_match_limit(m->context, UINT32_MAX);
	pcre2_set_depth_limit(m->context, UINT32_MAX);
	pcre2_set_heap_limit(m->context, UINT32_MAX);
	return true;
}

static void
close_matcher(matcher *m)
{
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->context);
	pcre2_jit_stack_free(m->stack);
}

static int
match_at(const m1_pretokenizer *p, matcher *m, m1_slice text, size_t at)
{
	/* the text was checked once: checking it again for every match would be quadratic */
	int n = pcre2_match(p->code, (PCRE2_SPTR) text.data, text.len, at, PCRE2_NO_UTF_CHECK, m->data, m->context);

	if (n == PCRE2_ERROR_JIT_STACKLIMIT)
		n = pcre2_match(p->code, (PCRE2_SPTR) text.data, text.len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data,
						m->context);
	return n;
}

m1_status
m1_pretokenize(const m1_pretokenizer *p, m1_slice text, bool (*each)(void *context, m1_slice piece), void *context,
			   m1_error *err)
{
	matcher m = {0};
	size_t done = 0;
	bool ok = open_matcher(p, &m);
	int n = 0;

	while (ok && done < text.len)
	{
		size_t begin = text.len;
		size_t end = text.len;

		n = match_at(p, &m, text, done);
		if (n >= 0)
		{
			const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m.data);

			begin = span[0];
			end = span[1];
			/* An empty match would not advance: the rest is one piece. */
			if (end == done)
				begin = end = text.len;
		}
		else if (n != PCRE2_ERROR_NOMATCH)
			break;
		if (begin > done)
			ok = each(context, (m1_slice){text.data + done, begin - done});
		if (ok && end > begin)
			ok = each(context, (m1_slice){text.data + begin, end - begin});
		done = end;
	}
	close_matcher(&m);
	if (ok && n < 0 && n != PCRE2_ERROR_NOMATCH)
		return m1_fail(err, M1_E_NO_MEMORY, "the pre-tokenizer gave up on a text of %zu bytes (PCRE2 error %d)",
					   text.len, n);
	return ok ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for a text of %zu bytes", text.len);
}
