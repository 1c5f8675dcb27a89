/*
 * page.c - GET /: one page, which asks the other paths; see http.h.
 *
 * The page is part of the program. Its style and its script run because they have this answer's nonce; nothing else
 * does, and nothing is loaded from elsewhere.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/http.h"
#include "gateway/nonce.h"

#define PLACE "NONCE"

__asm__(".section .rodata\n"
		".balign 16\n"
		"gw_page_begin:\n"
		".incbin \"src/gateway/page.html\"\n"
		"gw_page_end:\n"
		".balign 8\n"
		"gw_page_length:\n"
		".quad gw_page_end - gw_page_begin\n"
		".previous\n");

extern const char gw_page_begin[];
extern const uint64_t gw_page_length;

/* The page, with the nonce wherever it has the place for one. */
static void
put_page(m1_buf *out, const char *nonce)
{
	const char *const end = gw_page_begin + gw_page_length;
	const char *at = gw_page_begin;

	for (const char *c = at; c + sizeof PLACE - 1 <= end; c++)
		if (memcmp(c, PLACE, sizeof PLACE - 1) == 0)
		{
			m1_buf_append(out, at, (size_t) (c - at));
			m1_buf_puts(out, nonce);
			at = c + sizeof PLACE - 1;
		}
	m1_buf_append(out, at, (size_t) (end - at));
}

void
gw_page_handle(gw_http_exchange *x)
{
	char nonce[GW_NONCE_SIZE];
	char policy[512];
	m1_buf out = {0};

	gw_make_nonce(nonce, sizeof nonce);
	snprintf(policy, sizeof policy,
			 "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; img-src data:; "
			 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			 nonce, nonce);
	put_page(&out, nonce);
	gw_http_add_field(x, "Content-Security-Policy", policy);
	gw_http_add_field(x, "Referrer-Policy", "no-referrer");
	gw_http_add_field(x, "Cross-Origin-Opener-Policy", "same-origin");
	gw_http_reply(x, 200, "text/html; charset=utf-8", (m1_slice){out.data, out.len});
	m1_buf_free(&out);
}
