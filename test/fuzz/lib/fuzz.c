/* fuzz.c - see fuzz.h. */
#define _GNU_SOURCE /* mkdtemp, clock_gettime */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

/*
 * What one execution may take of the processor: some for whatever the target begins with, and so much a byte. An
 * algorithm that is not about linear is far beyond it, even sanitized.
 */
#define SECONDS_OF_ANY_INPUT 4.0
#define SECONDS_OF_A_BYTE 2e-4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static double
cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static uint64_t
seed_of(const uint8_t *data, size_t size)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < size; i++)
		h = (h ^ data[i]) * 0x100000001b3u;
	return h | 1;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_input in = {.at = data, .left = size, .random = seed_of(data, size)};
	const double start = cpu_seconds();
	double took;

	fuzz_one(&in);
	took = cpu_seconds() - start;
	fuzz_check(took < SECONDS_OF_ANY_INPUT + SECONDS_OF_A_BYTE * (double) size, "%zu bytes took %.1f s", size, took);
	return 0;
}

_Noreturn void
fuzz_fail(const char *file, int line, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s:%d: ", file, line);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	abort();
}

void
fuzz_check_error(m1_status status, const m1_error *err)
{
	fuzz_check(status == err->code && status != M1_OK && status < M1_STATUS_COUNT, "status %d, in the error %d",
			   (int) status, (int) err->code);
	fuzz_check(status != M1_E_INTERNAL && status != M1_E_NO_MEMORY, "%s: %s (%s)", m1_status_name(status), err->message,
			   err->detail);
	fuzz_check(err->message[0] != '\0' && strlen(err->message) < sizeof err->message, "an error without a message");
}

/* ---- choices ---- */

static uint64_t
next_random(fuzz_input *in)
{
	in->random ^= in->random << 13;
	in->random ^= in->random >> 7;
	in->random ^= in->random << 17;
	return in->random >> 16;
}

uint32_t
fuzz_below(fuzz_input *in, uint32_t n)
{
	uint32_t x = 0;

	if (n < 2)
		return 0;
	for (uint32_t bytes = n > 256 ? 2 : 1; bytes > 0 && in->left > 0; bytes--, in->left--)
		x = x << 8 | *in->at++;
	return x % n;
}

uint32_t
fuzz_random_below(fuzz_input *in, uint32_t n)
{
	return in->left > 0 ? fuzz_below(in, n) : (uint32_t) (next_random(in) % n);
}

uint64_t
fuzz_u64(fuzz_input *in)
{
	const m1_slice bytes = fuzz_take(in, 8);
	uint64_t x = 0;

	memcpy(&x, bytes.data, bytes.len);
	return x;
}

m1_slice
fuzz_take(fuzz_input *in, size_t n)
{
	const m1_slice taken = {in->at != NULL ? (const char *) in->at : "", n < in->left ? n : in->left};

	if (taken.len > 0)
		in->at += taken.len;
	in->left -= taken.len;
	return taken;
}

m1_slice
fuzz_rest(fuzz_input *in)
{
	return fuzz_take(in, in->left);
}

m1_buf
fuzz_text(m1_slice bytes)
{
	m1_utf8 u = {0};
	m1_buf text = {0};

	m1_utf8_push(&u, bytes, &text);
	m1_utf8_finish(&u, &text);
	fuzz_check(m1_buf_cstr(&text) != NULL, "out of memory");
	return text;
}

const char *
fuzz_one_of(fuzz_input *in, const char *const *list)
{
	uint32_t n = 0;

	while (list[n] != NULL)
		n++;
	return list[fuzz_below(in, n)];
}

/* ---- files ---- */

static char folder[] = "/dev/shm/m1-fuzz-XXXXXX";

static void
remove_folder(void)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir != NULL)
		closedir(dir);
	rmdir(folder);
}

const char *
fuzz_folder(void)
{
	static bool made;

	if (!made)
	{
		fuzz_check(mkdtemp(folder) != NULL, "there is no folder %s", folder);
		atexit(remove_folder);
		made = true;
	}
	return folder;
}

void
fuzz_write_file(const char *name, m1_slice bytes)
{
	char path[300];
	int fd;

	snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	fuzz_check(fd >= 0 && write(fd, bytes.data, bytes.len) == (ssize_t) bytes.len, "%s cannot be written", path);
	close(fd);
}

void
fuzz_remove_file(const char *name)
{
	char path[300];

	snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
	unlink(path);
}
