/*
 * cmd_train.c - `train --data FILES --out DIR`: trains a checkpoint, fresh weights, or an adapter. A line of JSON for
 * each step goes to stdout or a file, progress to stderr; an interrupt leaves a checkpoint.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "commands/cli.h"
#include "commands/progress.h"
#include "train/fit.h"

typedef struct display
{
	m1_progress shown;
	bool bar; /* it does not get in the lines' way */
	FILE *log;
	uint64_t first; /* the step that this run began with */
	uint64_t tokens;
} display;

/* ---- what is told ---- */

/* JSON has no NaN and no infinity. */
static void
put_real(FILE *out, const char *key, double x)
{
	if (isfinite(x))
		fprintf(out, ", \"%s\": %.9g", key, x);
	else
		fprintf(out, ", \"%s\": null", key);
}

static void
put_line(FILE *out, const m1_fit_step *s, double tokens_per_second)
{
	fprintf(out, "{\"step\": %llu, \"epoch\": %llu", (unsigned long long) s->step, (unsigned long long) s->epoch);
	put_real(out, "loss", s->loss);
	put_real(out, "balance", s->balance);
	put_real(out, "learning_rate", s->rate);
	put_real(out, "gradient_norm", s->norm);
	fprintf(out, ", \"dropped\": %s, \"all_dropped\": %llu", s->dropped ? "true" : "false",
			(unsigned long long) s->all_dropped);
	fprintf(out, ", \"sequences\": %lld, \"tokens\": %lld, \"all_tokens\": %llu", (long long) s->sequences,
			(long long) s->tokens, (unsigned long long) s->all_tokens);
	put_real(out, "tokens_per_second", tokens_per_second);
	if (s->evaluated)
		put_real(out, "held_out_loss", s->held_out_loss);
	fputs("}\n", out);
	fflush(out);
}

static void
on_step(void *context, const m1_fit_step *s)
{
	display *d = context;
	const double seconds = (m1_now_ms() - d->shown.started) / 1000.0;
	const double share = (double) (s->step - d->first) / (double) (s->steps - d->first);
	double speed;

	d->tokens += (uint64_t) s->tokens;
	speed = seconds > 0.0 ? (double) d->tokens / seconds : 0.0;
	put_line(d->log, s, speed);
	if (d->bar && m1_progress_due(&d->shown, share))
		m1_progress_show(&d->shown, share, "step %llu of %llu, loss %.4f, %.0f tokens/s", (unsigned long long) s->step,
						 (unsigned long long) s->steps, s->loss, speed);
}

static void
on_begun(void *context, const m1_example_counts *counts, size_t examples, size_t held_out, uint64_t step,
		 uint64_t steps)
{
	display *d = context;

	fprintf(stderr, "minimax_m1_engine: %zu examples of %zu lines", examples, counts->lines);
	if (counts->skipped > 0)
		fprintf(stderr, ", %zu too long and skipped", counts->skipped);
	if (counts->split > 0)
		fprintf(stderr, ", %zu too long and split", counts->split);
	if (held_out > 0)
		fprintf(stderr, ", %zu held out", held_out);
	fprintf(stderr, "; steps %llu to %llu\n", (unsigned long long) step + 1, (unsigned long long) steps);
	d->first = step;
	m1_progress_start(&d->shown);
}

static void
on_warning(void *context, const m1_error *err)
{
	const display *d = context;

	if (d->bar)
		m1_progress_break(&d->shown);
	m1_cli_report(err);
}

static bool
goes_on(void *context)
{
	(void) context;
	return !m1_interrupted();
}

/* ---- what is asked for ---- */

static bool
parse_too_long(const char *text, m1_too_long *out)
{
	static const char *const names[] = {
		[M1_LONG_REFUSE] = "refuse", [M1_LONG_SKIP] = "skip", [M1_LONG_SPLIT] = "split"};

	for (int i = M1_LONG_REFUSE; i <= M1_LONG_SPLIT; i++)
		if (strcmp(text, names[i]) == 0)
		{
			*out = (m1_too_long) i;
			return true;
		}
	fprintf(stderr, "minimax_m1_engine: --too-long takes refuse, skip or split, not \"%s\"\n", text);
	return false;
}

static bool
parse_decay(const char *text, m1_decay *out)
{
	if (m1_decay_parse(text, out))
		return true;
	fprintf(stderr, "minimax_m1_engine: --decay takes none, linear, exponential or cosine, not \"%s\"\n", text);
	return false;
}

/* --model or --config, unless the training goes on with its own. */
static bool
has_beginning(const m1_cli *cli)
{
	if (cli->model != NULL && cli->config_file != NULL)
	{
		fputs("minimax_m1_engine: train takes --model or --config, not both\n", stderr);
		return false;
	}
	if (cli->config_file == NULL && (cli->tokenizer != NULL || cli->f32))
	{
		fputs("minimax_m1_engine: --tokenizer and --f32 are for --config: a model has its own\n", stderr);
		return false;
	}
	return cli->resume ||
		   m1_cli_has("train", "--model DIR or --config FILE", cli->model != NULL ? cli->model : cli->config_file);
}

static bool
trains_adapter(const m1_cli *cli)
{
	return cli->adapts || cli->adapters.n > 0;
}

/* An adapter is of a model, new or one that is there. */
static bool
has_base(const m1_cli *cli)
{
	const char *wrong = NULL;

	if (!trains_adapter(cli))
		wrong =
			cli->weight_format_given ? "--weight-format is for adapters: all weights are trained as they are" : NULL;
	else if (cli->model == NULL)
		wrong = "an adapter needs --model";
	else if (cli->adapts && cli->adapters.n > 0)
		wrong = "train takes --adapter, or --rank, --expert-rank, --targets and --alpha of a new one";
	if (wrong != NULL)
		fprintf(stderr, "minimax_m1_engine: %s\n", wrong);
	return wrong == NULL;
}

/* Where a GPU cannot train what is asked for, nobody has to say so. */
static const char *
device_of(const m1_cli *cli)
{
	return trains_adapter(cli) && strcmp(cli->device, "auto") == 0 ? "cpu" : cli->device;
}

static m1_schedule
schedule_of(const m1_cli *cli, m1_decay decay)
{
	/* MiniMax-Text-01's, of fine-tuning and of pretraining; an adapter takes ten times the former */
	const double rate = cli->lr_given ? cli->lr : cli->config_file != NULL ? 2e-4 : trains_adapter(cli) ? 1e-4 : 1e-5;

	return (m1_schedule){
		.rate = rate,
		.last = cli->last_lr_given ? cli->last_lr : rate / 10.0,
		.warmup_steps = (uint64_t) cli->warmup,
		.decay_steps = (uint64_t) cli->decay_steps,
		.decay = decay,
	};
}

static m1_fit_options
options_of(const m1_cli *cli, m1_too_long too_long, m1_decay decay, display *d)
{
	return (m1_fit_options){
		.model = cli->model,
		.weight_format = cli->weight_format,
		.config = cli->config_file,
		.tokenizer = cli->tokenizer,
		.fresh_type = cli->f32 ? M1B_F32 : M1B_BF16,
		.out = cli->out_file,
		.replace = cli->force,
		.resume = cli->resume,
		.files = cli->data.at,
		.n_files = cli->data.n,
		.system = cli->system,
		.prompt_weight = (float) cli->prompt_weight,
		.answer_weight = (float) cli->answer_weight,
		.too_long = too_long,
		.max_context = cli->max_context,
		.held_out = cli->held_out,
		.batch_tokens = (size_t) cli->batch_tokens,
		.steps = (uint64_t) cli->steps,
		.epochs = cli->epochs,
		.schedule = schedule_of(cli, decay),
		.adamw = {.beta1 = (float) cli->beta1,
				  .beta2 = (float) cli->beta2,
				  .eps = (float) cli->eps,
				  .weight_decay = trains_adapter(cli) && !cli->weight_decay_given ? 0.0f : (float) cli->weight_decay,
				  .clip = (float) cli->clip},
		.balance = (float) cli->balance,
		.seed = cli->seed,
		.save_every = cli->save_every,
		.evaluate_every = cli->evaluate_every,
		.device = device_of(cli),
		.threads = cli->threads,
		.isa = cli->isa,
		.observer = {.context = d, .warn = on_warning, .begun = on_begun, .step = on_step, .goes_on = goes_on},
	};
}

/* Every line is written at once: what is lost is known at the end. */
static m1_status
close_log(display *d, m1_status status, m1_error *err)
{
	bool lost = ferror(d->log) != 0;

	if (d->log != stdout)
		lost |= fclose(d->log) != 0;
	return status == M1_OK && lost ? m1_fail(err, M1_E_IO, "could not write all lines of the log") : status;
}

int
m1_cmd_train(const m1_cli *cli)
{
	display d = {.log = stdout};
	m1_too_long too_long;
	m1_decay decay;
	m1_adapter_plan plan;
	m1_cli_adapter_list adapters;
	m1_fit_options options;
	m1_error err;

	if (!m1_cli_has("train", "--data FILE.jsonl", cli->data.n > 0 ? cli : NULL) ||
		!m1_cli_has("train", "--out DIR", cli->out_file) || !has_beginning(cli) || !has_base(cli) ||
		!parse_too_long(cli->too_long, &too_long) || !parse_decay(cli->decay, &decay))
		return 2;
	if (cli->log_file != NULL && (d.log = fopen(cli->log_file, "ae")) == NULL)
	{
		m1_fail(&err, M1_E_IO, "could not open \"%.150s\": %s", cli->log_file, strerror(errno));
		return m1_cli_report(&err);
	}
	if (m1_cli_adapter_plan(cli, &plan, &err) != M1_OK || m1_cli_adapters(cli, 1, &adapters, &err) != M1_OK)
		return m1_cli_report(&err);
	d.bar = cli->log_file != NULL || isatty(STDOUT_FILENO) != 1;
	options = options_of(cli, too_long, decay, &d);
	options.plan = cli->adapts ? &plan : NULL;
	options.adapter = adapters.n > 0 ? adapters.at[0].path : NULL;
	m1_catch_interrupts();
	m1_progress_start(&d.shown);
	if (close_log(&d, m1_fit(&options, &err), &err) == M1_OK)
		return 0;
	if (d.bar)
		m1_progress_break(&d.shown);
	return m1_cli_report(&err);
}
