/*
 * learn_request.h - one request of those about learning (see src/wire/README.md), checked, and as the trainer takes it.
 *
 * Made by any thread, on its own time; then the step thread's. It owns the payload that its message points into.
 */
#ifndef M1_ENGINE_LEARN_REQUEST_H
#define M1_ENGINE_LEARN_REQUEST_H

#include "engine/kept_bytes.h"
#include "model/adapter_bytes.h"
#include "model/digest.h"
#include "model/model.h"
#include "train/train.h"
#include "wire/message.h"

typedef struct m1_learn_request
{
	uint64_t id;
	m1w_type type;
	m1_buf payload;
	union
	{
		m1w_bytes bytes; /* PUT, FETCH */
		m1w_training training;
		m1w_lesson lesson;
		m1w_serve serve;
		m1w_forget forget;
	} message;

	char base[M1_DIGEST_SIZE];	 /* TRAINING, SERVE: the model's */
	m1_adapter *adapter;		 /* TRAINING, SERVE: that it is about, where it is known, or NULL */
	char digest[M1_DIGEST_SIZE]; /* of the adapter */
	m1_adapter_facts facts;		 /* of bytes that it was made of */
	const char *moments;		 /* in `bytes`; NULL: none */
	m1_kept_bytes *bytes;
	m1_error fault; /* what is wrong with them, which is told in its turn; else M1_OK */

	/* LESSON */
	m1_objective objective;
	m1_adamw_options adamw;
	m1_sequence *sequences; /* [n] */
	int n;
	int32_t *ids; /* [tokens] of all sequences, as the next */
	size_t tokens;
	float *weights, *old_logprobs, *ref_logprobs, *logprobs; /* NULL where there are none */
	float *advantages;										 /* [n] */
	uint16_t *experts;
	uint64_t *masks;
	const uint64_t **allowed; /* [tokens] into masks */

	struct m1_learn_request *next;
} m1_learn_request;

/*
 * Bytes that the numbers of all adapters that are trained may take: with gradients and moments it is four times as
 * much, which is a quarter of the machine's memory.
 */
size_t m1_learn_most_bytes(void);

/* Takes the payload over, also when it fails. What depends on trainings and adapters is checked when its turn comes. */
m1_status m1_learn_request_create(const m1_model *model, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work,
								  m1_learn_request **out, m1_error *err);
/* The adapter of its bytes, in either form, which are kept only if there are moments among them. */
m1_status m1_learn_request_make_adapter(m1_learn_request *r, const m1_model *model, m1_error *err);
void m1_learn_request_free(m1_learn_request *r);

#endif
