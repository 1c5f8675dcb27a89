/*
 * new_file.h - a file that appears under its name only when it is whole: until then it is a temporary one beside it,
 * and what had the name before stays. Whoever writes files of models and of trainings writes them so.
 *
 * One thread.
 */
#ifndef M1_FILES_NEW_FILE_H
#define M1_FILES_NEW_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

#define M1_MAX_PATH 4096 /* bytes, the end among them */

typedef struct m1_new_file
{
	char path[M1_MAX_PATH];
	char temporary[M1_MAX_PATH]; /* "": there is none */
	bool replace;
	int fd;
} m1_new_file;

/*
 * M1_E_INVALID_ARGUMENT when the file exists and is not to be replaced. After a failure there is nothing to drop, but
 * it does no harm.
 */
m1_status m1_new_file_create(const char *path, bool replace, m1_new_file *out, m1_error *err);
/* Removes what is not finished; does nothing after m1_new_file_finish. */
void m1_new_file_drop(m1_new_file *f);

/* Takes the room that the whole file needs on the disk: better told now than after an hour. */
m1_status m1_new_file_reserve(m1_new_file *f, uint64_t bytes, m1_error *err);
m1_status m1_new_file_write(m1_new_file *f, const void *data, size_t bytes, m1_error *err);
/* It is whole: makes it durable and gives it its name. */
m1_status m1_new_file_finish(m1_new_file *f, m1_error *err);

/* All of these in one, for a small file: replaces dir/name. */
m1_status m1_new_file_put(const char *dir, const char *name, m1_slice content, m1_error *err);

#endif
