/* fit_folder.c - see fit_folder.h. */
#define _GNU_SOURCE /* mkdir, O_DIRECTORY, dirfd */
#include "train/fit_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files/new_file.h"
#include "files/regular.h"
#include "model/adapter_config.h"
#include "model/adapter_files.h"
#include "train/initialise.h"
#include "train/training_files.h"

static m1_status
path_in(const char *dir, const char *name, char path[M1_MAX_PATH], m1_error *err)
{
	if (snprintf(path, M1_MAX_PATH, "%s/%s", dir, name) < M1_MAX_PATH)
		return M1_OK;
	return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of a folder is too long");
}

static bool
exists_in(const char *dir, const char *name)
{
	char path[M1_MAX_PATH];

	struct stat st;

	return path_in(dir, name, path, NULL) == M1_OK && stat(path, &st) == 0;
}

/* A file of the model or its tokenizer, if it is there. */
static m1_status
copy_file(const char *from, const char *name, const char *to, m1_error *err)
{
	m1_buf content = {0};
	FILE *file;
	m1_status status = m1_regular_fopen(from, name, &file, err);

	if (status != M1_OK)
		return status == M1_E_NOT_FOUND ? M1_OK : status;
	status = m1_read_rest(file, name, &content, err);
	fclose(file);
	if (status == M1_OK)
		status = m1_new_file_put(to, name, (m1_slice){content.data, content.len}, err);
	m1_buf_free(&content);
	return status;
}

#define BEGINNING "beginning.tmp"

/* What is copied of a model; the first is the model's own, the others are the tokenizer's. */
static const char *const copied[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt"};
#define COPIED (sizeof copied / sizeof *copied)

static m1_status
copy_tokenizer(const char *from, const char *to, m1_error *err)
{
	m1_status status = M1_OK;

	for (size_t i = 1; i < COPIED && status == M1_OK; i++)
		status = copy_file(from, copied[i], to, err);
	return status;
}

static m1_status
copy_config(const char *path, const char *to, m1_error *err)
{
	m1_buf content = {0};
	FILE *file = fopen(path, "rbe");
	m1_status status;

	if (file == NULL)
		return m1_fail(err, errno == ENOENT ? M1_E_NOT_FOUND : M1_E_IO, "could not open \"%.150s\": %s", path,
					   strerror(errno));
	status = m1_read_rest(file, path, &content, err);
	fclose(file);
	if (status == M1_OK)
		status = m1_new_file_put(to, "config.json", (m1_slice){content.data, content.len}, err);
	m1_buf_free(&content);
	return status;
}

/* The file of what a training makes. */
static const char *
artifact_of(const m1_fit_options *o)
{
	return m1_fit_adapts(o) ? M1_ADAPTER_MODEL : M1_MODEL_FILE;
}

m1_status
m1_fit_folder_check(const m1_fit_options *o, m1_error *err)
{
	if (!m1_training_exists(o->out))
		return m1_fail(err, M1_E_NOT_FOUND, "there is no training to go on with in \"%.150s\"", o->out);
	if (exists_in(o->out, artifact_of(o)))
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "the training in \"%.150s\" is not of %s", o->out,
			m1_fit_adapts(o) ? "an adapter" : "all weights");
	m1_error_hint(err, "Give the options that it has begun with.");
	return M1_E_INVALID_ARGUMENT;
}

/* A folder that already has a model or an adapter is left alone, unless it is to be replaced. */
m1_status
m1_fit_folder_make(const m1_fit_options *o, m1_error *err)
{
	if (mkdir(o->out, 0777) != 0 && errno != EEXIST)
		return m1_fail(err, M1_E_IO, "could not make \"%.150s\": %s", o->out, strerror(errno));
	if (exists_in(o->out, "model.safetensors.index.json"))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" has a model in several files", o->out);
	/* what is of the other kind is not replaced by this one */
	if (exists_in(o->out, m1_fit_adapts(o) ? M1_MODEL_FILE : M1_ADAPTER_MODEL))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" has %s already", o->out,
					   m1_fit_adapts(o) ? "a model" : "an adapter");
	if (o->replace || (!exists_in(o->out, M1_TRAINING_FILE) && !exists_in(o->out, artifact_of(o))))
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.150s\" has %s already", o->out,
			m1_fit_adapts(o) ? "an adapter" : "a model");
	m1_error_hint(err, "Use {resume} to go on with its training, or {force} to begin anew.");
	return M1_E_INVALID_ARGUMENT;
}

/* Whether what the training begins with has a folder of its own. */
static bool
has_beginning(const m1_fit_options *o)
{
	return !o->resume && !m1_fit_adapts(o);
}

const char *
m1_fit_folder_beginning(const m1_fit_options *o, char room[M1_MAX_PATH])
{
	if (!has_beginning(o))
		return m1_fit_adapts(o) ? o->model : o->out;
	snprintf(room, M1_MAX_PATH, "%s/" BEGINNING, o->out);
	return room;
}

/* And sees to it that its path is not too long. */
static m1_status
make_beginning(const m1_fit_options *o, char path[M1_MAX_PATH], m1_error *err)
{
	const m1_status status = path_in(o->out, BEGINNING, path, err);

	if (status == M1_OK && mkdir(path, 0777) != 0 && errno != EEXIST)
		return m1_fail(err, M1_E_IO, "could not make \"%.150s\": %s", path, strerror(errno));
	return status;
}

m1_status
m1_fit_folder_fill(const m1_fit_options *o, m1_error *err)
{
	char to[M1_MAX_PATH];
	m1_status status = has_beginning(o) ? make_beginning(o, to, err) : M1_OK;

	if (status != M1_OK || !has_beginning(o))
		return status;
	if (o->model == NULL)
	{
		if ((status = copy_config(o->config, to, err)) != M1_OK || o->tokenizer == NULL)
			return status;
		return copy_tokenizer(o->tokenizer, to, err);
	}
	if (!exists_in(o->model, copied[0]))
	{
		m1_fail(err, M1_E_UNSUPPORTED, "\"%.150s\" is no folder with config.json", o->model);
		m1_error_detail(err, "All weights are trained, which those of a GGUF file cannot be.");
		m1_error_hint(err, "Use {rank} to train an adapter, which can be of any model.");
		return M1_E_UNSUPPORTED;
	}
	if ((status = copy_file(o->model, copied[0], to, err)) != M1_OK)
		return status;
	return copy_tokenizer(o->model, to, err);
}

static void
remove_in(const char *dir, const char *name)
{
	char path[M1_MAX_PATH];

	if (path_in(dir, name, path, NULL) == M1_OK)
		unlink(path);
}

void
m1_fit_folder_forget(const m1_fit_options *o)
{
	remove_in(o->out, M1_TRAINING_FILE);
}

/* A model that is replaced has its tokenizer replaced, too, also by none. */
static m1_status
settle_file(const m1_fit_options *o, const char *name, m1_error *err)
{
	char room[M1_MAX_PATH];
	const char *beginning = m1_fit_folder_beginning(o, room);
	char from[M1_MAX_PATH];
	char to[M1_MAX_PATH];
	m1_status status;

	if (!exists_in(beginning, name))
	{
		if (o->replace)
			remove_in(o->out, name);
		return M1_OK;
	}
	if ((status = path_in(beginning, name, from, err)) != M1_OK || (status = path_in(o->out, name, to, err)) != M1_OK)
		return status;
	if (rename(from, to) != 0)
		return m1_fail(err, M1_E_IO, "could not rename \"%.150s\": %s", from, strerror(errno));
	return M1_OK;
}

m1_status
m1_fit_folder_settle(const m1_fit_options *o, m1_error *err)
{
	m1_status status = M1_OK;

	for (size_t i = 0; i < COPIED && has_beginning(o) && status == M1_OK; i++)
		status = settle_file(o, copied[i], err);
	return status;
}

/* Whether it is a file of a checkpoint under its temporary name. */
static bool
is_unfinished(const char *name)
{
	static const char *const files[] = {M1_MODEL_FILE, M1_TRAINING_FILE, M1_ADAPTER_MODEL, M1_ADAPTER_CONFIG};
	const size_t len = strlen(name);
	bool found = false;

	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		found = found || (strncmp(name, files[i], strlen(files[i])) == 0 && name[strlen(files[i])] == '.');
	return found && len > 4 && strcmp(name + len - 4, ".tmp") == 0;
}

static bool
is_any(const char *name)
{
	(void) name;
	return true;
}

static void
remove_files(const char *dir, bool (*which)(const char *name))
{
	DIR *folder = opendir(dir);
	const struct dirent *entry;

	while (folder != NULL && (entry = readdir(folder)) != NULL)
		if (which(entry->d_name))
			unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder != NULL)
		closedir(folder);
}

void
m1_fit_folder_clean(const m1_fit_options *o)
{
	char path[M1_MAX_PATH];

	if (path_in(o->out, BEGINNING, path, NULL) != M1_OK)
		return;
	remove_files(path, is_any);
	rmdir(path);
}

m1_status
m1_fit_folder_lock(const m1_fit_options *o, int *fd, m1_error *err)
{
	if ((*fd = open(o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return m1_fail(err, M1_E_IO, "could not open \"%.150s\": %s", o->out, strerror(errno));
	/* a file system that knows no locks has none to wait for */
	if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
	{
		close(*fd);
		*fd = -1;
		return m1_fail(err, M1_E_UNAVAILABLE, "another training is at work in \"%.150s\"", o->out);
	}
	remove_files(o->out, is_unfinished);
	m1_fit_folder_clean(o);
	return M1_OK;
}

m1_status
m1_fit_folder_initialise(const m1_fit_options *o, const m1_config *config, m1_error *err)
{
	char room[M1_MAX_PATH];
	char path[M1_MAX_PATH];
	m1_status status = path_in(m1_fit_folder_beginning(o, room), M1_MODEL_FILE, path, err);

	return status == M1_OK ? m1_initialise(config, o->fresh_type, o->seed, path, err) : status;
}
