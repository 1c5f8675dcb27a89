/* failure.c - see failure.h. */
#include "gateway/failure.h"

#include <ctype.h>
#include <string.h>

/* As much as there is room for, up to the end of a character. */
static void
copy(char *to, size_t size, const char *from)
{
	size_t n = from == NULL ? 0 : strlen(from);

	if (n >= size)
	{
		n = size - 1;
		while (n > 0 && ((unsigned char) from[n] & 0xC0) == 0x80)
			n--;
	}
	if (n > 0)
		memcpy(to, from, n);
	to[n] = '\0';
}

void
gw_failure_set(gw_failure *f, const char *sqlstate, const char *message, const char *detail, const char *hint)
{
	copy(f->sqlstate, sizeof f->sqlstate, sqlstate);
	copy(f->message, sizeof f->message, message);
	copy(f->detail, sizeof f->detail, detail);
	copy(f->hint, sizeof f->hint, hint);
}

void
gw_failure_of_error(gw_failure *f, const m1_error *err)
{
	const char *sqlstate = err->code == M1_E_NO_MEMORY ? "53200" : err->code == M1_E_UNSUPPORTED ? "0A000" : "22023";

	gw_failure_set(f, sqlstate, err->message, err->detail, err->hint);
}

void
gw_failure_of_result(gw_failure *f, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	gw_failure_set(f, sqlstate == NULL ? "08006" : sqlstate, message == NULL ? PQresultErrorMessage(result) : message,
				   PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL),
				   PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
}

/* What libpq says where the server does not ask for what it has to: nobody is let in. */
#define OTHER_METHOD "authentication method requirement"

/* The code of "...:  28P01: password authentication failed ...", as libpq writes what the server refuses; or NULL. */
static const char *
find_sqlstate(const char *message)
{
	for (const char *at = message; (at = strstr(at, ":  ")) != NULL; at += 3)
	{
		size_t n = 0;

		while (n < 5 && (isdigit((unsigned char) at[3 + n]) || isupper((unsigned char) at[3 + n])))
			n++;
		if (n == 5 && at[8] == ':' && at[9] == ' ')
			return at + 3;
	}
	return NULL;
}

void
gw_failure_of_connection(gw_failure *f, const PGconn *pg)
{
	const char *all = PQerrorMessage(pg);
	const char *said = find_sqlstate(all);

	if (said == NULL)
		gw_failure_set(f, strstr(all, OTHER_METHOD) != NULL ? "28000" : "08006", all, NULL, NULL);
	else
		gw_failure_set(f, said, said + 7, NULL, NULL);
	f->message[strcspn(f->message, "\n")] = '\0';
}
