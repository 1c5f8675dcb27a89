/* cmd_generate.c - `generate`: one prompt in, one reply out, through the same engine that serves SQL. */
#define _GNU_SOURCE /* getrandom */
#include <math.h>
#include <sys/random.h>

#include "base/clock.h"
#include "commands/cli.h"
#include "grammar/choices.h"
#include "text/jsontext.h"

typedef struct result
{
	const m1_cli *cli;
	const char *model;
	bool ended;
	bool failed;
	m1_error error;
	bool wrote; /* something was printed on the current channel */
	m1w_channel channel;
} result;

static void
ignore_progress(void *context, uint64_t id, const m1w_progress *progress)
{
	(void) context;
	(void) id;
	(void) progress;
}

/* For people: the text as it comes, the reasoning set apart from the answer. Calls are told at the end. */
static void
print_delta(void *context, uint64_t id, const m1w_delta *delta)
{
	result *r = context;

	(void) id;
	if (delta->channel == M1W_TOOL_CALLS)
		return;
	if (delta->channel == M1W_REASONING && !r->wrote)
		fputs("[reasoning]\n", stdout);
	if (delta->channel == M1W_CONTENT && r->wrote && r->channel == M1W_REASONING)
		fputs("\n\n[answer]\n", stdout);
	fwrite(delta->text.data, 1, delta->text.len, stdout);
	fflush(stdout);
	r->wrote = true;
	r->channel = delta->channel;
}

/* For people: each choice with its probability. */
static void
print_scores(const result *r, const m1w_done *done)
{
	char **choices;
	size_t n;

	if (m1_choices_parse(m1_slice_of(r->cli->choices), &choices, &n, NULL) != M1_OK)
		return;
	for (size_t i = 0; i < n && i < done->choice_logprobs.len / sizeof(double); i++)
		fprintf(stderr, "[%.4f %s]\n", exp(m1w_double_at(done->choice_logprobs, i)), choices[i]);
	m1_choices_free(choices, n);
}

/* A member of the object that print_json writes: its key, and then the value. */
static void
key(m1_buf *out, const char *name)
{
	m1_buf_puts(out, out->len > 0 ? ", " : "{");
	m1_json_write_string(out, m1_slice_of(name));
	m1_buf_puts(out, ": ");
}

static void
value(m1_buf *out, const char *name, const char *text)
{
	key(out, name);
	m1_buf_puts(out, text);
}

static void
whole(m1_buf *out, const char *name, int n)
{
	char text[16];

	snprintf(text, sizeof text, "%d", n);
	value(out, name, text);
}

static void
real(m1_buf *out, const char *name, double x)
{
	char text[40];

	snprintf(text, sizeof text, "%.6g", x);
	value(out, name, text);
}

static void
string(m1_buf *out, const char *name, m1_slice text)
{
	key(out, name);
	m1_json_write_string(out, text);
}

static void
logprobs(m1_buf *out, const m1w_done *done)
{
	char text[40];

	key(out, "choice_logprobs");
	m1_buf_puts(out, "[");
	for (size_t i = 0; i < done->choice_logprobs.len / sizeof(double); i++)
	{
		const double x = m1w_double_at(done->choice_logprobs, i);

		snprintf(text, sizeof text, "%.6g", x);
		m1_buf_puts(out, i == 0 ? "" : ", ");
		m1_buf_puts(out, isfinite(x) ? text : "null");
	}
	m1_buf_puts(out, "]");
}

static void
print_json(const result *r, const m1w_done *done)
{
	m1_buf out = {0};
	char seed[24];

	string(&out, "content", done->content);
	if (done->reasoning.len > 0)
		string(&out, "reasoning", done->reasoning);
	else
		value(&out, "reasoning", "null");
	key(&out, "tool_calls");
	m1_buf_append(&out, done->tool_calls.data, done->tool_calls.len);
	m1_buf_puts(&out, done->tool_calls.len > 0 ? "" : "null");
	string(&out, "finish_reason", m1_slice_of(m1w_finish_name(done->finish)));
	whole(&out, "prompt_tokens", done->prompt_tokens);
	whole(&out, "cached_tokens", done->cached_tokens);
	whole(&out, "reasoning_tokens", done->reasoning_tokens);
	whole(&out, "completion_tokens", done->completion_tokens);
	snprintf(seed, sizeof seed, "%llu", (unsigned long long) done->seed);
	value(&out, "seed", seed);
	string(&out, "model", m1_slice_of(r->model));
	real(&out, "queue_ms", done->queue_ms);
	real(&out, "prefill_ms", done->prefill_ms);
	real(&out, "decode_ms", done->decode_ms);
	if (r->cli->score)
		logprobs(&out, done);
	m1_buf_puts(&out, "}");
	if (m1_buf_cstr(&out) != NULL)
		puts(out.data);
	m1_buf_free(&out);
}

static void
print_done(void *context, uint64_t id, const m1w_done *done)
{
	result *r = context;

	(void) id;
	r->ended = true;
	if (done->ids.len > 0)
		for (size_t i = 0; i < done->ids.len; i++)
			printf("%d%c", m1w_id_at(done->ids, i), i + 1 < done->ids.len ? ' ' : '\n');
	else if (r->cli->json)
		print_json(r, done);
	else
	{
		if (done->tool_calls.len > 0)
			printf("%s[tool calls]\n%.*s", r->wrote ? "\n\n" : "", (int) done->tool_calls.len, done->tool_calls.data);
		fputc('\n', stdout);
		if (r->cli->score)
			print_scores(r, done);
		fprintf(stderr, "[%s: %d prompt tokens in %.0f ms, %d tokens in %.0f ms, seed %llu]\n",
				m1w_finish_name(done->finish), done->prompt_tokens, done->prefill_ms, done->completion_tokens,
				done->decode_ms, (unsigned long long) done->seed);
	}
}

static void
no_vector(void *context, uint64_t id, const m1w_vector *vector)
{
	(void) context;
	(void) id;
	(void) vector;
}

static void
keep_failure(void *context, uint64_t id, const m1_error *error)
{
	result *r = context;

	(void) id;
	r->ended = r->failed = true;
	r->error = *error;
}

static uint64_t
random_seed(void)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof seed, 0) != (ssize_t) sizeof seed)
		seed = (uint64_t) (m1_now_ms() * 1e3);
	/* a bigint in SQL, and a number that JSON readers keep exact */
	return seed >> 11;
}

static m1_status
run(m1_engine *e, const m1w_generate *g, result *r, m1_error *err)
{
	m1_status status = m1_engine_generate(e, 1, g, NULL, err);
	bool busy;

	while (status == M1_OK && !r->ended)
		status = m1_engine_step(e, &busy, err);
	if (status == M1_OK && r->failed)
	{
		*err = r->error;
		status = err->code;
	}
	return status;
}

/* The texts that come from files. */
typedef struct inputs
{
	m1_buf messages;
	m1_buf tools;
	m1_buf constraint;
	m1_ids ids;
} inputs;

static m1_status
read_inputs(const m1_cli *cli, inputs *in, m1_error *err)
{
	m1_status status = M1_OK;

	if (cli->messages_file != NULL)
		status = m1_cli_read_file(cli->messages_file, &in->messages, err);
	if (status == M1_OK && cli->tools_file != NULL)
		status = m1_cli_read_file(cli->tools_file, &in->tools, err);
	if (status == M1_OK && (cli->choices != NULL) + (cli->schema_file != NULL) + (cli->regex != NULL) > 1)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "more than one of --choices, --json-schema and --regex given");
	if (status == M1_OK && cli->schema_file != NULL)
		status = m1_cli_read_file(cli->schema_file, &in->constraint, err);
	if (status == M1_OK && cli->ids_file != NULL)
		status = m1_cli_read_ids(cli->ids_file, &in->ids, err);
	return status;
}

static m1w_generate
request_of(const m1_cli *cli, const inputs *in)
{
	m1w_generate g = {
		.prompt = m1_slice_of(cli->prompt),
		.system = m1_slice_of(cli->system),
		.messages = {in->messages.data, in->messages.len},
		.tools = {in->tools.data, in->tools.len},
		.ids = {in->ids.data, in->ids.len},
		.max_tokens = cli->max_tokens,
		.thinking_budget = cli->thinking_budget,
		.temperature = (float) cli->temperature,
		.top_p = (float) cli->top_p,
		.top_k = cli->top_k,
		.seed = cli->seed_given ? cli->seed : random_seed(),
		.stream = !cli->json,
		.n_stops = (uint32_t) cli->stops.n,
		.constraint_text = {in->constraint.data, in->constraint.len},
		.score_choices = cli->score,
	};

	if (cli->choices != NULL)
	{
		g.constraint = M1W_CONSTRAINT_CHOICES;
		g.constraint_text = m1_slice_of(cli->choices);
	}
	else if (cli->schema_file != NULL)
		g.constraint = M1W_CONSTRAINT_JSON_SCHEMA;
	else if (cli->regex != NULL)
	{
		g.constraint = M1W_CONSTRAINT_REGEX;
		g.constraint_text = m1_slice_of(cli->regex);
	}

	for (int i = 0; i < cli->stops.n; i++)
		g.stops[i] = m1_slice_of(cli->stops.at[i]);
	return g;
}

int
m1_cmd_generate(const m1_cli *cli)
{
	result r = {.cli = cli};
	m1_engine_events events = {.context = &r,
							   .progress = ignore_progress,
							   .delta = print_delta,
							   .done = print_done,
							   .vector = no_vector,
							   .failed = keep_failure};
	m1_cli_adapter_list adapters;
	m1_engine_options options;
	inputs in = {0};
	m1_engine *e = NULL;
	m1_error err;
	m1_status status;

	if ((status = m1_cli_adapters(cli, 1, &adapters, &err)) != M1_OK)
		return m1_cli_report(&err);
	options = m1_cli_engine_options(cli, &adapters);
	if ((status = read_inputs(cli, &in, &err)) == M1_OK &&
		(status = m1_engine_open(&options, &events, &e, &err)) == M1_OK)
	{
		m1w_generate g = request_of(cli, &in);

		g.adapter = m1_slice_of(adapters.at[0].name);
		r.model = m1_engine_model(e)->name;
		status = run(e, &g, &r, &err);
	}
	m1_engine_close(e);
	m1_buf_free(&in.messages);
	m1_buf_free(&in.tools);
	m1_buf_free(&in.constraint);
	m1_ids_free(&in.ids);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
