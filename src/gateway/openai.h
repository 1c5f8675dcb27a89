/*
 * openai.h - what the files of OpenAI's API share: errors, a chat's request, and the pieces of its answer.
 */
#ifndef M1_GATEWAY_OPENAI_H
#define M1_GATEWAY_OPENAI_H

#include "gateway/call_pieces.h"
#include "gateway/http.h"
#include "text/jsonparse.h"

/* ---- openai_errors.c ---- */

/* The status that a SQLSTATE has in HTTP. */
int gw_status_of(const char *sqlstate);
/* Appends {"error": {...}} with what PostgreSQL says. param may be NULL. */
void gw_put_error(m1_buf *out, const gw_failure *failure, const char *param);
/* Answers with it. */
void gw_http_fail_with(gw_http_exchange *x, const gw_failure *failure, const char *param);

/* ---- chat_request.c ---- */

typedef struct gw_chat_options
{
	bool streams;
	bool with_usage; /* a last piece has it */
} gw_chat_options;

/*
 * Makes the statement of a request to /v1/chat/completions. false: *failure says why, and *param which key is at fault,
 * or NULL.
 */
bool gw_chat_read(const m1_json *body, gw_statement *statement, gw_chat_options *options, gw_failure *failure,
				  const char **param);

/* The columns of that statement. A row has a piece of the answer, or all else, then without a channel. */
enum
{
	GW_CHAT_CHANNEL,
	GW_CHAT_DELTA,
	GW_CHAT_CONTENT,
	GW_CHAT_REASONING,
	GW_CHAT_CALLS,
	GW_CHAT_FINISH_REASON,
	GW_CHAT_PROMPT_TOKENS,
	GW_CHAT_CACHED_TOKENS,
	GW_CHAT_REASONING_TOKENS,
	GW_CHAT_COMPLETION_TOKENS,
	GW_CHAT_MODEL,
	GW_CHAT_LOGPROBS,
	GW_CHAT_FIRST_TOKEN_MS,
};

/* ---- chat_reply.c ---- */

/* One answer: what all its pieces begin with. */
typedef struct gw_chat_reply
{
	char id[48];
	int64_t created;
	m1_buf model;		  /* as the request names it, or as it is */
	gw_call_pieces calls; /* of a stream */
} gw_chat_reply;

void gw_chat_reply_init(gw_chat_reply *reply);
void gw_chat_reply_free(gw_chat_reply *reply);

/*
 * Pieces of a stream: the first one, those of a row of a channel, those of a row with all else, and what ends it. The
 * last is false where calls were told that are none, as is known only then.
 */
void gw_chat_put_first(m1_buf *out, const gw_chat_reply *reply);
void gw_chat_put_delta(m1_buf *out, gw_chat_reply *reply, const PGresult *result, int row);
bool gw_chat_put_last(m1_buf *out, const gw_chat_reply *reply, const PGresult *result, int row, bool with_usage);
/* The whole answer of such a row. */
void gw_chat_put_whole(m1_buf *out, const gw_chat_reply *reply, const PGresult *result, int row);

#endif
