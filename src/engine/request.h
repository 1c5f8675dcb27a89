/*
 * request.h - one request from its text to its end: which tokens are to be fed, what a sampled token means, and when it
 * is over. Knows nothing of batches.
 */
#ifndef M1_ENGINE_REQUEST_H
#define M1_ENGINE_REQUEST_H

#include "engine/choice_scores.h"
#include "engine/constraints.h"
#include "engine/cuts.h"
#include "engine/kept_reply.h"
#include "engine/token_logprobs.h"
#include "model/model.h"
#include "model/sampler.h"
#include "text/reply.h"
#include "wire/message.h"

typedef enum m1_request_kind
{
	M1_REQUEST_CHAT,   /* text in, reasoning and content out */
	M1_REQUEST_IDS,	   /* ids in, max_tokens ids out, nothing interpreted */
	M1_REQUEST_LOGITS, /* ids in, the logits after the last one out */
} m1_request_kind;

typedef struct m1_request
{
	uint64_t id;
	m1_request_kind kind;
	m1_sampling sampling;
	int max_tokens;		 /* already within what the context leaves */
	int thinking_budget; /* -1 = no limit */
	int loop_guard;
	bool stream;
	bool background; /* nobody waits for it */
	bool tools;		 /* the prompt offers some */
	bool form;		 /* the answer is to have one, which is not that of calls alone */

	m1_ids tokens; /* prompt, then the reply */
	int prompt_tokens;
	int bounds[M1_MAX_BOUNDS]; /* of the prompt: where a snapshot is worth taking; see cuts.h */
	uint64_t cache_owner;
	int adapter;				   /* its number in the model, acquired; 0 = none */
	int fed;					   /* tokens that have gone through the model, or came with a snapshot */
	m1_reply *reply;			   /* CHAT only */
	const m1_tokenizer *tokenizer; /* CHAT only */

	m1_cursor *cursor;			 /* where a constrained reply is; NULL when it is free */
	uint64_t *mask;				 /* with cursor: the tokens that may come next */
	bool mask_done;				 /* it is there, or mask_error says why not */
	m1_error mask_error;		 /* code M1_OK: the mask is there */
	uint64_t mask_turn;			 /* the masker's, when it was last this request's; 0 = never */
	float *logits;				 /* with cursor [vocab]: those that wait for the mask */
	int room;					 /* tokens that reasoning leaves to a constrained answer */
	m1_choice_scores *scores;	 /* choices whose probabilities are wanted, or NULL */
	int scoring_tokens;			 /* memory that scoring needs on top of the sequence's own */
	int answer_start;			 /* where they are fed; 0 = reasoning goes on */
	m1_token_logprobs *logprobs; /* of the written tokens, or NULL */

	m1_kept_reply *kept;	  /* for a lesson, or NULL */
	m1_adapter_set *adapters; /* that the adapter is acquired from */

	int completion_tokens;
	int reasoning_tokens;
	bool reasoning_cut; /* the budget closed the reasoning */
	int sure_tokens;	/* tokens in a row with probability above 0.99 */
	bool ended;
	m1w_finish finish;

	/* kept by the scheduler */
	m1_cuts cuts;
	int cached_tokens;		/* of the prompt, from a snapshot */
	bool alone;				/* does not wait for another one's snapshot */
	m1b_state *state;		/* NULL while waiting */
	m1b_snapshot *snapshot; /* at answer_start, while choices are scored */
	bool waits_for_mask;	/* it was fed all of its tokens, and the next one is to be chosen from `logits` */
	bool paused;
	bool cancelled;
	size_t sent[M1_CHANNEL_COUNT]; /* bytes of each channel that were delivered as deltas */
	int reported;				   /* completion_tokens at the last progress event */
	double submitted_ms, started_ms, prefilled_ms;
	m1_work *work; /* of its preparation; NULL afterwards */
	m1_buf chat;   /* what was asked, for servers that take texts: see proxy/chat_json.h */
	struct m1_request *next;
} m1_request;

/*
 * Renders and tokenizes. Every value in g is checked. constraints: NULL for a model without a tokenizer. work: see
 * m1_engine_generate.
 */
m1_status m1_request_create(const m1_model *model, m1_constraints *constraints, uint64_t id, const m1w_generate *g,
							int loop_guard, m1_work *work, m1_request **out, m1_error *err);
m1_status m1_request_create_logits(const m1_model *model, uint64_t id, m1w_id_slice ids, m1_request **out,
								   m1_error *err);
void m1_request_free(m1_request *r);

/* Decides where the prompt is cut. Once, before the request is fed. false when memory ran out. */
bool m1_request_cut(m1_request *r, int prefill_chunk);

/* What the request needs memory for. */
int m1_request_most_tokens(const m1_request *r);

/* Tokens that are known but have not gone through the model. At least 1, unless it has ended or waits for its mask. */
int m1_request_pending(const m1_request *r);

/*
 * How many of the pending tokens the next step may take: the prompt up to its next cut, later no more than a prefill
 * chunk. It depends on the request alone; see cuts.h.
 */
int m1_request_next_chunk(const m1_request *r, int prefill_chunk);

/* What is sampled next would be the first token of an answer that is to be scored instead. */
bool m1_request_at_scored_answer(const m1_request *r);
/* Goes back to the start of the answer, as far as the tokens are concerned. */
void m1_request_rewind(m1_request *r);
/* All choices have been scored: the answer is one of them. */
m1_status m1_request_choose(m1_request *r, m1_error *err);

/* Works on the mask of a constrained request for a turn, to mask_done; see m1_cursor_mask. */
void m1_request_fill_mask(m1_request *r, int64_t *turn);
/* The same, if it takes no time. */
bool m1_request_known_mask(m1_request *r);

/* Whether the constraint lets this token follow; true for a free reply. For tokens that no mask has chosen. */
bool m1_request_allows(m1_request *r, int32_t id);
/* A token was sampled after the last pending one, from those of the mask if there is one. */
m1_status m1_request_accept(m1_request *r, m1b_pick pick, m1_error *err);

#endif
