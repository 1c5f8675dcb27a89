/* adapter_peft.c - see adapter_peft.h. */
#define _GNU_SOURCE /* mkdtemp */
#include "model/adapter_peft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files/new_file.h"
#include "files/regular.h"
#include "model/adapter_config.h"

#define MAGIC "m1peft01"
#define MAGIC_BYTES 8
#define FOLDER "/dev/shm/minimax_m1.XXXXXX"

bool
m1_adapter_is_peft(m1_slice bytes)
{
	return bytes.len >= MAGIC_BYTES + sizeof(uint32_t) && memcmp(bytes.data, MAGIC, MAGIC_BYTES) == 0;
}

/* ---- the folder ---- */

static m1_status
make_folder(char folder[sizeof FOLDER], m1_error *err)
{
	strcpy(folder, FOLDER);
	if (mkdtemp(folder) != NULL)
		return M1_OK;
	return m1_fail(err, M1_E_IO, "could not make a folder for an adapter's files: %s", strerror(errno));
}

static void
remove_folder(const char *folder)
{
	static const char *const files[] = {M1_ADAPTER_CONFIG, M1_ADAPTER_MODEL};
	char path[sizeof FOLDER + 64];

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
	{
		snprintf(path, sizeof path, "%s/%s", folder, files[i]);
		unlink(path);
	}
	rmdir(folder);
}

static m1_status
read_file(const char *folder, const char *name, m1_buf *out, m1_error *err)
{
	FILE *file;
	m1_status status = m1_regular_fopen(folder, name, &file, err);

	if (status != M1_OK)
		return status;
	status = m1_read_rest(file, name, out, err);
	fclose(file);
	return status;
}

/* ---- both ways ---- */

m1_status
m1_adapter_of_peft(m1_slice bytes, const m1_adapter_base *base, m1_adapter **out, m1_error *err)
{
	char folder[sizeof FOLDER];
	uint32_t len;
	m1_slice config = {bytes.data + MAGIC_BYTES + sizeof len, 0};
	m1_slice model;
	m1_status status;

	*out = NULL;
	memcpy(&len, bytes.data + MAGIC_BYTES, sizeof len);
	if (len > bytes.len - MAGIC_BYTES - sizeof len)
		return m1_fail(err, M1_E_CORRUPT, "the files of the adapter are cut short");
	config.len = len;
	model = (m1_slice){config.data + len, bytes.len - MAGIC_BYTES - sizeof len - len};
	if ((status = make_folder(folder, err)) != M1_OK)
		return status;
	if ((status = m1_new_file_put(folder, M1_ADAPTER_CONFIG, config, err)) == M1_OK &&
		(status = m1_new_file_put(folder, M1_ADAPTER_MODEL, model, err)) == M1_OK)
		status = m1_adapter_load(folder, base, out, err);
	remove_folder(folder);
	return status;
}

m1_status
m1_adapter_put_peft(const m1_adapter *a, const m1_adapter_base *base, m1_buf *out, m1_error *err)
{
	char folder[sizeof FOLDER];
	m1_buf config = {0};
	uint32_t len;
	m1_status status = make_folder(folder, err);

	if (status != M1_OK)
		return status;
	if ((status = m1_adapter_save(a, folder, base, err)) == M1_OK &&
		(status = read_file(folder, M1_ADAPTER_CONFIG, &config, err)) == M1_OK)
	{
		len = (uint32_t) config.len;
		m1_buf_append(out, MAGIC, MAGIC_BYTES);
		m1_buf_append(out, &len, sizeof len);
		m1_buf_append(out, config.data, config.len);
		status = read_file(folder, M1_ADAPTER_MODEL, out, err);
	}
	m1_buf_free(&config);
	remove_folder(folder);
	if (status == M1_OK && out->failed)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter's files");
	return status;
}
