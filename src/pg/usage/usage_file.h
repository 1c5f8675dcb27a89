/*
 * usage_file.h - keeps the counters over restarts (usage_file.c).
 */
#ifndef M1PG_USAGE_FILE_H
#define M1PG_USAGE_FILE_H

#include "pg/m1pg.h"

/* At the start of the server, before anybody else looks. */
extern void m1pg_usage_load(void);
/* By the worker: writes what has changed when it is time to, or at once when the worker ends. */
extern void m1pg_usage_save(bool last);
/* Milliseconds until it is time to; -1 = nothing has changed. */
extern long m1pg_usage_timeout(void);

#endif							/* M1PG_USAGE_FILE_H */
