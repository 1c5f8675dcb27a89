/* cmd_tokenize.c - `tokenize`: text on stdin, token ids on stdout, one per line. */
#include "commands/cli.h"
#include "model/source.h"

int
m1_cmd_tokenize(const m1_cli *cli)
{
	m1_source *source = NULL;
	m1_tokenizer *t = NULL;
	m1_buf text = {0};
	m1_ids ids = {0};
	m1_config config;
	m1_error err;
	m1_status status = m1_source_open(cli->model, &source, &err);

	if (status == M1_OK)
		status = m1_source_config(source, &config, &err);
	if (status == M1_OK)
		status = m1_source_tokenizer(source, config.vocab_size, &t, &err);
	if (status == M1_OK)
		status = m1_cli_read_file("-", &text, &err);
	if (status == M1_OK)
		status = m1_tokenizer_encode(t, (m1_slice){text.data, text.len}, cli->special ? M1_ADDED_ALL : M1_ADDED_NONE,
									 &ids, NULL, NULL, &err);
	for (size_t i = 0; status == M1_OK && i < ids.len; i++)
		printf("%d\n", ids.data[i]);
	m1_ids_free(&ids);
	m1_buf_free(&text);
	m1_tokenizer_close(t);
	m1_source_close(source);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
