/* source.c - see source.h. */
#define _GNU_SOURCE /* strndup, PATH_MAX */
#include "model/source.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SUFFIX ".gguf"

struct m1_source
{
	char *name;
	char *dir;	   /* the folder, also the one that the file is in */
	m1_gguf *gguf; /* NULL: the folder is the model */
};

static bool
has_suffix(const char *name)
{
	const size_t len = strlen(name);

	return len > strlen(SUFFIX) && strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

/* "m1-nano" of "/models/m1-nano/" and of "/models/m1-nano.gguf" */
static char *
name_of(const char *path)
{
	size_t end = strlen(path);
	size_t begin;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
		;
	if (has_suffix(path + begin))
		end -= strlen(SUFFIX);
	return strndup(path + begin, end - begin);
}

static bool
exists(const char *dir, const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	/* not access(), which leaves out the capabilities of this process */
	return snprintf(path, sizeof path, "%s/%s", dir, name) < (int) sizeof path && stat(path, &st) == 0;
}

/* The folder's GGUF file, if there is just one and no config.json; *file is NULL otherwise, and the caller's. */
static m1_status
find_in_folder(const char *dir, char **file, m1_error *err)
{
	DIR *folder = exists(dir, "config.json") ? NULL : opendir(dir);
	const struct dirent *entry;
	m1_status status = M1_OK;

	*file = NULL;
	while (folder != NULL && status == M1_OK && (entry = readdir(folder)) != NULL)
	{
		if (!has_suffix(entry->d_name) || entry->d_name[0] == '.')
			continue;
		if (*file != NULL)
		{
			m1_fail(err, M1_E_INVALID_ARGUMENT, "the folder holds several GGUF files");
			m1_error_detail(err, "Two of them are \"%.100s\" and \"%.100s\", in \"%.200s\".", *file, entry->d_name,
							dir);
			m1_error_hint(err, "Name the file instead of the folder.");
			status = M1_E_INVALID_ARGUMENT;
		}
		else if ((*file = strdup(entry->d_name)) == NULL)
			status = m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	}
	if (folder != NULL)
		closedir(folder);
	return status;
}

/* Splits the path of a file in two; or takes a folder and maybe its one file. */
static m1_status
look(const char *path, m1_source *s, char **file, m1_error *err)
{
	const char *slash = strrchr(path, '/');
	struct stat st;

	*file = NULL;
	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
	{
		s->dir = slash == NULL ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t) (slash - path));
		*file = strdup(slash == NULL ? path : slash + 1);
		return s->dir != NULL && *file != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	}
	if ((s->dir = strdup(path)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	return find_in_folder(path, file, err);
}

m1_status
m1_source_open(const char *path, m1_source **out, m1_error *err)
{
	m1_source *s = calloc(1, sizeof *s);
	char *file = NULL;
	m1_status status = M1_OK;

	*out = NULL;
	if (s == NULL || (s->name = name_of(path)) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory");
	if (status == M1_OK)
		status = look(path, s, &file, err);
	if (status == M1_OK && file != NULL)
		status = m1_gguf_open(s->dir, file, &s->gguf, err);
	free(file);
	if (status != M1_OK)
	{
		m1_source_close(s);
		return status;
	}
	*out = s;
	return M1_OK;
}

void
m1_source_close(m1_source *s)
{
	if (s == NULL)
		return;
	m1_gguf_close(s->gguf);
	free(s->dir);
	free(s->name);
	free(s);
}

const char *
m1_source_name(const m1_source *s)
{
	return s->name;
}

const char *
m1_source_dir(const m1_source *s)
{
	return s->gguf == NULL ? s->dir : NULL;
}

const m1_gguf *
m1_source_gguf(const m1_source *s)
{
	return s->gguf;
}

m1_status
m1_source_config(const m1_source *s, m1_config *config, m1_error *err)
{
	return s->gguf != NULL ? m1_config_load_gguf(s->gguf, config, err) : m1_config_load(s->dir, config, err);
}

m1_status
m1_source_checkpoint(const m1_source *s, m1_checkpoint **out, m1_error *err)
{
	return s->gguf != NULL ? m1_checkpoint_open_gguf(s->gguf, out, err) : m1_checkpoint_open(s->dir, out, err);
}

m1_status
m1_source_tokenizer(const m1_source *s, int vocab_rows, m1_tokenizer **out, m1_error *err)
{
	return s->gguf != NULL ? m1_tokenizer_open_gguf(s->gguf, vocab_rows, out, err)
						   : m1_tokenizer_open(s->dir, vocab_rows, out, err);
}
