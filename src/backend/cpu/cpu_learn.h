/*
 * cpu_learn.h - what the CPU's files for learning share: work memory, and the operations by name.
 */
#ifndef M1_BACKEND_CPU_CPU_LEARN_H
#define M1_BACKEND_CPU_CPU_LEARN_H

#include "backend/cpu/cpu_internal.h"
#include "backend/learning.h"

typedef struct m1b_learn_work
{
	float **worker; /* [threads] work memory of one piece */
	int threads;
	float *rho; /* [max_tokens] 1 / RMS of rows */

	/* of the spans that were reserved for */
	float *state_gradients;	   /* [children][H, D, D] what each child gives to its parent */
	int *child;				   /* [spans] place of a child there */
	char *pages;			   /* [pages][K, V][KV] as m1b_cpu_page */
	char **page;			   /* the pages of each span's whole sequence, one span after the other */
	int *first_page;		   /* [spans] into page */
	struct m1b_moe_learn *moe; /* cpu_learn_moe.c */
} m1b_learn_work;

/* Floats of a worker's work memory. */
size_t m1b_cpu_learn_scratch_floats(const m1b_cpu *c);
float *m1b_cpu_learn_scratch(const m1b_cpu *c, int worker);
void m1b_cpu_learn_free(m1b_cpu *c);

/* cpu_learn.c */
extern const m1b_learning m1b_cpu_learning;

/* cpu_learn_adapters.c */
void m1b_cpu_adapted_back(m1b_backend *b, const m1b_adapted_back *p);
/*
 * What adapters add to one of the experts' matrices, y = scale (x a^T) b, for pairs in sorted order: dx [pairs, cols]
 * is added to; NULL: not wanted, as are gradients.
 */
typedef struct m1b_experts_adapted
{
	const m1b_adapted *adapted;			  /* [E] */
	const m1b_adapted_gradient *gradient; /* [E] */
	const float *x;						  /* [pairs, cols] */
	const float *dy;					  /* [pairs, rows] */
	int rows, cols;
	float *dx;
} m1b_experts_adapted;

/* products: room for 3 of each expert. */
struct m1b_gemm;
void m1b_cpu_experts_adapted_back(m1b_cpu *c, const m1b_experts_adapted *p, struct m1b_gemm *products);

/* cpu_learn_lightning.c */
size_t m1b_cpu_lightning_back_scratch(const m1b_geometry *g);
void m1b_cpu_lightning_kept(m1b_backend *b, const m1b_lightning_kept *p);
void m1b_cpu_lightning_back(m1b_backend *b, const m1b_lightning_back *p);

/* cpu_learn_attention.c */
size_t m1b_cpu_attention_back_scratch(const m1b_geometry *g);
/* Pages of all spans, and entries of their page tables. */
size_t m1b_cpu_attention_pages(const m1b_spans *spans, size_t *entries);
size_t m1b_cpu_learn_page_bytes(const m1b_cpu *c);
/* Fills the page tables. */
void m1b_cpu_attention_lay_out(m1b_cpu *c, const m1b_spans *spans);
void m1b_cpu_attention_kept(m1b_backend *b, const m1b_attention_kept *p);
void m1b_cpu_attention_back(m1b_backend *b, const m1b_attention_back *p);

/* cpu_learn_moe.c */
size_t m1b_cpu_learn_moe_bytes(const m1b_cpu *c);
bool m1b_cpu_learn_moe_create(m1b_cpu *c);
void m1b_cpu_learn_moe_free(m1b_cpu *c);
void m1b_cpu_moe_back(m1b_backend *b, const m1b_moe_back *p);

/* cpu_learn_rows.c */
void m1b_cpu_sum(m1b_backend *b, const m1b_sum *p);
void m1b_cpu_silu(m1b_backend *b, const m1b_silu *p);
void m1b_cpu_gather(m1b_backend *b, const m1b_rows *p);
void m1b_cpu_scatter(m1b_backend *b, const m1b_rows *p);
void m1b_cpu_norm_back(m1b_backend *b, const m1b_norm_back *p);
void m1b_cpu_gate_back(m1b_backend *b, const m1b_gate_back *p);
void m1b_cpu_embed_back(m1b_backend *b, const m1b_embed_back *p);
void m1b_cpu_predict(m1b_backend *b, const m1b_predict *p);
void m1b_cpu_predict_back(m1b_backend *b, const m1b_predict_back *p);
double m1b_cpu_sum_of_squares(m1b_backend *b, const float *x, size_t n);
void m1b_cpu_adamw(m1b_backend *b, const m1b_adamw *p);

#endif
