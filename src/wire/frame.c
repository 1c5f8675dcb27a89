/* frame.c - see frame.h. */
#include "wire/frame.h"

#include <string.h>

bool
m1w_frame_append(m1_buf *out, m1w_type type, uint64_t request_id, const void *payload, size_t length, size_t more)
{
	m1w_header header = {
		.magic = M1W_MAGIC,
		.version = M1W_VERSION,
		.type = (uint16_t) type,
		.length = (uint32_t) length,
		.more = (uint32_t) more,
		.request_id = request_id,
	};

	if (length > M1W_MAX_PART || more > M1W_MAX_PAYLOAD - length || !m1_buf_reserve(out, sizeof header + length))
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
	if (header->length > M1W_MAX_PART)
		return m1_fail(err, M1_E_CORRUPT, "frame of type %u is too long: %u bytes, at most %u", header->type,
					   header->length, M1W_MAX_PART);
	if (header->more > M1W_MAX_PAYLOAD - header->length || (header->more > 0 && header->length < M1W_MAX_PART))
		return m1_fail(err, M1_E_CORRUPT, "frame of type %u has %u bytes, and says that %u more follow", header->type,
					   header->length, header->more);
	*complete = len - sizeof *header >= header->length;
	return M1_OK;
}

bool
m1w_assembly_follow(m1w_assembly *a, m1w_type type, size_t length, size_t more)
{
	if (a->more > 0 && (a->type != type || a->more != length + more))
		return false;
	a->type = type;
	a->more = (uint32_t) more;
	return true;
}

bool
m1w_assembly_add(m1w_assembly *a, const m1w_header *header, const void *part)
{
	if (a->more == 0)
		m1_buf_reserve(&a->payload, (size_t) header->length + header->more);
	m1_buf_append(&a->payload, part, header->length);
	return m1w_assembly_follow(a, (m1w_type) header->type, header->length, header->more);
}
