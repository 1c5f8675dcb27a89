/*
 * reply_form.c - see reply_form.h.
 *
 * Text up to a tag is an automaton of its own: its places are how much of the tag has been read (Knuth, Morris and
 * Pratt). The tags begin with a '<' that they have nowhere else, so a byte that is not the next one leads to the first
 * place or, if it is a '<', to the second.
 */
#include "grammar/reply_form.h"

#include <string.h>

#include "text/markup.h"

#define MOST_PLACES 16 /* bytes of a tag */

_Static_assert(sizeof M1_CALLS_OPEN <= MOST_PLACES && sizeof M1_THINK_CLOSE <= MOST_PLACES, "tags have places");

/* The places of a text, by how much of the tag has been read. */
typedef struct places
{
	int32_t at[MOST_PLACES];
	int32_t ended; /* M1_NFA_RETURN where the text may end before the tag, or M1_NFA_FAIL */
} places;

/* The bytes but those in the string, which is in ascending order and has neither the first nor the last of all. */
static int32_t
other_bytes(m1_nfa *nfa, const char *but, int32_t next)
{
	int32_t start = M1_NFA_FAIL;
	unsigned low = 0;

	for (; *but != '\0'; low = (uint8_t) *but++ + 1)
		if (low < (uint8_t) *but)
			start = m1_nfa_split(nfa, m1_nfa_bytes(nfa, (uint8_t) low, (uint8_t) ((uint8_t) *but - 1), next), start);
	return m1_nfa_split(nfa, m1_nfa_bytes(nfa, (uint8_t) low, 255, next), start);
}

/* A byte that leads to a place of its own. */
typedef struct way
{
	char c; /* '\0': there is none */
	int32_t next;
} way;

/* A place from which those bytes lead on, and all others where they lead in any text. */
static int32_t
place(m1_nfa *nfa, const places *p, way on, way aside)
{
	const way ways[] = {on, aside, {'<', p->at[1]}};
	char but[4] = "";
	int32_t here = p->ended;

	for (size_t i = 0, n = 0; i < sizeof ways / sizeof *ways; i++)
	{
		const char c = ways[i].c;
		size_t at = n;

		if (c == '\0' || strchr(but, c) != NULL)
			continue;
		for (; at > 0 && but[at - 1] > c; at--)
			but[at] = but[at - 1];
		but[at] = c;
		n++;
		here = m1_nfa_split(nfa, m1_nfa_bytes(nfa, (uint8_t) c, (uint8_t) c, ways[i].next), here);
	}
	return m1_nfa_split(nfa, other_bytes(nfa, but, p->at[0]), here);
}

/* Any text up to the first tag, as reply.c finds it, and then `next`; or up to its own end, if it may end. */
static places
text_until(m1_nfa *nfa, const char *tag, bool may_end, int32_t next)
{
	const int32_t nothing = m1_nfa_open_loop(nfa, M1_NFA_FAIL);
	const int32_t one = m1_nfa_open_loop(nfa, M1_NFA_FAIL);
	places p = {.at = {nothing, one}, .ended = may_end ? M1_NFA_RETURN : M1_NFA_FAIL};

	for (size_t k = strlen(tag); k-- > 0;)
	{
		next = place(nfa, &p, (way){tag[k], next}, (way){0});
		if (k < 2)
		{
			m1_nfa_close_loop(nfa, p.at[k], next);
			next = p.at[k];
		}
		p.at[k] = next;
	}
	return p;
}

static const m1_range blanks[] = {{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}};

int32_t
m1_reply_reasoning(m1_nfa *nfa, int32_t answer)
{
	const places thoughts = text_until(nfa, M1_THINK_CLOSE, false, m1_nfa_literal(nfa, m1_slice_of("\n\n"), answer));
	const int32_t open = m1_nfa_literal(nfa, m1_slice_of(M1_THINK_OPEN), thoughts.at[0]);
	int32_t start = open;

	for (int i = 0; i < 2; i++)
		start = m1_nfa_split(nfa, m1_nfa_characters(nfa, blanks, sizeof blanks / sizeof *blanks, start), open);
	return start;
}

/*
 * A text whose first tag is not the one that opens reasoning: places by how much of that has been read. Where the two
 * tags part, the text goes on in the place of the other one.
 */
static int32_t
text_without_reasoning(m1_nfa *nfa, const places *text)
{
	const char *tag = M1_THINK_OPEN;
	const char *other = M1_CALLS_OPEN;
	int32_t next = M1_NFA_FAIL;
	int32_t start;

	for (size_t k = strlen(tag); k-- > 1;)
	{
		const bool parts = strncmp(tag, other, k) == 0 && tag[k] != other[k];

		next = place(nfa, text, (way){tag[k], next}, (way){parts ? other[k] : '\0', text->at[k + 1]});
	}
	start = m1_nfa_open_loop(nfa, M1_NFA_FAIL);
	next = m1_nfa_split(nfa, m1_nfa_bytes(nfa, '<', '<', next), text->ended);
	next = m1_nfa_split(nfa, m1_nfa_characters(nfa, blanks, sizeof blanks / sizeof *blanks, start), next);
	m1_nfa_close_loop(nfa, start, m1_nfa_split(nfa, other_bytes(nfa, "\t\n\r <", text->at[0]), next));
	return start;
}

m1_free_text
m1_reply_free_text(m1_nfa *nfa, int32_t calls)
{
	const places text = text_until(nfa, M1_CALLS_OPEN, true, calls);

	return (m1_free_text){.start = text.at[0], .opening = text_without_reasoning(nfa, &text)};
}
