/*
 * cmd_quantize.c - `quantize IN OUT.gguf`: any model that can be loaded, as a GGUF file with 8- or 4-bit weights.
 * Progress goes to stderr: a bar on a terminal, else lines. An interrupt ends it and leaves nothing behind.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "commands/cli.h"
#include "commands/progress.h"
#include "model/convert.h"

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

int
m1_cmd_quantize(const m1_cli *cli)
{
	m1_progress shown;
	m1_convert_options options = {
		.in = cli->model,
		.out = cli->out_file,
		.replace = cli->force,
		/* there is little reason to convert and not to quantize */
		.format = cli->weight_format_given ? cli->weight_format : M1_WEIGHTS_Q8_0,
		.threads = cli->threads,
		.progress = on_progress,
		.context = &shown,
	};
	struct stat st;
	m1_error err;

	m1_catch_interrupts();
	m1_progress_start(&shown);
	if (m1_convert(&options, &err) != M1_OK)
	{
		m1_progress_break(&shown);
		return m1_cli_report(&err);
	}
	if (stat(cli->out_file, &st) == 0)
		printf("%s: %lld bytes\n", cli->out_file, (long long) st.st_size);
	return 0;
}
