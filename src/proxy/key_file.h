/* key_file.h - the key that servers ask for, as a file holds it. */
#ifndef M1_PROXY_KEY_FILE_H
#define M1_PROXY_KEY_FILE_H

#include "base/status.h"

/* The file without the white space around it, for the caller to free. NULL for a path that is NULL or "". */
m1_status m1_key_read(const char *path, char **key, m1_error *err);
/* Wipes it. NULL is allowed. */
void m1_key_free(char *key);

#endif
