/* status.c - see status.h. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

m1_status
m1_fail(m1_error *err, m1_status code, const char *fmt, ...)
{
	if (err != NULL)
	{
		va_list args;

		err->code = code;
		err->detail[0] = '\0';
		err->hint[0] = '\0';
		va_start(args, fmt);
		vsnprintf(err->message, sizeof err->message, fmt, args);
		va_end(args);
	}
	return code;
}

void
m1_error_detail(m1_error *err, const char *fmt, ...)
{
	va_list args;

	if (err == NULL)
		return;
	va_start(args, fmt);
	vsnprintf(err->detail, sizeof err->detail, fmt, args);
	va_end(args);
}

void
m1_error_hint(m1_error *err, const char *fmt, ...)
{
	va_list args;

	if (err == NULL)
		return;
	va_start(args, fmt);
	vsnprintf(err->hint, sizeof err->hint, fmt, args);
	va_end(args);
}

/* The length of the key in braces at the start of s, 0 when there is none; the key goes to out. */
static size_t
key_at(const char *s, char *out, size_t size)
{
	const size_t len = *s == '{' ? strspn(s + 1, "abcdefghijklmnopqrstuvwxyz_") : 0;

	if (len == 0 || len >= size || s[1 + len] != '}')
		return 0;
	memcpy(out, s + 1, len);
	out[len] = '\0';
	return len;
}

void
m1_error_spell_settings(m1_error *err, m1_spell_setting spell)
{
	char hint[sizeof err->hint];
	size_t n = 0;

	for (const char *at = err->hint; *at != '\0' && n < sizeof hint - 1;)
	{
		char key[64];
		char spelled[128];
		const size_t len = key_at(at, key, sizeof key);

		if (len > 0 && spell(key, spelled, sizeof spelled))
		{
			const size_t room = sizeof hint - 1 - n;
			const size_t length = strlen(spelled) < room ? strlen(spelled) : room;

			memcpy(hint + n, spelled, length);
			n += length;
			at += len + 2; /* the braces */
		}
		else
			hint[n++] = *at++;
	}
	hint[n] = '\0';
	memcpy(err->hint, hint, n + 1);
}

const char *
m1_status_name(m1_status code)
{
	static const char *const names[M1_STATUS_COUNT] = {
		[M1_OK] = "ok",
		[M1_E_INVALID_ARGUMENT] = "invalid_argument",
		[M1_E_UNSUPPORTED] = "unsupported",
		[M1_E_NOT_FOUND] = "not_found",
		[M1_E_IO] = "io",
		[M1_E_CORRUPT] = "corrupt",
		[M1_E_NO_MEMORY] = "no_memory",
		[M1_E_CONTEXT_OVERFLOW] = "context_overflow",
		[M1_E_OVERLOADED] = "overloaded",
		[M1_E_CANCELLED] = "cancelled",
		[M1_E_TIMEOUT] = "timeout",
		[M1_E_UNAVAILABLE] = "unavailable",
		[M1_E_DEVICE] = "device",
		[M1_E_INTERNAL] = "internal",
		[M1_E_OVER_QUOTA] = "over_quota",
		[M1_E_EXISTS] = "exists",
	};

	return (unsigned) code < M1_STATUS_COUNT ? names[code] : "unknown";
}
