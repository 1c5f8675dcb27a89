/* mapped.c - see mapped.h. */
#define _GNU_SOURCE /* madvise */
#include "files/mapped.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/regular.h"

static m1_status
map_open_file(int fd, const char *name, m1_mapped *out, m1_error *err)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) != 0)
		return m1_fail(err, M1_E_IO, "could not look at \"%s\": %s", name, strerror(errno));
	if (st.st_size == 0)
		return m1_fail(err, M1_E_CORRUPT, "%s is empty", name);
	map = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return m1_fail(err, M1_E_IO, "could not map %s: %s", name, strerror(errno));
	out->data = map;
	out->size = (size_t) st.st_size;
	return M1_OK;
}

m1_status
m1_mapped_open(const char *dir, const char *name, m1_mapped *out, m1_error *err)
{
	m1_status status;
	int fd;

	*out = (m1_mapped){NULL, 0};
	if ((status = m1_regular_open(dir, name, &fd, err)) != M1_OK)
		return status;
	status = map_open_file(fd, name, out, err);
	close(fd);
	return status;
}

void
m1_mapped_close(m1_mapped *m)
{
	if (m->data != NULL)
		munmap((void *) m->data, m->size);
	*m = (m1_mapped){NULL, 0};
}

/* Advice is for whole pages: those that the part touches. A neighbour's bytes on them are fetched again when needed. */
static void
advise(const void *data, size_t bytes, int advice)
{
	const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
	const uintptr_t begin = (uintptr_t) data & ~(page - 1);
	const uintptr_t end = ((uintptr_t) data + bytes + page - 1) & ~(page - 1);

	if (bytes > 0)
		(void) madvise((void *) begin, end - begin, advice);
}

void
m1_mapped_expect(const void *data, size_t bytes)
{
	advise(data, bytes, MADV_WILLNEED);
}

void
m1_mapped_drop(const void *data, size_t bytes)
{
	advise(data, bytes, MADV_DONTNEED);
}
