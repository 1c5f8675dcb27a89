/*
 * lesson_batch.c
 *	  Puts sequences together to what a lesson is made of.
 */
#include "pg/learning/lesson_batch.h"

#include <math.h>

#include "common/hashfn.h"
#include "utils/memutils.h"

#define N_ARRAYS 12

static void
list_arrays(M1LessonBatch *b, StringInfo all[N_ARRAYS])
{
	StringInfo	arrays[N_ARRAYS] = {
		&b->lengths, &b->prompts, &b->shares, &b->advantages, &b->ids, &b->weights, &b->old_logprobs,
		&b->ref_logprobs, &b->experts, &b->masked, &b->masks, &b->mask_of
	};

	memcpy(all, arrays, sizeof arrays);
}

void
m1pg_lesson_init(M1LessonBatch *b)
{
	StringInfo	all[N_ARRAYS];

	list_arrays(b, all);
	b->n = b->n_tokens = 0;
	b->weight = 0;
	b->found = NULL;
	for (int i = 0; i < N_ARRAYS; i++)
		initStringInfo(all[i]);
}

Size
m1pg_lesson_bytes(const M1LessonBatch *b)
{
	StringInfo	all[N_ARRAYS];
	Size		sum = 0;

	list_arrays(unconstify(M1LessonBatch *, b), all);
	for (int i = 0; i < N_ARRAYS; i++)
		sum += all[i]->len;
	return sum;
}

static void
add_int(StringInfo s, int32 value)
{
	appendBinaryStringInfo(s, (const char *) &value, sizeof value);
}

static void
add_float(StringInfo s, float value)
{
	appendBinaryStringInfo(s, (const char *) &value, sizeof value);
}

static void
add_ids(StringInfo s, m1w_id_slice ids)
{
	appendBinaryStringInfo(s, (const char *) ids.data, (int) (ids.len * sizeof(int32)));
}

static void
add_sequence(M1LessonBatch *b, m1w_id_slice prompt, m1w_id_slice answer, int share)
{
	add_int(&b->lengths, (int32) (prompt.len + answer.len));
	add_int(&b->prompts, (int32) prompt.len);
	add_int(&b->shares, share);
	add_ids(&b->ids, prompt);
	add_ids(&b->ids, answer);
	b->n++;
	b->n_tokens += (int) (prompt.len + answer.len);
}

/*
 * Of the answer's tokens. Those of the prompt are known only where its beginning was not in the prefix cache, and what
 * is learnt must not depend on that.
 */
static void
add_experts(M1LessonBatch *b, const m1w_done *done)
{
	size_t		of_token = done->experts.len / (done->prompt_ids.len + done->ids.len);
	int			of_prompt = (int) (of_token * done->prompt_ids.len);

	enlargeStringInfo(&b->experts, (int) done->experts.len);
	memset(b->experts.data + b->experts.len, 0xff, of_prompt);	/* M1W_NO_EXPERT */
	b->experts.len += of_prompt;
	appendBinaryStringInfo(&b->experts, done->experts.data + of_prompt, (int) done->experts.len - of_prompt);
}

typedef struct FoundMask
{
	uint64		hash;
	int			number;
} FoundMask;

/* Its number. Another one of the same hash, if there ever is, is there as often as it comes. */
static int
add_mask(M1LessonBatch *b, m1_slice mask)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) mask.data, (int) mask.len, 0);
	int			number = (int) (b->masks.len / mask.len);
	FoundMask  *f;
	bool		found;

	if (b->found == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(uint64), .entrysize = sizeof(FoundMask), .hcxt = CurrentMemoryContext};

		b->found = hash_create("minimax_m1 masks", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	f = hash_search(b->found, &hash, HASH_ENTER, &found);
	if (found && memcmp(b->masks.data + f->number * mask.len, mask.data, mask.len) == 0)
		return f->number;
	if (!found)
		f->number = number;
	appendBinaryStringInfo(&b->masks, mask.data, (int) mask.len);
	return number;
}

/* The last of them is somebody's, as the worker has seen. */
static Size
n_masks(const m1w_done *done)
{
	int32		last = -1;

	for (Size i = 0; i < done->mask_of.len; i++)
		last = Max(last, m1w_id_at(done->mask_of, i));
	return (Size) (last + 1);
}

static void
add_masks(M1LessonBatch *b, const m1w_done *done, int answer_at)
{
	Size		n = n_masks(done);
	int		   *numbers = palloc(n * sizeof *numbers);

	for (Size i = 0; i < n; i++)
		numbers[i] = add_mask(b, (m1_slice) {done->masks.data + i * (done->masks.len / n), done->masks.len / n});
	for (Size i = 0; i < done->masked.len; i++)
	{
		add_int(&b->masked, answer_at + m1w_id_at(done->masked, i));
		add_int(&b->mask_of, numbers[m1w_id_at(done->mask_of, i)]);
	}
	pfree(numbers);
}

void
m1pg_lesson_add_answer(M1LessonBatch *b, const m1w_done *done, int share, float advantage)
{
	add_masks(b, done, b->n_tokens + (int) done->prompt_ids.len);
	add_sequence(b, done->prompt_ids, done->ids, share);
	add_float(&b->advantages, advantage);
	for (size_t i = 0; i < done->prompt_ids.len; i++)
		add_float(&b->old_logprobs, 0);
	appendBinaryStringInfo(&b->old_logprobs, done->sampled_logprobs.data, (int) done->sampled_logprobs.len);
	add_experts(b, done);
}

void
m1pg_lesson_add_text(M1LessonBatch *b, m1w_id_slice prompt, m1w_id_slice answer, float weight)
{
	add_sequence(b, prompt, answer, -1);
	for (size_t i = 0; i < prompt.len; i++)
		add_float(&b->weights, 0);
	for (size_t i = 0; i < answer.len; i++)
		add_float(&b->weights, weight);
	b->weight += (double) weight * answer.len;
}

void
m1pg_lesson_set_logprobs(M1LessonBatch *b, m1_slice logprobs)
{
	Assert(logprobs.len == (size_t) b->old_logprobs.len);
	memcpy(b->old_logprobs.data, logprobs.data, logprobs.len);
}

void
m1pg_lesson_set_reference(M1LessonBatch *b, m1_slice logprobs)
{
	Assert(logprobs.len == (size_t) b->old_logprobs.len);
	appendBinaryStringInfo(&b->ref_logprobs, logprobs.data, (int) logprobs.len);
}

void
m1pg_lesson_add_divergence(const M1LessonBatch *b, double *sum, int64 *n)
{
	const float *old = (const float *) b->old_logprobs.data;
	const float *ref = (const float *) b->ref_logprobs.data;

	for (int i = 0; i < b->n_tokens; i++)
	{
		double		d = (double) ref[i] - old[i];

		/* of prompts, and of tokens that had to come, both are 0 */
		if (old[i] == 0 && ref[i] == 0)
			continue;
		*sum += exp(d) - d - 1;
		(*n)++;
	}
}

static m1_slice
slice_of(const StringInfoData *s)
{
	return (m1_slice) {s->data, s->len};
}

static m1w_id_slice
ids_of(const StringInfoData *s)
{
	return (m1w_id_slice) {(const int32 *) s->data, s->len / sizeof(int32)};
}

void
m1pg_lesson_fill(const M1LessonBatch *b, m1w_lesson *l)
{
	l->lengths = ids_of(&b->lengths);
	l->prompts = ids_of(&b->prompts);
	l->shares = ids_of(&b->shares);
	l->advantages = slice_of(&b->advantages);
	l->ids = ids_of(&b->ids);
	l->weights = slice_of(&b->weights);
	l->old_logprobs = slice_of(&b->old_logprobs);
	l->ref_logprobs = slice_of(&b->ref_logprobs);
	l->experts = slice_of(&b->experts);
	l->masked = ids_of(&b->masked);
	l->masks = slice_of(&b->masks);
	l->mask_of = ids_of(&b->mask_of);
}
