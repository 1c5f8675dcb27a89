/* progress.c - see progress.h. */
#define _GNU_SOURCE /* sigaction, isatty */
#include "commands/progress.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define BAR_WIDTH 30
#define BAR_EVERY_MS 200.0
#define LINE_EVERY_MS 10000.0

void
m1_progress_start(m1_progress *p)
{
	p->terminal = isatty(STDERR_FILENO) == 1;
	p->started = p->shown = m1_now_ms();
}

bool
m1_progress_due(const m1_progress *p, double share)
{
	return share >= 1.0 || m1_now_ms() - p->shown >= (p->terminal ? BAR_EVERY_MS : LINE_EVERY_MS);
}

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
print_time(double seconds)
{
	const long s = (long) seconds;

	if (s >= 3600)
		fprintf(stderr, "%ld:%02ld:%02ld left", s / 3600, s / 60 % 60, s % 60);
	else
		fprintf(stderr, "%ld:%02ld left", s / 60, s % 60);
}

void
m1_progress_show(m1_progress *p, double share, const char *what, ...)
{
	const double seconds = (m1_now_ms() - p->started) / 1000.0;
	va_list args;

	if (p->terminal)
		print_bar(share);
	fprintf(stderr, "%3.0f%%  ", share * 100.0);
	va_start(args, what);
	vfprintf(stderr, what, args);
	va_end(args);
	fputs(", ", stderr);
	print_time(share > 0.0 ? seconds / share - seconds : 0.0);
	/* the blanks cover what a longer line has left */
	fputs(p->terminal ? share >= 1.0 ? "  \n" : "  " : "\n", stderr);
	fflush(stderr);
	p->shown = m1_now_ms();
}

void
m1_progress_break(const m1_progress *p)
{
	if (p->terminal)
		fputc('\n', stderr);
}

static volatile sig_atomic_t interrupted;

static void
on_interrupt(int sig)
{
	(void) sig;
	interrupted = 1;
}

void
m1_catch_interrupts(void)
{
	/* a second one ends the process, which may hang in what the first one could not stop */
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* a limit on the size of files is told as an error, as a full disk is; so is a reader that went away */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

bool
m1_interrupted(void)
{
	return interrupted;
}
