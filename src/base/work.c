/* work.c - see work.h. */
#include "base/work.h"

m1_status
m1_work_stopped(const m1_work *w, const char *what, m1_error *err)
{
	if (w->exhausted)
		return m1_fail(err, M1_E_UNSUPPORTED, "%s takes too long", what);
	return m1_fail(err, M1_E_CANCELLED, "the request was cancelled");
}
