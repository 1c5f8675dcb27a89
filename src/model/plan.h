/*
 * plan.h - what a model would take and how fast it could be, computed from its config and, where they are, the headers
 * of its files: nothing is loaded, and weights need not be there. cmd_plan.c prints it.
 */
#ifndef M1_MODEL_PLAN_H
#define M1_MODEL_PLAN_H

#include "files/checkpoint.h"
#include "model/config.h"
#include "model/quantize.h"

typedef struct m1_plan_options
{
	int devices;
	bool cpu;			 /* one that keeps keys and values as floats, unless experts are quantized to integers */
	double device_bytes; /* memory of each */
	double bandwidth;	 /* bytes a second of each, from that memory */
	double flops;		 /* a second, of each */
	int context;		 /* tokens of a sequence */
	int requests;		 /* sequences at the same time */
	m1_weight_format format;
	const m1b_dtype *type;			 /* that large matrices have instead, as in some GGUF file; NULL: as format says */
	const m1_checkpoint *checkpoint; /* how weights are stored; NULL: BF16, or FP8 where the config says so */
} m1_plan_options;

/* Tokens a second that memory allows at most, or if these are fewer, arithmetic. */
typedef struct m1_plan_bound
{
	double speed;
	bool by_arithmetic;
} m1_plan_bound;

/* Bytes, unless another unit is named. */
typedef struct m1_plan
{
	double parameters;		  /* numbers */
	double active_parameters; /* that a token is multiplied by, without the head */
	double head_parameters;
	double weights;		   /* in all */
	double device_weights; /* of one device: its part, and what each has whole */
	double active_weights; /* read for one token alone */
	double state;		   /* of a sequence, whatever its length */
	double kv_token;	   /* of a sequence's token */
	double sequence;	   /* of a sequence of `context` tokens */
	double work;		   /* of one device, left to work space and the system */
	double room;		   /* of all devices, for sequences; below 0: the weights do not fit */
	double fits;		   /* sequences that do */
	double step_bytes;	   /* read and written for a token of each request */
	double prefill_bytes;  /* of weights read for a prompt of `context` tokens at once */
	m1_plan_bound decode;  /* of all requests together */
	m1_plan_bound prefill; /* at the middle of `context` */
} m1_plan;

/*
 * Weights are counted in the types that they are used in: as they are stored, or as `format` or `type` makes of these;
 * a layer's first expert stands for all. A tenth of each device is left to work space and the system. Of a step with
 * several requests, experts are counted that are expected to be chosen by at least one, if each were as likely. Fails
 * when the checkpoint lacks a tensor that the config asks for.
 */
m1_status m1_plan_make(const m1_config *config, const m1_plan_options *options, m1_plan *plan, m1_error *err);

#endif
