/* pretokenizer.c - see pretokenizer.h. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.h"

#include <limits.h>
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
#define FIRST_STEPS 1000 /* of a match: a word takes some ten */
#define FIRST_WINDOW 512 /* bytes that a match may look at */
#define STEPS_OF_A_BYTE 16
#define STEPS_OF_ANY_TEXT 100000
#define GIVEN_UP INT_MIN /* no number of PCRE2's */

struct m1_pretokenizer
{
	pcre2_code *code;
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
	pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
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

/*
 * What one call of m1_pretokenize needs; an open pre-tokenizer is shared. A match takes about one of PCRE2's steps for
 * each of its bytes, but a pattern that backtracks may take exponentially many. So a match begins with few steps, and
 * is given more as long as there are some left of those that the text as a whole may have. PCRE2 does not count what it
 * reads in one run, and "a+c|." would read all of a text of a's again for each of them: so a match begins with a window
 * on the text, too, and each byte of a wider one is a step.
 */
typedef struct matcher
{
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack; /* made when the 32 kB of the thread's own that PCRE2 takes are not enough */
	size_t steps_left;
	uint32_t options;
	m1_work *work;
} matcher;

static bool
open_matcher(matcher *m, size_t len, m1_work *work)
{
	/* the text was checked once: checking it again for every match would be quadratic */
	*m = (matcher){.data = pcre2_match_data_create(1, NULL),
				   .context = pcre2_match_context_create(NULL),
				   .steps_left = STEPS_OF_ANY_TEXT + STEPS_OF_A_BYTE * len,
				   .options = PCRE2_NO_UTF_CHECK,
				   .work = work};
	if (m->data == NULL || m->context == NULL)
		return false;
	pcre2_set_depth_limit(m->context, UINT32_MAX);
	/* in KiB; without JIT, each step back is remembered in some 200 bytes */
	pcre2_set_heap_limit(m->context, (uint32_t) (65536 + (len < ((size_t) 1 << 32) ? len / 4 : (size_t) 1 << 30)));
	return true;
}

static void
close_matcher(matcher *m)
{
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->context);
	pcre2_jit_stack_free(m->stack);
}

/* After a match ran out of JIT's stack: the next try has a larger one, the one after that does without JIT. */
static void
enlarge_stack(matcher *m)
{
	if (m->stack == NULL && (m->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL)) != NULL)
		pcre2_jit_stack_assign(m->context, NULL, m->stack);
	else
		m->options |= PCRE2_NO_JIT;
}

static bool
spend(matcher *m, size_t steps)
{
	if (steps > m->steps_left || steps > UINT32_MAX / 4)
		return false;
	m->steps_left -= steps;
	return true;
}

/* The end of a window: where a character begins. */
static size_t
window_end(m1_slice text, size_t at, size_t window)
{
	size_t end = at + window;

	if (window >= text.len - at)
		return text.len;
	while (((unsigned char) text.data[end] & 0xC0) == 0x80)
		end--;
	return end;
}

/* Whether a match that saw the text up to `end` only might have come out otherwise if it had seen more. */
static bool
saw_too_little(const matcher *m, int n, size_t end)
{
	return n == PCRE2_ERROR_PARTIAL || n == PCRE2_ERROR_NOMATCH ||
		   (n >= 0 && pcre2_get_ovector_pointer(m->data)[1] == end);
}

static int
match_at(const m1_pretokenizer *p, matcher *m, m1_slice text, size_t at)
{
	size_t steps = FIRST_STEPS;
	size_t window = FIRST_WINDOW;

	while (m1_work_goes_on(m->work, 0))
	{
		const size_t end = window_end(text, at, window);
		const uint32_t partial = end < text.len ? PCRE2_PARTIAL_HARD : 0;
		int n;

		pcre2_set_match_limit(m->context, (uint32_t) steps);
		n = pcre2_match(p->code, (PCRE2_SPTR) text.data, end, at, m->options | partial, m->data, m->context);
		if (n == PCRE2_ERROR_JIT_STACKLIMIT)
			enlarge_stack(m);
		else if (n == PCRE2_ERROR_MATCHLIMIT && spend(m, steps))
			steps *= 4;
		else if (partial == 0 || !saw_too_little(m, n, end))
			return n;
		else if (spend(m, window))
		{
			/* as many steps for a byte as at first, lest the whole of a long piece is read again only to grant them */
			window *= 4;
			if (steps < window / FIRST_WINDOW * FIRST_STEPS)
				steps = window / FIRST_WINDOW * FIRST_STEPS;
		}
		else
			return PCRE2_ERROR_MATCHLIMIT;
	}
	return GIVEN_UP;
}

static m1_status
give_up(int n, m1_slice text, size_t at, const m1_work *work, m1_error *err)
{
	if (n == GIVEN_UP)
		return m1_work_stopped(work, "tokenizing the text", err);
	if (n != PCRE2_ERROR_MATCHLIMIT)
		return m1_fail(err, M1_E_NO_MEMORY, "the pre-tokenizer gave up on a text of %zu bytes (PCRE2 error %d)",
					   text.len, n);
	m1_fail(err, M1_E_UNSUPPORTED, "the pre-tokenizer's pattern takes too long on a text of %zu bytes", text.len);
	m1_error_detail(err, "From byte %zu on, it takes more than %d steps for each byte.", at, STEPS_OF_A_BYTE);
	return M1_E_UNSUPPORTED;
}

m1_status
m1_pretokenize(const m1_pretokenizer *p, m1_slice text, bool (*each)(void *context, m1_slice piece), void *context,
			   m1_work *work, m1_error *err)
{
	matcher m;
	size_t done = 0;
	bool ok = open_matcher(&m, text.len, work);
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
		return give_up(n, text, done, work, err);
	return ok ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for a text of %zu bytes", text.len);
}
