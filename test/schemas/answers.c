/*
 * answers.c - a line of JSON Schema in, or of an array of tools; a line of {"finish_reason", "content", "tool_calls"} or
 * {"error"} out, for each line of stdin: all of them answered by one engine in one batch. For schemas.py.
 *
 * answers MODEL MAX_TOKENS
 */
#define _POSIX_C_SOURCE 200809L /* getline */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define MAX_LINES 4096

static json_t *answers[MAX_LINES];

static void
on_progress(void *context, uint64_t id, const m1w_progress *p)
{
	(void) context;
	(void) id;
	(void) p;
}

static void
on_delta(void *context, uint64_t id, const m1w_delta *d)
{
	(void) context;
	(void) id;
	(void) d;
}

static void
on_vector(void *context, uint64_t id, const m1w_vector *v)
{
	(void) context;
	(void) id;
	(void) v;
}

static void
on_done(void *context, uint64_t id, const m1w_done *d)
{
	(void) context;
	answers[id] = json_pack("{s:s, s:s#, s:s#}", "finish_reason", m1w_finish_name((m1w_finish) d->finish), "content",
							d->content.len > 0 ? d->content.data : "", (int) d->content.len, "tool_calls",
							d->tool_calls.len > 0 ? d->tool_calls.data : "", (int) d->tool_calls.len);
}

static void
on_failed(void *context, uint64_t id, const m1_error *e)
{
	(void) context;
	answers[id] = json_pack("{s:s}", "error", e->message);
}

/* Half of the answers come at once, the others after a little reasoning; all of them are far from greedy. */
static m1w_generate
request_for(uint64_t id, char *line, ssize_t len, int max_tokens)
{
	m1w_generate g = {.prompt = m1_slice_of("Extract what there is as JSON.\n\nMy kettle leaks. Regards, Ana"),
					  .max_tokens = max_tokens,
					  .thinking_budget = id % 2 == 0 ? 0 : 8,
					  .temperature = 0.7f + 0.1f * (float) (id % 14),
					  .top_p = 1.0f,
					  .seed = id};

	if (line[0] == '[')
	{
		g.tools = (m1_slice){line, (size_t) len};
		g.tool_choice = m1_slice_of("required");
	}
	else
	{
		g.constraint = M1W_CONSTRAINT_JSON_SCHEMA;
		g.constraint_text = (m1_slice){line, (size_t) len};
	}
	return g;
}

int
main(int argc, char **argv)
{
	static const m1_engine_events events = {
		.progress = on_progress, .delta = on_delta, .done = on_done, .vector = on_vector, .failed = on_failed};
	const m1_engine_options options = {.model_path = argv[1], .device = "cpu", .max_requests = 16};
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;
	uint64_t n = 0;
	m1_engine *e;
	m1_error err;
	bool busy = true;

	if (argc != 3 || m1_engine_open(&options, &events, &e, &err) != M1_OK)
	{
		fprintf(stderr, "answers: %s\n", argc != 3 ? "it takes MODEL and MAX_TOKENS" : err.message);
		return 1;
	}
	for (; n < MAX_LINES && (len = getline(&line, &cap, stdin)) > 0; n++)
	{
		const m1w_generate g = request_for(n, line, len, atoi(argv[2]));

		if (m1_engine_generate(e, n, &g, NULL, &err) != M1_OK)
			on_failed(NULL, n, &err);
	}
	while (busy)
		if (m1_engine_step(e, &busy, &err) != M1_OK)
			return 1;
	for (uint64_t i = 0; i < n; i++)
	{
		json_dumpf(answers[i], stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(answers[i]);
	}
	free(line);
	m1_engine_close(e);
	return 0;
}
