/* buf.c - see buf.h. */
#include "base/buf.h"

#include <string.h>

#include "base/block.h"

/* The next capacity, twice as large; or as large as needed, for whoever knows how much will come. 0 on overflow. */
static size_t
grown_capacity(size_t cap, size_t need)
{
	if (need > SIZE_MAX / 4)
		return 0;
	cap = cap < 64 ? 64 : cap * 2;
	return cap < need ? need : cap;
}

static void
release_block(m1_buf *b)
{
	if (b->data != NULL)
		m1_block_free(b->data - b->consumed, b->consumed + b->cap);
}

/* Moves the contents to the beginning of the block, which pays off when that is no more than was consumed. */
static void
reuse_consumed(m1_buf *b)
{
	char *block = b->data - b->consumed;

	if (b->len > 0)
		memmove(block, b->data, b->len);
	b->data = block;
	b->cap += b->consumed;
	b->consumed = 0;
}

/* The contents in a larger block, of which nothing is consumed. NULL when memory ran out. */
static char *
move(m1_buf *b, size_t cap)
{
	char *data;

	if (b->data != NULL && b->consumed == 0)
		return m1_block_grow(b->data, b->cap, cap);
	if ((data = m1_block_create(cap)) == NULL)
		return NULL;
	if (b->len > 0)
		memcpy(data, b->data, b->len);
	release_block(b);
	return data;
}

static bool
grow(m1_buf *b, size_t extra)
{
	const size_t cap = extra > SIZE_MAX / 4 ? 0 : grown_capacity(b->cap, b->len + extra);
	char *data = cap == 0 ? NULL : move(b, cap);

	if (data == NULL)
	{
		b->failed = true;
		return false;
	}
	b->data = data;
	b->cap = cap;
	b->consumed = 0;
	return true;
}

bool
m1_buf_reserve(m1_buf *b, size_t extra)
{
	if (b->failed)
		return false;
	if (extra > b->cap - b->len && b->consumed > 0 && b->len <= b->consumed)
		reuse_consumed(b);
	return extra <= b->cap - b->len || grow(b, extra);
}

bool
m1_buf_append(m1_buf *b, const void *data, size_t len)
{
	if (len == 0)
		return !b->failed;
	if (!m1_buf_reserve(b, len))
		return false;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return true;
}

bool
m1_buf_puts(m1_buf *b, const char *s)
{
	return m1_buf_append(b, s, strlen(s));
}

char *
m1_buf_cstr(m1_buf *b)
{
	if (!m1_buf_reserve(b, 1))
		return NULL;
	b->data[b->len] = '\0';
	return b->data;
}

void
m1_buf_consume(m1_buf *b, size_t n)
{
	if (n > b->len)
		n = b->len;
	if (n == 0)
		return;
	b->data += n;
	b->len -= n;
	b->cap -= n;
	b->consumed += n;
	if (b->len == 0)
		reuse_consumed(b);
}

void
m1_buf_free(m1_buf *b)
{
	release_block(b);
	memset(b, 0, sizeof *b);
}

m1_slice
m1_slice_of(const char *cstr)
{
	m1_slice s = {cstr, cstr == NULL ? 0 : strlen(cstr)};

	return s;
}

bool
m1_ids_reserve(m1_ids *a, size_t extra)
{
	size_t cap;
	int32_t *data;

	if (a->failed)
		return false;
	if (extra <= a->cap - a->len)
		return true;
	cap = extra > SIZE_MAX / 32 ? 0 : grown_capacity(a->cap, a->len + extra);
	if (cap == 0)
		data = NULL;
	else if (a->data == NULL)
		data = m1_block_create(cap * sizeof *data);
	else
		data = m1_block_grow(a->data, a->cap * sizeof *data, cap * sizeof *data);
	if (data == NULL)
	{
		a->failed = true;
		return false;
	}
	a->data = data;
	a->cap = cap;
	return true;
}

bool
m1_ids_push(m1_ids *a, int32_t id)
{
	if (!m1_ids_reserve(a, 1))
		return false;
	a->data[a->len++] = id;
	return true;
}

void
m1_ids_free(m1_ids *a)
{
	m1_block_free(a->data, a->cap * sizeof *a->data);
	memset(a, 0, sizeof *a);
}
