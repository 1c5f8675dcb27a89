/*
 * adapter_files.h - the files of an adapter, as the engine gives them (adapter_files.c).
 */
#ifndef M1PG_ADAPTER_FILES_H
#define M1PG_ADAPTER_FILES_H

#include "pg/m1pg.h"

#include "base/buf.h"

/*
 * Why these bytes are no adapter for the model of this digest, a sentence; NULL: they have the form, and hold finite
 * numbers. What the numbers do only the engine can tell.
 */
extern const char *m1pg_wrong_with_adapter(m1_slice files, m1_slice base);

#endif							/* M1PG_ADAPTER_FILES_H */
