/*
 * cmd_quantize.c - `quantize IN OUT.gguf`: any model that can be loaded, as a GGUF file with 8- or 4-bit weights.
 * Progress goes to stderr: a bar on a terminal, else lines. An interrupt ends it and leaves nothing behind.
 */
#define _GNU_SOURCE /* sigaction, isatty */
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "commands/cli.h"
#include "model/convert.h"

#define BAR_WIDTH 30
#define BAR_EVERY_MS 200.0
#define LINE_EVERY_MS 10000.0

static volatile sig_atomic_t interrupted;

static void
on_interrupt(int sig)
{
	(void) sig;
	interrupted = 1;
}

typedef struct display
{
	bool terminal;
	double started;
	double shown; /* when it last wrote something; 0 = never */
} display;

static void
print_bar(double share)
{
	char bar[BAR_WIDTH + 1];
	const int filled = (int) (share * BAR_WIDTH);

	memset(bar, ' ', BAR_WIDTH);
	memset(bar, '=', (size_t) filled);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r[%s] ", bar);
}

static void
show(display *d, const m1_convert_progress *p, double now)
{
	const double share = p->total > 0 ? (double) p->done / (double) p->total : 1.0;
	const double seconds = (now - d->started) / 1000.0;
	const double left = share > 0.0 ? seconds / share - seconds : 0.0;

	if (d->terminal)
		print_bar(share);
	fprintf(stderr, "%3.0f%%  %.2f of %.2f GB, %.0f MB/s, %d:%02d left", share * 100.0, (double) p->done / 1e9,
			(double) p->total / 1e9, seconds > 0.0 ? (double) p->done / 1e6 / seconds : 0.0, (int) (left / 60.0),
			(int) left % 60);
	/* the blanks cover what a longer line has left */
	fputs(d->terminal ? p->done == p->total ? "  \n" : "  " : "\n", stderr);
	fflush(stderr);
}

static bool
on_progress(void *context, const m1_convert_progress *p)
{
	display *d = context;
	const double now = m1_now_ms();
	const double every = d->terminal ? BAR_EVERY_MS : LINE_EVERY_MS;

	if (now - d->shown >= every || p->done == p->total)
	{
		show(d, p, now);
		d->shown = now;
	}
	return !interrupted;
}

int
m1_cmd_quantize(const m1_cli *cli)
{
	display d = {.terminal = isatty(STDERR_FILENO) == 1, .started = m1_now_ms()};
	m1_convert_options options = {
		.in = cli->model,
		.out = cli->out_file,
		.replace = cli->force,
		/* there is little reason to convert and not to quantize */
		.format = cli->weight_format_given ? cli->weight_format : M1_WEIGHTS_Q8_0,
		.threads = cli->threads,
		.progress = on_progress,
		.context = &d,
	};
	struct sigaction action = {.sa_handler = on_interrupt};
	struct stat st;
	m1_error err;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	d.shown = d.started;
	if (m1_convert(&options, &err) != M1_OK)
	{
		if (d.terminal)
			fputc('\n', stderr);
		return m1_cli_report(&err);
	}
	if (stat(cli->out_file, &st) == 0)
		printf("%s: %lld bytes\n", cli->out_file, (long long) st.st_size);
	return 0;
}
