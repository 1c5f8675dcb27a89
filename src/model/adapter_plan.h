/*
 * adapter_plan.h - adapters that have learnt nothing yet: which weights they change, and by what ranks. Any thread.
 */
#ifndef M1_MODEL_ADAPTER_PLAN_H
#define M1_MODEL_ADAPTER_PLAN_H

#include "base/work.h"
#include "model/adapter.h"

typedef struct m1_adapter_plan
{
	int rank;		  /* of projections of attention, and of the head; 0: they stay as they are, as below */
	int expert_rank;  /* of w1, w2 and w3 of each expert */
	unsigned targets; /* a bit for each m1_role that is changed; the router is trained as a whole */
	float alpha;
	uint64_t seed;
	size_t most_bytes; /* of its numbers; 0: any */
	m1_work *work;	   /* whether it is still wanted; NULL: it is */
} m1_adapter_plan;

/* Rank 16 on attention, 1 on experts, the router, alpha 32. */
m1_adapter_plan m1_adapter_default_plan(void);

/*
 * Sets the targets by their names, separated by commas: modules as files call them, "q_proj", "w2", "gate", "lm_head",
 * or all of a kind, "attention", "experts", "router", "head". M1_E_INVALID_ARGUMENT for any other name.
 */
m1_status m1_adapter_plan_targets(m1_adapter_plan *plan, m1_slice names, m1_error *err);

/*
 * A new adapter, which changes nothing yet: A uniform in +-1/sqrt(cols), B 0, the router as `base` has it. The error
 * says what is wrong with the plan; M1_E_NO_MEMORY if it takes more than it may.
 */
m1_status m1_adapter_create(const m1_adapter_plan *plan, const m1_config *config, const m1_checkpoint *base,
							m1_adapter **out, m1_error *err);

#endif
