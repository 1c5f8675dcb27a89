/*
 * memory.c - see memory.h. A container or a service with MemoryMax is ended by the kernel at its limit, however much
 * the machine has.
 */
#define _GNU_SOURCE 1 /* _SC_PHYS_PAGES; as PostgreSQL defines it, in whose library this is, too */
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define UNKNOWN ((size_t) 1 << 30) /* a machine that does not tell */

/* A number in a file of its own; SIZE_MAX when there is none ("max" is none). */
static size_t
read_limit(const char *path)
{
	FILE *f = fopen(path, "r");
	unsigned long long limit;
	bool known;

	if (f == NULL)
		return SIZE_MAX;
	known = fscanf(f, "%llu", &limit) == 1;
	fclose(f);
	return known ? (size_t) limit : SIZE_MAX;
}

/* The lowest limit of this process's control group (version 2) and those above it. */
static size_t
group_limit(void)
{
	FILE *f = fopen("/proc/self/cgroup", "r");
	char line[2048];
	size_t limit = read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes"); /* version 1 */

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
	{
		char *group = line + 3;
		char *slash;

		if (strncmp(line, "0::", 3) != 0)
			continue;
		group[strcspn(group, "\n")] = '\0';
		do
		{
			char path[sizeof line + 40];
			size_t here;

			snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
			here = read_limit(path);
			limit = here < limit ? here : limit;
			if ((slash = strrchr(group, '/')) != NULL)
				*slash = '\0';
		} while (slash != NULL);
	}
	if (f != NULL)
		fclose(f);
	return limit;
}

size_t
m1_machine_memory(void)
{
	const long pages = sysconf(_SC_PHYS_PAGES);
	const long page_bytes = sysconf(_SC_PAGESIZE);
	const size_t machine = pages > 0 && page_bytes > 0 ? (size_t) pages * (size_t) page_bytes : UNKNOWN;
	const size_t group = group_limit();

	return group > 0 && group < machine ? group : machine;
}

/* What the kernel keeps count of; pages that each processor has just touched or given back are not in it yet. */
static size_t
counted_resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	if (f != NULL)
	{
		if (fscanf(f, "%*d %lu", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	return (size_t) pages * (size_t) sysconf(_SC_PAGESIZE);
}

size_t
m1_resident_memory(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	unsigned long kilobytes = 0;

	while (f != NULL && kilobytes == 0 && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "Rss: %lu kB", &kilobytes) != 1)
			kilobytes = 0;
	if (f != NULL)
		fclose(f);
	return kilobytes > 0 ? (size_t) kilobytes << 10 : counted_resident();
}
