/*
 * command_line.h - the engine's command line as the settings are now: which
 * program, where the model is, and the options that settings give.
 *
 * It is kept as /proc/PID/cmdline shows it: words one after the other, a NUL at
 * the end of each. Two are the same if their bytes are.
 */
#ifndef M1PG_COMMAND_LINE_H
#define M1PG_COMMAND_LINE_H

#include "pg/m1pg.h"

#include "lib/stringinfo.h"

#define M1PG_ENGINE_FD	3		/* the socket's descriptor in the engine */

/* Replaces what is in *words. The first word is the program's path. */
extern void m1pg_command_line(StringInfo words);
/* The words as execv takes them; palloc'd, and pointing into *words. */
extern char **m1pg_command_line_argv(StringInfo words);
/* Whether this process could exec it; errno says why not. */
extern bool m1pg_can_run(const char *program);
/* Where the model is, of MAXPGPATH bytes. */
extern void m1pg_model_path(char *path);

#endif							/* M1PG_COMMAND_LINE_H */
