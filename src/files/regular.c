/* regular.c - see regular.h. */
#define _GNU_SOURCE /* O_CLOEXEC, PATH_MAX */
#include "files/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 65536

static m1_status
check(int fd, const char *name, m1_error *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return m1_fail(err, M1_E_IO, "could not look at \"%s\": %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%s\" is not a file", name);
	return M1_OK;
}

m1_status
m1_regular_open(const char *dir, const char *name, int *fd, m1_error *err)
{
	char path[PATH_MAX];
	m1_status status;

	if (snprintf(path, sizeof path, "%s%s%s", dir != NULL ? dir : "", dir != NULL ? "/" : "", name) >=
		(int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of a file is too long");
	/* not blocking, because opening a pipe waits, too */
	if ((*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
	{
		status = errno == ENOENT || errno == ENOTDIR ? M1_E_NOT_FOUND : M1_E_IO;
		m1_fail(err, status, "could not open \"%s\": %s", name, strerror(errno));
		if (dir != NULL)
			m1_error_detail(err, "The folder is \"%s\".", dir);
		return status;
	}
	if ((status = check(*fd, name, err)) != M1_OK)
		close(*fd);
	return status;
}

m1_status
m1_regular_fopen(const char *dir, const char *name, FILE **out, m1_error *err)
{
	int fd;
	m1_status status = m1_regular_open(dir, name, &fd, err);

	if (status == M1_OK && (*out = fdopen(fd, "rb")) == NULL)
	{
		close(fd);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	}
	return status;
}

m1_status
m1_read_rest(FILE *file, const char *name, m1_buf *out, m1_error *err)
{
	size_t n;

	do
	{
		if (!m1_buf_reserve(out, READ_BYTES))
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for \"%.150s\"", name);
		n = fread(out->data + out->len, 1, READ_BYTES, file);
		out->len += n;
	} while (n > 0);
	return ferror(file) ? m1_fail(err, M1_E_IO, "could not read \"%.150s\": %s", name, strerror(errno)) : M1_OK;
}
