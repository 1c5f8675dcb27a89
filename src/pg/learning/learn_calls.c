/*
 * learn_calls.c
 *	  The requests about trainings and adapters, each to its end. What comes back
 *	  has been judged by the worker (worker/answer.c).
 */
#include "pg/learning/learn_calls.h"
#include "pg/client/detached.h"
#include "pg/client/texts.h"
#include "pg/report.h"

void
m1pg_learn_disbelieve(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("minimax_m1: the engine's answers about a training cannot be true"),
			 errdetail("%s", detail),
			 errhint("Look into the server's log for why the engine may be broken. resume_training() goes on from the "
					 "last step.")));
	pg_unreachable();
}

static M1Exchange *
open_request(void *arg, m1_error *error)
{
	return m1pg_exchange_try_open(arg, error);
}

/* NULL: refused, *error. */
static M1Exchange *
open_for(const M1LearnCaller *c, M1Request *request, m1_error *error)
{
	M1Exchange *exchange;

	do
		exchange = OidIsValid(c->role) ? m1pg_open_detached(c->role, open_request, request, error) :
			m1pg_exchange_try_open(request, error);
	while (exchange == NULL && error->code == M1_E_OVERLOADED && c->refused != NULL && c->refused(c->arg, error));
	return exchange;
}

/* The answer, of the type that is expected, or NULL: *error. It is palloc'd. */
static char *
ask(const M1LearnCaller *c, M1Request *request, m1w_type expected, Size *len, m1_error *error)
{
	M1Exchange *exchange;
	const char *payload;
	char	   *answer = NULL;
	m1w_type	type;

	request->function = c->function;
	request->excerpt = "";
	if ((exchange = open_for(c, request, error)) == NULL)
		return NULL;
	type = m1pg_exchange_try_receive(exchange, &payload, len, error);
	if (type == expected)
	{
		answer = palloc_extended(Max(*len, 1), MCXT_ALLOC_HUGE);
		memcpy(answer, payload, *len);
	}
	m1pg_exchange_close(exchange);
	if (type != expected && type != M1W_ERROR)
		elog(ERROR, "minimax_m1: unexpected event %d", (int) type);
	return answer;
}

static bool
tell(const M1LearnCaller *c, M1Request *request, m1w_learned *learned, m1_error *error)
{
	m1w_learned unwanted;
	Size		len;
	char	   *answer = ask(c, request, M1W_LEARNED, &len, error);

	if (answer == NULL)
		return false;
	if (m1w_decode_learned(answer, len, learned != NULL ? learned : &unwanted, error) != M1_OK)
		m1pg_report(error);
	return true;
}

bool
m1pg_learn_put(const M1LearnCaller *c, const m1w_bytes *piece, m1_error *error)
{
	M1Request	request = {.type = M1W_PUT, .message.bytes = piece};

	return tell(c, &request, NULL, error);
}

bool
m1pg_learn_begin(const M1LearnCaller *c, const m1w_training *t, m1w_learned *learned, m1_error *error)
{
	M1Request	request = {.type = M1W_TRAINING, .message.training = t};

	return tell(c, &request, learned, error);
}

bool
m1pg_learn_lesson(const M1LearnCaller *c, const m1w_lesson *l, m1w_learned *learned, m1_error *error)
{
	M1Request	request = {.type = M1W_LESSON, .message.lesson = l};

	return tell(c, &request, learned, error);
}

bool
m1pg_learn_serve(const M1LearnCaller *c, m1_slice name, m1_slice from, m1_error *error)
{
	m1w_serve	m = {.name = name, .from = from};
	M1Request	request = {.type = M1W_SERVE, .message.serve = &m};

	return tell(c, &request, NULL, error);
}

bool
m1pg_learn_forget(const M1LearnCaller *c, m1w_kept kind, m1_slice name, m1_error *error)
{
	m1w_forget	m = {.kind = kind, .name = name};
	M1Request	request = {.type = M1W_FORGET, .message.forget = &m};

	return tell(c, &request, NULL, error) || error->code == M1_E_NOT_FOUND;
}

static bool
fetch_piece(const M1LearnCaller *c, const m1w_bytes *piece, m1w_bytes *got, m1_error *error)
{
	M1Request	request = {.type = M1W_FETCH, .message.bytes = piece};
	Size		len;
	char	   *answer = ask(c, &request, M1W_BYTES, &len, error);

	if (answer == NULL)
		return false;
	if (m1w_decode_bytes(answer, len, got, error) != M1_OK)
		m1pg_report(error);
	return true;
}

bool
m1pg_learn_fetch(const M1LearnCaller *c, m1_slice name, m1w_part part, uint64 most, m1_slice *bytes, m1_error *error)
{
	m1w_bytes	piece = {.name = name, .part = part, .most = M1PG_PIECE_BYTES};
	m1w_bytes	got;
	char	   *all = NULL;

	do
	{
		if (!fetch_piece(c, &piece, &got, error))
			return false;
		if (got.total > most)
			m1pg_learn_disbelieve(psprintf("There are to be " UINT64_FORMAT " bytes of it, of which " UINT64_FORMAT
										   " can be.", got.total, most));
		if (all == NULL)
			all = palloc_extended(got.total + 1, MCXT_ALLOC_HUGE);
		else if (got.total != bytes->len)
			m1pg_learn_disbelieve(psprintf("Its %zu bytes have become " UINT64_FORMAT ".", bytes->len, got.total));
		bytes->len = got.total;
		if (got.bytes.len > 0)
			memcpy(all + piece.offset, got.bytes.data, got.bytes.len);
		piece.offset += got.bytes.len;
	} while (piece.offset < got.total);
	bytes->data = all;
	return true;
}

bool
m1pg_learn_sample(const M1LearnCaller *c, const m1w_generate *g, m1w_done *done, m1_error *error)
{
	M1Request	request = {.type = M1W_GENERATE, .message.generate = g};
	Size		len;
	char	   *answer = ask(c, &request, M1W_DONE, &len, error);

	if (answer == NULL)
		return false;
	if (m1w_decode_done(answer, len, done, error) != M1_OK)
		m1pg_report(error);
	return true;
}

bool
m1pg_learn_tokenize(const M1LearnCaller *c, m1_slice reply, m1w_id_slice *ids, m1_error *error)
{
	m1w_words	m = {.text = reply, .tags = 1};
	M1Request	request = {.type = M1W_TOKENIZE, .message.words = &m};
	m1w_tokens	tokens;
	Size		len;
	char	   *answer = ask(c, &request, M1W_TOKENS, &len, error);

	if (answer == NULL)
		return false;
	if (m1w_decode_tokens(answer, len, &tokens, error) != M1_OK)
		m1pg_report(error);
	*ids = tokens.ids;
	return true;
}
