/*
 * regular.h - opens the files of a checkpoint, or of a setting, whoever reads them: regular files only. A pipe or a
 * device would be waited for without end.
 */
#ifndef M1_FILES_REGULAR_H
#define M1_FILES_REGULAR_H

#include <stdio.h>

#include "base/buf.h"
#include "base/status.h"

/* *fd is the caller's to close. Without a dir, the name is a path. A file that is not there is M1_E_NOT_FOUND. */
m1_status m1_regular_open(const char *dir, const char *name, int *fd, m1_error *err);
/* The same as a stream. */
m1_status m1_regular_fopen(const char *dir, const char *name, FILE **out, m1_error *err);

/* Appends the rest of any stream to out; name is for errors. */
m1_status m1_read_rest(FILE *file, const char *name, m1_buf *out, m1_error *err);

#endif
