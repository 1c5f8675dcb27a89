/*
 * usage_file.c
 *	  Keeps the use by roles over restarts, in two files beside those of
 *	  PostgreSQL's own statistics.
 *
 *	  While there is something new the worker writes the one file every second,
 *	  without waiting for the disk, and the other every half a minute, with fsync:
 *	  a crash of the server costs the record of its last second, a crash of the
 *	  machine that of half a minute. Both are written beside themselves and then
 *	  renamed; the start of the server takes the newer of those that are whole.
 *	  Not a table, because a rollback must not undo what has been used, and because
 *	  a standby counts too.
 */
#include "pg/usage/usage_file.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"

#include <unistd.h>

#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define SYNCED_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/minimax_m1.usage"
#define RECENT_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/minimax_m1.usage.recent"

#define MAGIC			0x4d315553
#define VERSION			1
#define RECENT_MS		1000
#define SYNC_MS			30000

/* The header, the roles, the rows, and the checksum of it all. */
typedef struct FileHeader
{
	uint32		magic;
	uint32		version;
	uint32		role_size;
	uint32		row_size;
	uint64		changes;
	int32		n_roles;
	int32		n_rows;
} FileHeader;

typedef struct Image
{
	FileHeader *header;			/* where the bytes begin; NULL = no image */
	M1RoleHour *roles;
	M1UsageRow *rows;
	Size		size;			/* without the checksum */
} Image;

/* Of the worker: what it has written, and when. */
static struct
{
	uint64		recent;			/* M1Usage.changes when it was written */
	uint64		synced;
	TimestampTz recent_at;
	TimestampTz synced_at;
	bool		failed;			/* the last attempt, which was reported */
} written;

static void
lay_out(Image *image, char *bytes, int n_roles, int n_rows)
{
	image->header = (FileHeader *) bytes;
	image->roles = (M1RoleHour *) (bytes + sizeof(FileHeader));
	image->rows = (M1UsageRow *) (image->roles + n_roles);
	image->size = sizeof(FileHeader) + n_roles * sizeof(M1RoleHour) + n_rows * sizeof(M1UsageRow);
}

static pg_crc32c
checksum(const Image *image)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, image->header, image->size);
	FIN_CRC32C(crc);
	return crc;
}

/* ---- reading ---- */

/* Why a header cannot be used, or NULL. */
static const char *
fault_of(const FileHeader *h)
{
	if (h->magic != MAGIC)
		return "It is not a usage file.";
	if (h->version != VERSION || h->role_size != sizeof(M1RoleHour) || h->row_size != sizeof(M1UsageRow))
		return "It is of another version.";
	if (h->n_roles < 0 || h->n_roles > M1PG_MAX_ROLES || h->n_rows < 0 ||
		(Size) h->n_rows > MaxAllocSize / sizeof(M1UsageRow))
		return "Its header makes no sense.";
	return NULL;
}

static const char *
read_body(FILE *file, const FileHeader *h, Image *image)
{
	Size		size = sizeof *h + h->n_roles * sizeof(M1RoleHour) + h->n_rows * sizeof(M1UsageRow);
	char	   *bytes = palloc_extended(size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	pg_crc32c	crc;

	if (bytes == NULL)
		return "There is not enough memory for it.";
	memcpy(bytes, h, sizeof *h);
	lay_out(image, bytes, h->n_roles, h->n_rows);
	if (fread(bytes + sizeof *h, 1, size - sizeof *h, file) != size - sizeof *h ||
		fread(&crc, sizeof crc, 1, file) != 1 || fgetc(file) != EOF)
		return "Its length is wrong.";
	if (!EQ_CRC32C(crc, checksum(image)))
		return "Its checksum is wrong.";
	for (int i = 0; i < h->n_rows; i++)
		image->rows[i].function[NAMEDATALEN - 1] = '\0';
	return NULL;
}

/* An absent file is no image; one that cannot be used is reported, and kept for whoever wants to look at it. */
static Image
read_image(const char *path)
{
	Image		image = {0};
	FileHeader	header;
	const char *fault;
	FILE	   *file = AllocateFile(path, PG_BINARY_R);

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(), errmsg("minimax_m1: could not read file \"%s\": %m", path)));
		return image;
	}
	if (fread(&header, sizeof header, 1, file) != 1)
		fault = "Its length is wrong.";
	else if ((fault = fault_of(&header)) == NULL)
		fault = read_body(file, &header, &image);
	FreeFile(file);
	if (fault == NULL)
		return image;
	ereport(LOG, (errmsg("minimax_m1: file \"%s\" cannot be used", path), errdetail("%s", fault),
				  errhint("It was renamed to \"%s.bad\".", path)));
	(void) rename(path, psprintf("%s.bad", path));
	if (image.header != NULL)
		pfree(image.header);
	image.header = NULL;
	return image;
}

void
m1pg_usage_load(void)
{
	Image		images[] = {read_image(SYNCED_FILE), read_image(RECENT_FILE)};
	Image	   *newer = &images[0];

	if (images[0].header == NULL || (images[1].header != NULL && images[1].header->changes > images[0].header->changes))
		newer = &images[1];
	if (newer->header != NULL)
	{
		int			n = Min(newer->header->n_rows, m1pg_usage->max_rows);

		if (n < newer->header->n_rows)
			ereport(LOG, (errmsg("minimax_m1: %d rows of usage do not fit", newer->header->n_rows - n),
						  errhint("Raise minimax_m1.max_usage_rows and restore \"%s\" from a copy.", SYNCED_FILE)));
		m1pg_usage->changes = newer->header->changes;
		m1pg_usage->n_roles = newer->header->n_roles;
		m1pg_usage->n_rows = n;
		memcpy(m1pg_usage->roles, newer->roles, newer->header->n_roles * sizeof(M1RoleHour));
		memcpy(m1pg_usage->rows, newer->rows, n * sizeof(M1UsageRow));
	}
	for (int i = 0; i < 2; i++)
		if (images[i].header != NULL)
			pfree(images[i].header);
}

/* ---- writing ---- */

/* false: there is no memory for it now. */
static bool
take_image(Image *image)
{
	char	   *bytes;

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	bytes = palloc_extended(sizeof(FileHeader) + m1pg_usage->n_roles * sizeof(M1RoleHour) +
							m1pg_usage->n_rows * sizeof(M1UsageRow), MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (bytes != NULL)
	{
		FileHeader	header = {
			MAGIC, VERSION, sizeof(M1RoleHour), sizeof(M1UsageRow), m1pg_usage->changes, m1pg_usage->n_roles,
			m1pg_usage->n_rows
		};

		memcpy(bytes, &header, sizeof header);
		lay_out(image, bytes, header.n_roles, header.n_rows);
		memcpy(image->roles, m1pg_usage->roles, header.n_roles * sizeof(M1RoleHour));
		memcpy(image->rows, m1pg_usage->rows, header.n_rows * sizeof(M1UsageRow));
	}
	LWLockRelease(m1pg_shared->lock);
	return bytes != NULL;
}

static bool
write_image(const Image *image, const char *path, bool sync)
{
	char		temporary[MAXPGPATH];
	pg_crc32c	crc = checksum(image);
	FILE	   *file;
	bool		ok;

	snprintf(temporary, sizeof temporary, "%s.tmp", path);
	if ((file = AllocateFile(temporary, PG_BINARY_W)) == NULL)
		return false;
	ok = fwrite(image->header, 1, image->size, file) == image->size && fwrite(&crc, sizeof crc, 1, file) == 1;
	if (FreeFile(file) != 0 || !ok)
		return false;
	return sync ? durable_rename(temporary, path, LOG) == 0 : rename(temporary, path) == 0;
}

static bool
is_due(uint64 done, TimestampTz at, int ms)
{
	return m1pg_usage->changes != done && TimestampDifferenceExceeds(at, GetCurrentTimestamp(), ms);
}

void
m1pg_usage_save(bool last)
{
	bool		sync;
	bool		ok = false;
	Image		image;

	if (written.synced_at == 0)
	{
		/* the worker has just begun: what is here now was loaded, or saved by the worker before */
		written.synced_at = GetCurrentTimestamp();
		written.recent = m1pg_usage->changes;
	}
	sync = is_due(written.synced, written.synced_at, SYNC_MS) || (last && m1pg_usage->changes != written.synced);
	if (!sync && !is_due(written.recent, written.recent_at, RECENT_MS))
		return;
	written.recent_at = GetCurrentTimestamp();
	if (sync)
		written.synced_at = written.recent_at;
	if (take_image(&image))
	{
		ok = write_image(&image, sync ? SYNCED_FILE : RECENT_FILE, sync);
		if (ok)
			written.recent = image.header->changes;
		if (ok && sync)
			written.synced = image.header->changes;
		if (!ok && !written.failed)
			ereport(LOG, (errcode_for_file_access(),
						  errmsg("minimax_m1: could not write file \"%s\": %m", sync ? SYNCED_FILE : RECENT_FILE),
						  errdetail("It is tried again as long as it takes; the usage is kept in memory.")));
		pfree(image.header);
	}
	written.failed = !ok;
}

static long
time_left(uint64 done, TimestampTz at, int ms)
{
	if (m1pg_usage->changes == done)
		return -1;
	return Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), TimestampTzPlusMilliseconds(at, ms))) + 1;
}

long
m1pg_usage_timeout(void)
{
	long		recent = time_left(written.recent, written.recent_at, RECENT_MS);
	long		sync = time_left(written.synced, written.synced_at, SYNC_MS);

	return recent < 0 || (sync >= 0 && sync < recent) ? sync : recent;
}
