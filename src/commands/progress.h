/*
 * progress.h - how far a long command is, on stderr: a bar on a terminal, else a line now and then; and whether it has
 * been interrupted meanwhile.
 *
 * One thread.
 */
#ifndef M1_COMMANDS_PROGRESS_H
#define M1_COMMANDS_PROGRESS_H

#include <stdbool.h>

#include "base/status.h"

typedef struct m1_progress
{
	bool terminal;
	double started;
	double shown; /* when it last wrote something */
} m1_progress;

void m1_progress_start(m1_progress *p);

/* Whether it is time to show something; always when all is done. */
bool m1_progress_due(const m1_progress *p, double share);
/* "[====      ]  40%  what, 1:02 left", with the time by how much was done until now. */
void m1_progress_show(m1_progress *p, double share, const char *what, ...) M1_PRINTF(3, 4);
/* Ends a bar that is not complete, before something else is printed. */
void m1_progress_break(const m1_progress *p);

/* From now on an interrupt, or a request to end, is noticed, and does nothing else the first time. */
void m1_catch_interrupts(void);
bool m1_interrupted(void);

#endif
