/*
 * frame.h - the unit that travels between worker and engine, on a stream of bytes: a fixed header and a payload.
 *
 * A client backend and its worker exchange the same types and payloads, but without header: their queue keeps messages
 * apart, so type and what is to follow come first. Both ends run on one machine, so integers are in native byte order;
 * a peer of another build is refused by magic and version. Every header is checked before its length is believed.
 *
 * A long message travels in parts, a frame each, between which the frames of other requests may come: nobody's answer
 * stands behind somebody else's 64 MB. The frames of one request keep their order.
 */
#ifndef M1_WIRE_FRAME_H
#define M1_WIRE_FRAME_H

#include "base/buf.h"
#include "base/status.h"

#define M1W_MAGIC 0x4d31574du /* "M1WM" */
#define M1W_VERSION 10

/* Longest message either side accepts: above any prompt for a 1M-token context. */
#define M1W_MAX_PAYLOAD (64u << 20)
/* Of it in one frame; every part but the last has as many bytes. */
#define M1W_MAX_PART (64u << 10)

typedef enum m1w_type
{
	/* client to engine */
	M1W_GENERATE = 1, /* m1w_generate: a chat request, answered by DELTA*, then DONE or ERROR */
	M1W_TOKENIZE,	  /* m1w_words: answered by TOKENS, or by COUNTED, or ERROR */
	M1W_DETOKENIZE,	  /* m1w_tokens: answered by TEXT or ERROR */
	M1W_LOGITS,		  /* m1w_tokens: answered by VECTOR (logits after the last id) or ERROR */
	M1W_CANCEL,		  /* no payload: the request ends with ERROR code cancelled */
	M1W_PAUSE,		  /* no payload: the client reads slowly, stop generating for it */
	M1W_RESUME,		  /* no payload */
	M1W_PUT,	  /* m1w_bytes: a piece of an adapter or a training, kept under a name; answered by LEARNED or ERROR */
	M1W_FETCH,	  /* m1w_bytes: a piece of what a training is now; answered by BYTES or ERROR */
	M1W_TRAINING, /* m1w_training: a training begins, or goes on; answered by LEARNED or ERROR */
	M1W_LESSON,	  /* m1w_lesson: a batch of it; answered by LEARNED or ERROR */
	M1W_SERVE,	  /* m1w_serve: requests can name an adapter from now on; answered by LEARNED or ERROR */
	M1W_FORGET,	  /* m1w_forget: of the above; answered by LEARNED or ERROR */

	/* engine to client */
	M1W_READY = 64, /* m1w_ready: the model is loaded; again when its device has changed; request_id 0 */
	M1W_PROGRESS,	/* m1w_progress */
	M1W_DELTA,		/* m1w_delta: streamed text, only when asked for */
	M1W_DONE,		/* m1w_done: ends a GENERATE */
	M1W_TOKENS,		/* m1w_tokens: ends a TOKENIZE */
	M1W_TEXT,		/* m1w_text: ends a DETOKENIZE */
	M1W_VECTOR,		/* m1w_vector: ends a LOGITS */
	M1W_ERROR,		/* m1w_failure: ends any request; with request_id 0, the engine could not start */
	M1W_CACHE,		/* m1w_cache: what the prefix cache holds has changed; request_id 0 */
	M1W_LEARNED,	/* m1w_learned: ends a PUT, TRAINING, LESSON, SERVE or FORGET */
	M1W_BYTES,		/* m1w_bytes: ends a FETCH */
	M1W_COUNTED,	/* m1w_counted: ends a TOKENIZE of which only the count is wanted */
} m1w_type;

typedef struct m1w_header
{
	uint32_t magic;
	uint16_t version;
	uint16_t type;		 /* m1w_type */
	uint32_t length;	 /* bytes of payload that follow */
	uint32_t more;		 /* bytes of the same message in frames to come */
	uint64_t request_id; /* chosen by the worker; 0 = the engine itself */
} m1w_header;

/*
 * Appends a frame: a message, or a part of one of which `more` bytes follow. false when memory ran out, or it is longer
 * than a part may be.
 */
bool m1w_frame_append(m1_buf *out, m1w_type type, uint64_t request_id, const void *payload, size_t length, size_t more);

/*
 * Looks at the start of in[0..len). Returns M1_OK and sets *header when a whole
 * header is there and valid; *complete tells whether its payload is there too
 * (it then starts at in + sizeof(m1w_header)). With too few bytes for a header,
 * M1_OK and *complete = false with header->type 0. M1_E_CORRUPT on a bad header.
 */
m1_status m1w_frame_peek(const void *in, size_t len, m1w_header *header, bool *complete, m1_error *err);

/* A message of which parts have come. Zero-initialised: none. Owned by who reads the stream, one for each request. */
typedef struct m1w_assembly
{
	m1w_type type;
	uint32_t more; /* bytes that are to come; 0 = no message has begun */
	m1_buf payload;
} m1w_assembly;

/* Takes note of the request's next frame. false: it is not what follows. */
bool m1w_assembly_follow(m1w_assembly *a, m1w_type type, size_t length, size_t more);
/* The same, and keeps what it carries: the message is complete when a->more is 0. payload.failed: out of memory. */
bool m1w_assembly_add(m1w_assembly *a, const m1w_header *header, const void *part);

#endif
