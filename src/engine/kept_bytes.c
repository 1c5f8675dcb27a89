/* kept_bytes.c - see kept_bytes.h. */
#include "engine/kept_bytes.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define MOST_RUNS 16
#define STALE_MS 10000.0 /* without a piece; one of a megabyte takes milliseconds */

m1_kept_bytes *
m1_kept_find(m1_kept_bytes *list, m1_slice name)
{
	while (list != NULL && !(list->name_len == name.len && memcmp(list->name, name.data, name.len) == 0))
		list = list->next;
	return list;
}

m1_kept_bytes *
m1_kept_take(m1_kept_bytes **list, m1_slice name)
{
	m1_kept_bytes *k = m1_kept_find(*list, name);

	while (*list != k)
		list = &(*list)->next;
	if (k != NULL)
		*list = k->next;
	return k;
}

void
m1_kept_free(m1_kept_bytes *k)
{
	if (k != NULL)
		m1_buf_free(&k->bytes);
	free(k);
}

void
m1_kept_drop(m1_kept_bytes **list, m1_kept_bytes *k)
{
	if (k != NULL)
		m1_kept_free(m1_kept_take(list, (m1_slice){k->name, k->name_len}));
}

/* The one that was left longest ago, or NULL. */
static m1_kept_bytes *
find_stale(m1_kept_bytes *list, double now_ms)
{
	m1_kept_bytes *stale = NULL;

	for (; list != NULL; list = list->next)
		if (list->added_ms < now_ms - STALE_MS && (stale == NULL || list->added_ms < stale->added_ms))
			stale = list;
	return stale;
}

/* Whether there is room for so many bytes more, under one more name. */
static m1_status
make_room(m1_kept_bytes **list, uint64_t more, double now_ms, m1_error *err)
{
	const uint64_t most = m1_machine_memory() / 4;
	m1_kept_bytes *stale;
	uint64_t there;
	int n;

	do
	{
		there = 0;
		n = 0;
		for (const m1_kept_bytes *k = *list; k != NULL; k = k->next, n++)
			there += k->total;
		if (more <= most && there <= most - more && n < MOST_RUNS)
			return M1_OK;
		stale = more <= most ? find_stale(*list, now_ms) : NULL;
		m1_kept_drop(list, stale);
	} while (stale != NULL);
	m1_fail(err, M1_E_NO_MEMORY, "%llu more bytes of adapters cannot be kept", (unsigned long long) more);
	m1_error_detail(err, "There are %llu of at most %llu, under %d of at most %d names.", (unsigned long long) there,
					(unsigned long long) most, n, MOST_RUNS);
	return M1_E_NO_MEMORY;
}

static m1_status
begin(m1_kept_bytes **list, const m1w_bytes *piece, double now_ms, m1_error *err)
{
	m1_kept_bytes *k;
	m1_status status;

	m1_kept_drop(list, m1_kept_find(*list, piece->name));
	if ((status = make_room(list, piece->total, now_ms, err)) != M1_OK)
		return status;
	if ((k = calloc(1, sizeof *k)) == NULL || !m1_buf_reserve(&k->bytes, (size_t) piece->total))
	{
		free(k);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %llu bytes", (unsigned long long) piece->total);
	}
	k->total = piece->total;
	k->name_len = piece->name.len;
	memcpy(k->name, piece->name.data, piece->name.len);
	k->next = *list;
	*list = k;
	return M1_OK;
}

m1_status
m1_kept_put(m1_kept_bytes **list, const m1w_bytes *piece, double now_ms, m1_error *err)
{
	m1_status status = piece->offset == 0 ? begin(list, piece, now_ms, err) : M1_OK;
	m1_kept_bytes *k = m1_kept_find(*list, piece->name);

	if (status != M1_OK)
		return status;
	if (k == NULL)
		return m1_fail(err, M1_E_NOT_FOUND, "there is no beginning of bytes \"%.*s\"",
					   (int) (piece->name.len < 60 ? piece->name.len : 60), piece->name.data);
	if (k->total != piece->total || k->bytes.len != piece->offset)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the piece at %llu of %llu does not follow %zu of %llu",
					   (unsigned long long) piece->offset, (unsigned long long) piece->total, k->bytes.len,
					   (unsigned long long) k->total);
	m1_buf_append(&k->bytes, piece->bytes.data, piece->bytes.len);
	k->added_ms = now_ms;
	return M1_OK;
}
