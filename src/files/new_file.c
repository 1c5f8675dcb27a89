/* new_file.c - see new_file.h. */
#define _GNU_SOURCE /* fallocate, O_CLOEXEC */
#include "files/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static m1_status
refuse_existing(const m1_new_file *f, m1_error *err)
{
	struct stat st;

	if (stat(f->path, &st) != 0)
		return M1_OK;
	if (!S_ISREG(st.st_mode))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" exists and is not a file", f->path);
	if (f->replace)
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" exists already", f->path);
	m1_error_hint(err, "Use {force} to replace it.");
	return M1_E_INVALID_ARGUMENT;
}

m1_status
m1_new_file_create(const char *path, bool replace, m1_new_file *f, m1_error *err)
{
	m1_status status;

	f->fd = -1;
	f->replace = replace;
	if (snprintf(f->path, sizeof f->path, "%s", path) >= (int) sizeof f->path ||
		snprintf(f->temporary, sizeof f->temporary, "%s.%d.tmp", path, (int) getpid()) >= (int) sizeof f->temporary)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the file to write is too long");
	else
		status = refuse_existing(f, err);
	if (status == M1_OK && (f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0)
		status = m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", f->temporary, strerror(errno));
	if (status != M1_OK)
		f->temporary[0] = '\0';
	return status;
}

void
m1_new_file_drop(m1_new_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	if (f->temporary[0] != '\0')
		unlink(f->temporary);
	f->fd = -1;
	f->temporary[0] = '\0';
}

/* A file system that cannot do this tells of a full disk later. */
m1_status
m1_new_file_reserve(m1_new_file *f, uint64_t bytes, m1_error *err)
{
	if (fallocate(f->fd, 0, 0, (off_t) bytes) == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG))
		return M1_OK;
	m1_fail(err, M1_E_IO, "no room for \"%.150s\": %s", f->path, strerror(errno));
	m1_error_detail(err, "The file will have %llu bytes.", (unsigned long long) bytes);
	return M1_E_IO;
}

m1_status
m1_new_file_write(m1_new_file *f, const void *data, size_t bytes, m1_error *err)
{
	const char *at = data;

	while (bytes > 0)
	{
		const ssize_t n = write(f->fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return m1_fail(err, M1_E_IO, "could not write \"%.150s\": %s", f->temporary, strerror(errno));
		at += n;
		bytes -= (size_t) n;
	}
	return M1_OK;
}

/* The new name is durable when its folder is. */
static m1_status
sync_folder(const m1_new_file *f, m1_error *err)
{
	char dir[M1_MAX_PATH];
	char *slash;
	m1_status status = M1_OK;
	int fd;

	snprintf(dir, sizeof dir, "%s", f->path);
	slash = strrchr(dir, '/');
	if (slash == NULL)
		snprintf(dir, sizeof dir, ".");
	else
		slash[slash == dir] = '\0';
	if ((fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || (fsync(fd) != 0 && errno != EINVAL))
		status = m1_fail(err, M1_E_IO, "could not make \"%.150s\" durable: %s", f->path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return status;
}

m1_status
m1_new_file_finish(m1_new_file *f, m1_error *err)
{
	m1_status status;
	int closed;

	if ((status = refuse_existing(f, err)) != M1_OK)
		return status;
	closed = fsync(f->fd) == 0 ? 0 : -1;
	closed = close(f->fd) == 0 ? closed : -1;
	f->fd = -1;
	if (closed != 0)
		return m1_fail(err, M1_E_IO, "could not write \"%.150s\": %s", f->temporary, strerror(errno));
	if (rename(f->temporary, f->path) != 0)
		return m1_fail(err, M1_E_IO, "could not create \"%.150s\": %s", f->path, strerror(errno));
	f->temporary[0] = '\0';
	return sync_folder(f, err);
}

m1_status
m1_new_file_put(const char *dir, const char *name, m1_slice content, m1_error *err)
{
	char path[M1_MAX_PATH];
	m1_new_file f;
	m1_status status;

	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the file to write is too long");
	if ((status = m1_new_file_create(path, true, &f, err)) == M1_OK &&
		(status = m1_new_file_write(&f, content.data, content.len, err)) == M1_OK)
		status = m1_new_file_finish(&f, err);
	m1_new_file_drop(&f);
	return status;
}
