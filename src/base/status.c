/* status.c - see status.h. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

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
	};

	return (unsigned) code < M1_STATUS_COUNT ? names[code] : "unknown";
}
