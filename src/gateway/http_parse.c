/* http_parse.c - see http_parse.h. */
#define _DEFAULT_SOURCE /* strcasecmp */
#include "gateway/http_parse.h"

#include <string.h>
#include <strings.h>

#define MAX_CHUNK_LINE 1024

static bool
is_token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		   (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool
is_token(const char *text)
{
	const char *at = text;

	while (is_token_char(*at))
		at++;
	return at > text && *at == '\0';
}

/* ---- lines ---- */

/* Ends the line at *at with NUL and moves behind it. NULL where it does not end in CRLF. */
static char *
take_line(char **at)
{
	char *line = *at;
	char *end = strpbrk(line, "\r\n");

	if (end == NULL || end[0] != '\r' || end[1] != '\n')
		return NULL;
	*end = '\0';
	*at = end + 2;
	return line;
}

/* The part up to a space, which becomes NUL. NULL where there is none. */
static char *
take_word(char **at)
{
	char *word = *at;
	char *space = strchr(word, ' ');

	if (space == NULL)
		return NULL;
	*space = '\0';
	*at = space + 1;
	return word;
}

static bool
is_visible(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text == 0x7F)
			return false;
	return true;
}

static int
read_request_line(gw_http_head *head, char *line)
{
	head->method = take_word(&line);
	head->path = head->method == NULL ? NULL : take_word(&line);
	if (head->path == NULL || !is_token(head->method) || head->path[0] != '/' || !is_visible(head->path))
		return 400;
	if (strcmp(line, "HTTP/1.1") != 0 && strcmp(line, "HTTP/1.0") != 0)
		return strncmp(line, "HTTP/", 5) == 0 ? 505 : 400;
	head->http10 = line[7] == '0';
	head->query = strchr(head->path, '?');
	if (head->query != NULL)
		*head->query++ = '\0';
	return 0;
}

/* Tabs and spaces around a value are not of it; no other control character may be in it. */
static char *
trimmed(char *value)
{
	char *end = value + strlen(value);

	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	value += strspn(value, " \t");
	for (const char *at = value; *at != '\0'; at++)
		if (((unsigned char) *at < ' ' && *at != '\t') || *at == 0x7F)
			return NULL;
	return value;
}

static int
read_field(gw_http_head *head, char *line)
{
	char *colon = strchr(line, ':');
	char *value;

	if (colon == NULL)
		return 400;
	*colon = '\0';
	value = trimmed(colon + 1);
	if (!is_token(line) || value == NULL)
		return 400;
	if (head->n_fields == GW_HTTP_MAX_FIELDS)
		return 431;
	head->fields[head->n_fields++] = (gw_http_field){line, value};
	return 0;
}

/* ---- what fields mean ---- */

static int
count(const gw_http_head *head, const char *name)
{
	int n = 0;

	for (int i = 0; i < head->n_fields; i++)
		n += strcasecmp(head->fields[i].name, name) == 0;
	return n;
}

const char *
gw_http_field_of(const gw_http_head *head, const char *name)
{
	for (int i = 0; i < head->n_fields; i++)
		if (strcasecmp(head->fields[i].name, name) == 0)
			return head->fields[i].value;
	return NULL;
}

/* Digits only. false where it is more than a size_t may hold with room to spare. */
static bool
read_length(const char *text, size_t *length)
{
	*length = 0;
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++)
	{
		if (*text < '0' || *text > '9' || *length > SIZE_MAX / 100)
			return false;
		*length = *length * 10 + (size_t) (*text - '0');
	}
	return true;
}

/* Whether a list has the word, in any case. */
static bool
has_word(const char *list, const char *word)
{
	const size_t n = strlen(word);

	while (list != NULL && *list != '\0')
	{
		list += strspn(list, " \t,");
		if (strncasecmp(list, word, n) == 0 && (list[n] == '\0' || strchr(" \t,", list[n]) != NULL))
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

/* Those that say one thing may be there once. */
static bool
has_doubles(const gw_http_head *head)
{
	static const char *const single[] = {"Host",	"Content-Length", "Transfer-Encoding",	  "Authorization",
										 "Origin",	"Content-Type",	  "MCP-Protocol-Version", "Mcp-Method",
										 "Mcp-Name"};

	for (size_t i = 0; i < sizeof single / sizeof *single; i++)
		if (count(head, single[i]) > 1)
			return true;
	return false;
}

static int
read_framing(gw_http_head *head)
{
	const char *length = gw_http_field_of(head, "Content-Length");
	const char *coding = gw_http_field_of(head, "Transfer-Encoding");
	const char *connection = gw_http_field_of(head, "Connection");
	const char *content = gw_http_field_of(head, "Content-Encoding");
	const char *expect = gw_http_field_of(head, "Expect");

	if (has_doubles(head) || (!head->http10 && count(head, "Host") == 0))
		return 400;
	if (coding != NULL && (length != NULL || head->http10))
		return 400;
	if (coding != NULL && strcasecmp(coding, "chunked") != 0)
		return 501;
	if (content != NULL && strcasecmp(content, "identity") != 0)
		return 415;
	if (expect != NULL && !head->http10 && strcasecmp(expect, "100-continue") != 0)
		return 417;
	head->expects = expect != NULL && !head->http10;
	head->chunked = coding != NULL;
	if (length != NULL && !read_length(length, &head->content_length))
		return 400;
	head->keep_alive = head->http10 ? has_word(connection, "keep-alive") : !has_word(connection, "close");
	return 0;
}

/* ---- the head ---- */

/* The length of the head, with its empty line; 0 while that has not come. */
static size_t
head_length(m1_slice bytes)
{
	for (size_t i = 3; i < bytes.len; i++)
		if (memcmp(bytes.data + i - 3, "\r\n\r\n", 4) == 0)
			return i + 1;
	return 0;
}

/* Some clients end a body with an empty line that is not of it. */
static size_t
empty_line(m1_slice bytes)
{
	return bytes.len >= 2 && memcmp(bytes.data, "\r\n", 2) == 0 ? 2 : 0;
}

static int
read_lines(gw_http_head *head)
{
	char *at = head->text;
	char *line = take_line(&at);
	int status = line == NULL ? 400 : read_request_line(head, line);

	while (status == 0)
	{
		line = take_line(&at);
		if (line == NULL)
			return 400;
		if (*line == '\0')
			return read_framing(head);
		status = read_field(head, line);
	}
	return status;
}

int
gw_http_read_head(m1_slice bytes, gw_http_head *head, size_t *used)
{
	const size_t most = bytes.len > GW_HTTP_MAX_HEAD ? GW_HTTP_MAX_HEAD : bytes.len;
	const size_t from = empty_line(bytes);
	const size_t length = head_length((m1_slice){bytes.data + from, most - from});

	*used = length == 0 ? 0 : from + length;
	if (length == 0)
		return bytes.len >= GW_HTTP_MAX_HEAD ? 431 : 0;
	memset(head, 0, sizeof *head);
	if (memchr(bytes.data + from, '\0', length) != NULL)
		return 400;
	memcpy(head->text, bytes.data + from, length);
	return read_lines(head);
}

/* ---- chunks ---- */

enum
{
	SIZE_LINE,
	DATA,
	DATA_END,
	TRAILER,
};

/* The line at the beginning, without CRLF. 0, with *length SIZE_MAX while it is not complete, or 400. */
static int
find_line(m1_slice bytes, size_t *length)
{
	const char *end = bytes.len == 0 ? NULL : memchr(bytes.data, '\n', bytes.len);

	*length = SIZE_MAX;
	if (end == NULL)
		return bytes.len > MAX_CHUNK_LINE ? 400 : 0;
	*length = (size_t) (end - bytes.data);
	if (*length == 0 || *length > MAX_CHUNK_LINE || end[-1] != '\r')
		return 400;
	*length -= 1;
	return 0;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* Hexadecimal digits, and an extension that means nothing to us. */
static bool
read_chunk_size(m1_slice line, size_t *size)
{
	size_t n = 0;

	*size = 0;
	for (; n < line.len && hex_value(line.data[n]) >= 0; n++)
	{
		if (n == 8)
			return false;
		*size = *size * 16 + (size_t) hex_value(line.data[n]);
	}
	return n > 0 && (n == line.len || line.data[n] == ';');
}

/* A line of a size, of the end of a chunk, or of a trailer, which is passed over. */
static int
take_chunk_line(gw_http_chunks *c, m1_slice line, size_t room)
{
	switch (c->state)
	{
		case SIZE_LINE:
			if (!read_chunk_size(line, &c->left))
				return 400;
			c->state = c->left == 0 ? TRAILER : DATA;
			return c->left > room ? 413 : 0;
		case DATA_END:
			c->state = SIZE_LINE;
			return line.len == 0 ? 0 : 400;
		default:
			c->done = line.len == 0;
			return 0;
	}
}

int
gw_http_read_chunks(gw_http_chunks *c, m1_slice bytes, size_t most, m1_buf *body, size_t *used)
{
	*used = 0;
	while (!c->done)
	{
		const m1_slice rest = {bytes.data + *used, bytes.len - *used};
		size_t length;
		int status;

		if (c->state == DATA)
		{
			length = rest.len < c->left ? rest.len : c->left;
			m1_buf_append(body, rest.data, length);
			*used += length;
			c->left -= length;
			if (c->left > 0)
				return 0;
			c->state = DATA_END;
			continue;
		}
		status = find_line(rest, &length);
		if (status != 0 || length == SIZE_MAX)
			return status;
		*used += length + 2;
		status = take_chunk_line(c, (m1_slice){rest.data, length}, most - body->len);
		if (status != 0)
			return status;
		if (c->state == TRAILER && c->trailers++ > GW_HTTP_MAX_FIELDS)
			return 400;
	}
	return 0;
}
