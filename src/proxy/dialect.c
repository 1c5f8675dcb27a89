/* dialect.c - the table of them: see dialect.h. */
#include "proxy/dialect.h"

#include <string.h>

static const m1_dialect *const dialects[M1_DIALECT_COUNT] = {
	[M1_DIALECT_VLLM] = &m1_dialect_vllm,
	[M1_DIALECT_LLAMA] = &m1_dialect_llama,
	[M1_DIALECT_SGLANG] = &m1_dialect_sglang,
	[M1_DIALECT_OPENAI] = &m1_dialect_openai,
};

const m1_dialect *
m1_dialect_of(m1_dialect_kind kind)
{
	return dialects[kind];
}

bool
m1_dialect_parse(const char *name, m1_dialect_kind *kind)
{
	for (int i = M1_DIALECT_AUTO; i < M1_DIALECT_COUNT; i++)
		if (strcmp(name, dialects[i] != NULL ? dialects[i]->name : "auto") == 0)
		{
			*kind = (m1_dialect_kind) i;
			return true;
		}
	return false;
}

bool
m1_told_failure(const m1_json *event, m1_told *told)
{
	const m1_json *error = m1_json_get(event, "error");

	if (!m1_json_is(error, M1_JSON_OBJECT))
		return false;
	told->failure = m1_json_text(m1_json_get(error, "message"));
	if (told->failure.len == 0)
		told->failure = m1_slice_of("it does not say why");
	return true;
}
