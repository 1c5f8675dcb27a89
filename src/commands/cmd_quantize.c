/*
 * cmd_quantize.c - models of models. `quantize IN OUT.gguf`: any that can be loaded, as a GGUF file with 8- or 4-bit
 * weights. `merge`: one with an adapter merged into its weights, as a folder or a GGUF file.
 * Progress goes to stderr: a bar on a terminal, else lines. An interrupt ends it and leaves nothing behind.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "commands/cli.h"
#include "commands/progress.h"
#include "model/merge.h"

static bool
on_progress(void *context, const m1_convert_progress *p)
{
	m1_progress *shown = context;
	const double share = p->total > 0 ? (double) p->done / (double) p->total : 1.0;
	const double seconds = (m1_now_ms() - shown->started) / 1000.0;

	if (m1_progress_due(shown, share))
		m1_progress_show(shown, share, "%.2f of %.2f GB, %.0f MB/s", (double) p->done / 1e9, (double) p->total / 1e9,
						 seconds > 0.0 ? (double) p->done / 1e6 / seconds : 0.0);
	return !m1_interrupted();
}

typedef m1_status (*maker)(const m1_convert_options *options, m1_error *err);

/* Makes what the options say, and tells its size if it is a file. */
static int
make(const m1_cli *cli, m1_convert_options options, maker fn)
{
	m1_progress shown;
	struct stat st;
	m1_error err;

	options.in = cli->model;
	options.out = cli->out_file;
	options.replace = cli->force;
	options.threads = cli->threads;
	options.progress = on_progress;
	options.context = &shown;
	m1_catch_interrupts();
	m1_progress_start(&shown);
	if (fn(&options, &err) != M1_OK)
	{
		m1_progress_break(&shown);
		return m1_cli_report(&err);
	}
	if (stat(cli->out_file, &st) == 0 && S_ISREG(st.st_mode))
		printf("%s: %lld bytes\n", cli->out_file, (long long) st.st_size);
	return 0;
}

int
m1_cmd_quantize(const m1_cli *cli)
{
	/* there is little reason to convert and not to quantize */
	const m1_convert_options options = {.format = cli->weight_format_given ? cli->weight_format : M1_WEIGHTS_Q8_0};

	return make(cli, options, m1_convert);
}

int
m1_cmd_merge(const m1_cli *cli)
{
	m1_convert_options options = {.format = cli->weight_format};
	m1_cli_adapter_list adapters;
	m1_error err;

	if (!m1_cli_has("merge", "--adapter DIR", cli->adapters.at[0]) || !m1_cli_has("merge", "--out PATH", cli->out_file))
		return 2;
	if (m1_cli_adapters(cli, 1, &adapters, &err) != M1_OK)
		return m1_cli_report(&err);
	options.adapter = adapters.at[0].path;
	return make(cli, options, m1_merge);
}
