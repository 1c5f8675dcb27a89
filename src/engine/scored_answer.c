/* scored_answer.c - see scored_answer.h. */
#include "engine/scored_answer.h"

#include "model/state.h"

bool
m1_scored_answer_goes_on(const m1_request *r)
{
	return r->answer_start > 0 || m1_request_at_scored_answer(r);
}

/* Tokens of the sequence with the longest choice. */
static int
scored_tokens(const m1_request *r)
{
	return r->answer_start + m1_choice_scores_longest(r->scores);
}

/*
 * Takes the sequence to the place where its answer begins; it is there the first time. There is memory for it: what was
 * reserved for more reasoning is given up, and that is a page at least (m1_request.scoring_tokens); and no more
 * requests that score were admitted than there are places for their snapshots. Later, the state makes room for the next
 * one, which starts from the snapshot; nobody comes in between.
 */
static m1_status
back_to_answer(const m1_model *model, m1_request *r, m1_error *err)
{
	if (r->snapshot == NULL)
	{
		m1_state_trim(model, r->state, scored_tokens(r));
		r->snapshot = m1_snapshot_take(model, r->state, r->answer_start, M1B_OWN);
		return r->snapshot != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for scoring choices");
	}
	m1_request_rewind(r);
	m1_state_release(model, r->state);
	r->state = m1_state_acquire(model, scored_tokens(r), r->snapshot);
	return r->state != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for scoring choices");
}

m1_status
m1_scored_answer_read(const m1_model *model, m1_request *r, const float *logits, m1_error *err)
{
	int32_t token;
	m1_status status = M1_OK;

	if (r->answer_start == 0)
		r->answer_start = r->fed;
	switch (m1_choice_scores_read(r->scores, logits, &token))
	{
		case M1_SCORE_DONE:
			return m1_request_choose(r, err);
		case M1_SCORE_BACK:
			status = back_to_answer(model, r, err);
			break;
		case M1_SCORE_NEXT:
			break;
	}
	if (status == M1_OK && !m1_ids_push(&r->tokens, token))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	return status;
}

void
m1_scored_answer_leave(const m1_model *model, m1_request *r)
{
	m1_snapshot_release(model, r->snapshot);
	r->snapshot = NULL;
}
