/*
 * status.h - how every pure-C part of the project reports failure.
 *
 * A function that can fail returns m1_status and fills the caller's m1_error. Nothing here allocates, so an error can
 * always be reported. The PostgreSQL side maps m1_status to SQLSTATE in exactly one place (src/pg/report.c).
 */
#ifndef M1_BASE_STATUS_H
#define M1_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum m1_status
{
	M1_OK = 0,
	M1_E_INVALID_ARGUMENT, /* a value from the caller is outside its range */
	M1_E_UNSUPPORTED,	   /* well formed, but not something we implement */
	M1_E_NOT_FOUND,		   /* a file, tensor, request or tokenizer is absent */
	M1_E_IO,			   /* the operating system refused a read or a map */
	M1_E_CORRUPT,		   /* a file or frame contradicts itself */
	M1_E_NO_MEMORY,		   /* host or device memory is exhausted */
	M1_E_CONTEXT_OVERFLOW, /* the prompt does not fit the context */
	M1_E_OVERLOADED,	   /* no slot, no queue room */
	M1_E_CANCELLED,		   /* the request was cancelled on purpose */
	M1_E_TIMEOUT,		   /* request_timeout ran out */
	M1_E_UNAVAILABLE,	   /* engine or worker went away: retry later */
	M1_E_DEVICE,		   /* the device is missing or failed */
	M1_E_INTERNAL,		   /* a bug */
	M1_E_OVER_QUOTA,	   /* more than the role's quota ever admits */
	M1_E_EXISTS,		   /* something of that name is there already */
	M1_STATUS_COUNT
} m1_status;

typedef struct m1_error
{
	m1_status code;
	char message[256]; /* one sentence, lower case, no full stop */
	char detail[512];  /* the numbers and names behind it, or "" */
	char hint[256];	   /* what to do about it, or "" */
} m1_error;

#define M1_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Fills err (which may be NULL) and returns code, so that callers can write `return m1_fail(...)`. */
m1_status m1_fail(m1_error *err, m1_status code, const char *fmt, ...) M1_PRINTF(3, 4);

/* Add to an error already filled by m1_fail; both accept NULL. */
void m1_error_detail(m1_error *err, const char *fmt, ...) M1_PRINTF(2, 3);
void m1_error_hint(m1_error *err, const char *fmt, ...) M1_PRINTF(2, 3);

/*
 * Hints name a setting by its key, in braces: "Raise {max_context}." Who shows errors to people spells it as they know
 * it, on the command line as --max-context. spell writes that to out; false when there is no setting of this key.
 */
typedef bool (*m1_spell_setting)(const char *key, char *out, size_t size);

/* Spells the settings in the hint. Other braces stay as they are. */
void m1_error_spell_settings(m1_error *err, m1_spell_setting spell);

/* The short stable name of a status, as logs and --json show it ("context_overflow"). */
const char *m1_status_name(m1_status code);

#endif
