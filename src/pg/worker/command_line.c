/*
 * command_line.c
 *	  The engine's command line: what settings say, and where things are.
 *
 *	  The engine and the bundled models are found from the library's own place,
 *	  so that a staged installation works like a real one.
 */
#include "pg/worker/command_line.h"
#include "pg/settings.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

/* The folder of the loaded library: the engine lies beside it, and the share folder is found from it. */
static void
library_folder(char *path)
{
	Dl_info		info;
	char	   *slash;

	if (dladdr((void *) library_folder, &info) == 0 || strlen(info.dli_fname) >= MAXPGPATH)
		elog(ERROR, "minimax_m1: could not find the path of the library");
	strlcpy(path, info.dli_fname, MAXPGPATH);
	if ((slash = strrchr(path, '/')) != NULL)
		*slash = '\0';
}

/*
 * Asked with the effective rights, by which exec goes, too: access() asks with
 * the real user's, and without the capabilities that a server may have been
 * given to reach a folder that its user cannot enter.
 */
bool
m1pg_can_run(const char *program)
{
	return faccessat(AT_FDCWD, program, X_OK, AT_EACCESS) == 0;
}

static void
program_path(char *path)
{
	char		folder[MAXPGPATH];

	if (m1pg_engine_path[0] != '\0')
	{
		strlcpy(path, m1pg_engine_path, MAXPGPATH);
		return;
	}
	library_folder(folder);
	/*
	 * The engine with CUDA runs on the CPU, too, where there is no GPU; but cpu
	 * means not to ask for one, as does an engine elsewhere.
	 */
	snprintf(path, MAXPGPATH, "%s/minimax_m1_engine_cuda", folder);
	if (m1pg_device == M1_DEVICE_CPU || m1pg_engine_url[0] != '\0' || !m1pg_can_run(path))
		snprintf(path, MAXPGPATH, "%s/minimax_m1_engine", folder);
}

/* A name without a slash is a bundled model. */
void
m1pg_model_path(char *path)
{
	char		folder[MAXPGPATH];
	Size		stage;

	if (strchr(m1pg_model, '/') != NULL)
	{
		strlcpy(path, m1pg_model, MAXPGPATH);
		return;
	}
	library_folder(folder);
	/* what stands before the configured folder is the stage */
	stage = strlen(folder) >= strlen(M1_PKGLIBDIR) ? strlen(folder) - strlen(M1_PKGLIBDIR) : 0;
	if (strcmp(folder + stage, M1_PKGLIBDIR) != 0)
		stage = 0;
	snprintf(path, MAXPGPATH, "%.*s%s/minimax_m1/models/%s", (int) stage, folder, M1_SHAREDIR, m1pg_model);
}

static void
add_word(StringInfo words, const char *word)
{
	appendBinaryStringInfo(words, word, strlen(word) + 1);
}

void
m1pg_command_line(StringInfo words)
{
	char		path[MAXPGPATH];
	const char *option;
	const char *value;

	resetStringInfo(words);
	program_path(path);
	add_word(words, path);
	add_word(words, m1pg_engine_url[0] != '\0' ? "proxy" : "serve");
	add_word(words, "--fd");
	add_word(words, CppAsString2(M1PG_ENGINE_FD));
	add_word(words, "--model");
	m1pg_model_path(path);
	add_word(words, path);
	for (int i = 0; (option = m1pg_engine_option(i, &value)) != NULL; i++)
	{
		add_word(words, option);
		add_word(words, value);
	}
}

char **
m1pg_command_line_argv(StringInfo words)
{
	char	  **argv = palloc((words->len + 1) * sizeof *argv);
	int			n = 0;

	for (int at = 0; at < words->len; at += strlen(words->data + at) + 1)
		argv[n++] = words->data + at;
	argv[n] = NULL;
	return argv;
}
