/* frame.c - see frame.h. */
#include "wire/frame.h"

#include <string.h>

bool
m1w_frame_append(m1_buf *out, m1w_type type, uint64_t request_id, const void *payload, size_t length)
{
	m1w_header header = {
		.magic = M1W_MAGIC,
		.version = M1W_VERSION,
		.type = (uint16_t) type,
		.length = (uint32_t) length,
		.request_id = request_id,
	};

	if (length > M1W_MAX_PAYLOAD || !m1_buf_reserve(out, sizeof header + length))
		return false;
	m1_buf_append(out, &header, sizeof header);
	return m1_buf_append(out, payload, length);
}

m1_status
m1w_frame_peek(const void *in, size_t len, m1w_header *header, bool *complete, m1_error *err)
{
	*complete = false;
	memset(header, 0, sizeof *header);
	if (len < sizeof *header)
		return M1_OK;
	memcpy(header, in, sizeof *header);
	if (header->magic != M1W_MAGIC || header->version != M1W_VERSION)
	{
		m1_fail(err, M1_E_CORRUPT, "the engine and the extension do not speak the same protocol");
		m1_error_detail(err, "Magic 0x%08x, version %u; expected 0x%08x, version %u.", header->magic, header->version,
						M1W_MAGIC, M1W_VERSION);
		m1_error_hint(err, "Install the engine and the extension from the same build.");
		return M1_E_CORRUPT;
	}
	if (header->reserved != 0)
		return m1_fail(err, M1_E_CORRUPT, "frame of type %u says what this version does not know", header->type);
	if (header->length > M1W_MAX_PAYLOAD)
		return m1_fail(err, M1_E_CORRUPT, "frame of type %u is too long: %u bytes, at most %u", header->type,
					   header->length, M1W_MAX_PAYLOAD);
	*complete = len - sizeof *header >= header->length;
	return M1_OK;
}
