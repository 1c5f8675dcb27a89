/*
 * slots.h - the slots of the shared table, as the backends see them that claim and free them (slots.c).
 */
#ifndef M1PG_SLOTS_H
#define M1PG_SLOTS_H

#include "pg/client/exchange.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"

/* What a request brings to its admission. */
typedef struct M1Claim
{
	const M1Request *request;
	M1Quota		quota;			/* of the role that makes it */
	M1MostTokens most;			/* that it may take */
	int64		token_limit;	/* what the statement leaves it; 0 = no limit */
} M1Claim;

/*
 * Admission: a free slot, within the bounds of session and role, and room in the role's quota, in one moment. NULL:
 * refused, *error says why.
 */
extern M1Slot *m1pg_slot_claim(const M1Claim *claim, uint64 *request, m1_error *error);
/* The queues are ready: it is the worker's turn. */
extern void m1pg_slot_submit(M1Slot *slot, dsm_handle handle);
/* The request is over for this backend. `last`: what the slot was, if the worker has freed it already. */
extern void m1pg_slot_free(M1Slot *slot, uint64 request, const M1Slot *last);

#endif							/* M1PG_SLOTS_H */
