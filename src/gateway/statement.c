/* statement.c - see statement.h. */
#include "gateway/statement.h"

#include <stdio.h>
#include <string.h>

void
gw_sql(gw_statement *s, const char *sql)
{
	m1_buf_puts(&s->sql, sql);
}

void
gw_sql_name(gw_statement *s, m1_slice name)
{
	gw_sql(s, "\"");
	for (size_t i = 0; i < name.len; i++)
		m1_buf_append(&s->sql, name.data[i] == '"' ? "\"\"" : name.data + i, name.data[i] == '"' ? 2 : 1);
	gw_sql(s, "\"");
}

void
gw_sql_value(gw_statement *s, m1_slice value, const char *type)
{
	char place[16];

	if (s->n_values == GW_MAX_PARAMETERS)
	{
		s->failed = true;
		return;
	}
	m1_buf_append(&s->values[s->n_values++], value.data, value.len);
	snprintf(place, sizeof place, type == NULL ? "$%d" : "$%d::", s->n_values);
	gw_sql(s, place);
	if (type != NULL)
		gw_sql(s, type);
}

void
gw_sql_number(gw_statement *s, long value, const char *type)
{
	char text[32];

	snprintf(text, sizeof text, "%ld", value);
	gw_sql_value(s, m1_slice_of(text), type);
}

void
gw_sql_argument(gw_statement *s, const char *name, m1_slice value, const char *type)
{
	if (s->in_call)
		gw_sql(s, ", ");
	s->in_call = true;
	gw_sql_name(s, m1_slice_of(name));
	gw_sql(s, " => ");
	gw_sql_value(s, value, type);
}

bool
gw_statement_finish(gw_statement *s)
{
	s->failed |= m1_buf_cstr(&s->sql) == NULL;
	for (int i = 0; i < s->n_values; i++)
		s->failed |= m1_buf_cstr(&s->values[i]) == NULL || memchr(s->values[i].data, '\0', s->values[i].len) != NULL;
	return !s->failed;
}

void
gw_statement_free(gw_statement *s)
{
	m1_buf_free(&s->sql);
	for (int i = 0; i < s->n_values; i++)
		m1_buf_free(&s->values[i]);
	memset(s, 0, sizeof *s);
}
