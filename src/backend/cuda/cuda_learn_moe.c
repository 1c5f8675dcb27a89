/*
 * cuda_learn_moe.c - learning on a GPU: router and experts.
 *
 * Rows of pairs are sorted by expert, within one in the order of tokens; every product of all experts is one launch,
 * which finds its rows by the groups that are on the device. So nothing waits for the router's choices.
 */
#include "backend/cuda/cuda_internal.h"

#include <stdlib.h>

#include "backend/moe_load.h"

/* Matrices of the experts, and of gradients 3 further. */
enum pointers
{
	W1,
	W2,
	W3,
	GRADIENTS,
	POINTERS = 2 * GRADIENTS
};

void
m1b_cuda_learn_moe_want(const m1b_cuda *c, m1b_cuda_learn_moe *w, m1b_cuda_buffers *all)
{
	const m1b_geometry *g = &c->g;
	const size_t pairs = (size_t) g->max_moe_pairs;
	const size_t wide = pairs * (size_t) g->hidden;
	const size_t narrow = pairs * (size_t) g->expert_width;

	m1b_cuda_want(all, &w->x, wide, sizeof *w->x);
	m1b_cuda_want(all, &w->dy, wide, sizeof *w->dy);
	m1b_cuda_want(all, &w->dx, wide, sizeof *w->dx);
	m1b_cuda_want(all, &w->gate, narrow, sizeof *w->gate);
	m1b_cuda_want(all, &w->up, narrow, sizeof *w->up);
	m1b_cuda_want(all, &w->hidden, narrow, sizeof *w->hidden);
	m1b_cuda_want(all, &w->back, narrow, sizeof *w->back);
	m1b_cuda_want(all, &w->kappa, pairs, sizeof *w->kappa);
	m1b_cuda_want(all, &w->dlogits, (size_t) g->max_tokens * (size_t) g->experts, sizeof *w->dlogits);
	m1b_cuda_want(all, &w->balance, (size_t) g->experts, sizeof *w->balance);
	m1b_cuda_want(all, &w->copies, (size_t) g->max_tokens, sizeof *w->copies);
	m1b_cuda_want(all, &w->pointers, (size_t) POINTERS * (size_t) g->experts, sizeof *w->pointers);
}

/* ---- what both passes share ---- */

static m1k_moe_learn
pairs_of(const m1b_cuda *c, const m1b_moe *p)
{
	const m1b_cuda_learn_moe *w = &c->learn.moe;

	return (m1k_moe_learn){.n = p->n,
						   .experts = p->experts,
						   .top_k = p->top_k,
						   .d = p->w1->cols,
						   .width = p->w1->rows,
						   .place = c->routed.place,
						   .logits = p->kept->logits,
						   .choice = p->kept->choice,
						   .weight = p->kept->weight,
						   .kept_gate = p->kept->gate,
						   .kept_up = p->kept->up,
						   .gate = w->gate,
						   .up = w->up,
						   .hidden = w->hidden,
						   .back = w->back,
						   .dx = w->dx,
						   .kappa = w->kappa,
						   .dlogits = w->dlogits};
}

static m1k_route
route_of(const m1b_cuda *c, const m1b_moe *p)
{
	const m1b_cuda_routed *to = &c->routed;

	return (m1k_route){.scores = p->kept->logits,
					   .n = p->n,
					   .experts = p->experts,
					   .top_k = p->top_k,
					   .tile = 1, /* nobody reads them */
					   .choice = p->kept->choice,
					   .weight = p->kept->weight,
					   .group = to->group,
					   .tiles = to->tiles,
					   .place = to->place,
					   .token = to->token};
}

/* The experts' matrices, and their gradients where there are any. */
static void
send_pointers(m1b_cuda *c, const m1b_moe *p, const m1b_moe_back *back)
{
	const void *list[POINTERS * M1K_MAX_EXPERTS];
	const size_t n = (size_t) (back != NULL ? POINTERS : GRADIENTS) * (size_t) p->experts;

	for (int e = 0; e < p->experts; e++)
	{
		list[W1 * p->experts + e] = p->w1[e].data;
		list[W2 * p->experts + e] = p->w2[e].data;
		list[W3 * p->experts + e] = p->w3[e].data;
		if (back == NULL)
			continue;
		list[(GRADIENTS + W1) * p->experts + e] = back->dw1 != NULL ? back->dw1[e] : NULL;
		list[(GRADIENTS + W2) * p->experts + e] = back->dw2 != NULL ? back->dw2[e] : NULL;
		list[(GRADIENTS + W3) * p->experts + e] = back->dw3 != NULL ? back->dw3[e] : NULL;
	}
	m1b_cuda_upload(c, c->learn.moe.pointers, list, n * sizeof *list, "uploading experts");
}

/* out = in W^T of each place's expert, or in W, or added to it. */
static void
through_experts(m1b_cuda *c, const m1b_moe *p, int which, bool transposed, const float *in, bool add, float *out)
{
	const m1b_matrix *w = which == W1 ? p->w1 : which == W2 ? p->w2 : p->w3;
	const int from = transposed ? w->cols : w->rows;
	const m1k_multiply k = {.m = p->n * p->top_k,
							.n = transposed ? w->rows : w->cols,
							.k = from,
							.a = in,
							.a_row = (size_t) from,
							.a_col = 1,
							.weight = m1b_cuda_kernel_matrix(w),
							.transposed = transposed,
							.c = out,
							.add = add,
							.grouped = M1K_GROUPED_ROWS,
							.experts = p->experts,
							.group = c->routed.group,
							.weights = (const void *const *) c->learn.moe.pointers + which * p->experts};

	m1k_learn_multiply(&k, c->stream);
}

/* dw [rows, cols] += dy^T x over each expert's places */
static void
experts_gradients(m1b_cuda *c, const m1b_moe *p, int which, const float *dy, const float *x)
{
	const m1b_matrix *w = which == W1 ? p->w1 : which == W2 ? p->w2 : p->w3;
	const m1k_multiply k = {.m = w->rows,
							.n = w->cols,
							.k = p->n * p->top_k,
							.a = dy,
							.a_row = 1,
							.a_col = (size_t) w->rows,
							.b = x,
							.add = true,
							.grouped = M1K_GROUPED_DEPTH,
							.experts = p->experts,
							.group = c->routed.group,
							.sums =
								(float *const *) (void *) (c->learn.moe.pointers + (GRADIENTS + which) * p->experts)};

	m1k_learn_multiply(&k, c->stream);
}

/* ---- forward ---- */

void
m1b_cuda_learn_moe_forward(m1b_cuda *c, const m1b_moe *p)
{
	const m1b_cuda_learn_moe *w = &c->learn.moe;
	const m1k_moe_learn pairs = pairs_of(c, p);
	const m1k_route route = route_of(c, p);
	const m1b_linear router = {
		.x = p->x, .n = p->n, .products = {{p->router, M1B_NONE, p->kept->logits}}, .n_products = 1};

	send_pointers(c, p, NULL);
	m1b_cuda_learn_linear(&c->base, &router);
	m1k_learn_route(&route, p->kept->replay, c->stream);
	m1k_learn_gather(p->x, c->routed.token, p->n * p->top_k, pairs.d, w->x, c->stream);
	through_experts(c, p, W1, true, w->x, false, w->gate);
	through_experts(c, p, W3, true, w->x, false, w->up);
	m1k_learn_hidden(&pairs, c->stream);
	through_experts(c, p, W2, true, w->hidden, false, w->dx);
	m1k_combine(w->dx, c->routed.place, p->kept->weight, p->n, p->top_k, pairs.d, p->out, c->stream);
	m1b_cuda_launched(c, "running experts");
}

/* ---- backward ---- */

static void
router_back(m1b_cuda *c, const m1b_moe_back *p)
{
	const m1b_moe *forward = p->forward;
	const m1b_linear_back through = {
		.weight = forward->router, .dy = c->learn.moe.dlogits, .n = forward->n, .add = true, .dx = p->dx};
	const m1b_weight_back gradient = {.dy = c->learn.moe.dlogits,
									  .x = forward->x,
									  .n = forward->n,
									  .rows = forward->experts,
									  .cols = forward->router->cols,
									  .dw = p->drouter};

	m1b_cuda_learn_linear_back(&c->base, &through);
	if (p->drouter != NULL)
		m1b_cuda_learn_weight_back(&c->base, &gradient);
}

/* What the auxiliary loss needs. */
static void
send_balance(m1b_cuda *c, const m1b_moe_back *p, m1k_moe_learn *pairs)
{
	m1b_cuda_learn_moe *w = &c->learn.moe;

	if (p->balance == NULL)
		return;
	m1b_cuda_upload(c, w->balance, p->balance, (size_t) pairs->experts * sizeof *w->balance, "uploading loads");
	m1b_cuda_upload(c, w->copies, p->copies, (size_t) pairs->n * sizeof *w->copies, "uploading loads");
	pairs->balance = w->balance;
	pairs->copies = w->copies;
}

void
m1b_cuda_learn_moe_back(m1b_backend *b, const m1b_moe_back *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const m1b_cuda_learn_moe *w = &c->learn.moe;
	const m1b_moe *forward = p->forward;
	const int n = forward->n * forward->top_k;
	const m1k_route route = route_of(c, forward);
	m1k_moe_learn pairs = pairs_of(c, forward);

	pairs.out = p->dx;
	send_pointers(c, forward, p);
	send_balance(c, p, &pairs);
	m1k_sort_chosen(&route, c->stream);
	m1k_learn_gather(forward->x, c->routed.token, n, pairs.d, w->x, c->stream);
	m1k_learn_gather(p->dy, c->routed.token, n, pairs.d, w->dy, c->stream);
	m1k_learn_hidden_again(&pairs, c->stream);
	through_experts(c, forward, W2, false, w->dy, false, w->back);
	m1k_learn_hidden_back(&pairs, c->stream); /* gate and up are gradients from here on, and hidden is weighted */
	if (p->dw1 != NULL)
		experts_gradients(c, forward, W1, w->gate, w->x);
	if (p->dw2 != NULL)
		experts_gradients(c, forward, W2, w->dy, w->hidden);
	if (p->dw3 != NULL)
		experts_gradients(c, forward, W3, w->up, w->x);
	through_experts(c, forward, W1, false, w->gate, false, w->dx);
	through_experts(c, forward, W3, false, w->up, true, w->dx);
	m1k_learn_combine(&pairs, c->stream);
	m1b_cuda_launched(c, "going back through experts");
	router_back(c, p);
}

/* ---- the load ---- */

/* Logits and choices are few: they are looked at on the host, where the sums are in double. */
void
m1b_cuda_learn_moe_load(m1b_backend *b, const m1b_moe_load *p)
{
	m1b_cuda *c = m1b_cuda_of(b);
	const size_t logits = (size_t) p->n * (size_t) p->experts;
	const size_t choices = (size_t) p->n * (size_t) p->top_k;
	m1b_moe_kept kept = {.logits = malloc(logits * sizeof *kept.logits),
						 .choice = malloc(choices * sizeof *kept.choice),
						 .replay = p->kept->replay};
	m1b_moe_load here = *p;

	here.kept = &kept;
	if (kept.logits == NULL || kept.choice == NULL)
		m1b_cuda_note(c, cudaErrorMemoryAllocation, "reading loads");
	else
	{
		m1b_cuda_download(c, kept.logits, p->kept->logits, logits * sizeof *kept.logits, "reading loads");
		m1b_cuda_download(c, kept.choice, p->kept->choice, choices * sizeof *kept.choice, "reading loads");
		m1b_cuda_note(c, cudaStreamSynchronize(c->stream), "reading loads");
	}
	if (!m1b_cuda_failed(c))
		m1b_moe_count_load(&here);
	free(kept.logits);
	free(kept.choice);
}
