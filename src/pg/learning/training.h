/*
 * training.h - a training, as its runner has it in memory: what the files training_*.c share.
 *
 * What is here may be lost at any time: all that counts is in the tables, where a step's results appear together. A
 * step depends on nothing but the training's row, its examples and what the step before has left, so whoever makes it
 * again makes the same.
 */
#ifndef M1PG_TRAINING_H
#define M1PG_TRAINING_H

#include "pg/client/exchange.h"
#include "pg/learning/examples.h"
#include "pg/learning/learn_calls.h"
#include "pg/learning/reward.h"

typedef enum M1Method
{
	M1_METHOD_SFT,
	M1_METHOD_CISPO,
	M1_METHOD_GRPO,
	M1_METHOD_DAPO,
	M1_METHOD_DR_GRPO
} M1Method;

/* What becomes of an answer whose reward has failed. */
typedef enum M1RewardErrors
{
	M1_REWARD_ERRORS_FAIL,		/* so does the training */
	M1_REWARD_ERRORS_ZERO,		/* its reward is 0 */
	M1_REWARD_ERRORS_SKIP		/* nothing is learnt from it */
} M1RewardErrors;

typedef struct M1TrainingOptions
{
	int			group_size;
	int			prompts_per_step;
	int			updates_per_step;
	float		is_cap;
	float		clip_low;
	float		clip_high;
	float		kl_coef;		/* of grpo; 0 = none */
	float		learning_rate;
	int			rank;
	int			max_tokens;
	int			thinking_budget;
	int			length_penalty; /* tokens before max_tokens in which the reward sinks by 1; 0 = none */
	int			drop_solved;	/* times in a row; 0 = never */
	uint64		seed;
	float		temperature;
	char	   *system_prompt;
	m1w_constraint constraint;
	char	   *form;			/* the constraint's text */
	char	   *adapter;		/* to begin from; NULL = a new one */
	M1RewardErrors reward_errors;
	int			evaluate_every; /* steps */
	int			reward_timeout; /* ms, as the next */
	int			request_timeout;
} M1TrainingOptions;

typedef struct M1Training
{
	MemoryContext context;		/* holds the training and all that belongs to it */
	int			id;
	char	   *name;
	Oid			owner;
	M1Method	method;
	char	   *reward_name;	/* its signature; NULL = none */
	Oid			reward_function;
	M1Reward	reward;			/* as it was found in this transaction */
	char	   *path;
	int			from_adapter;	/* the version that it begins from; 0 = a new adapter */
	int			steps;
	int			step;			/* done; -1 = not even the look at the held-out rows before the first */
	M1TrainingOptions options;
	M1Examples	train;
	M1Examples	holdout;
	int		   *solved;			/* [train.n] */
	double		first_heldout;	/* before the first step; NaN = unknown, as the next */
	double		best_heldout;
	int			best_step;
	int64		updates_of_steps;	/* that have ended */
	int			barren;			/* steps up to the last one of which every update was dropped, in a row */
	/* in the engine */
	int			engine;			/* its process, which has the training; 0 = none has */
	bool		spoilt;			/* what it has is no step's result: lessons of one have failed */
	bool		learnt;			/* it has learnt all lessons of the step that is under way */
	int			served;			/* the step whose adapter is served; -1 = none */
	int32		end_of_turn;	/* the token; -1 = not asked for yet */
	int64		updates;		/* of the optimizer that the engine has made, as far as it was asked to */
	uint64		state_bytes;	/* of what it keeps to go on */
	M1LearnCaller caller;
	/* of the step that is under way */
	int			losses;			/* of the engine */
	long		pause_ms;		/* after the next failure that passes */
} M1Training;

/* ---- options (training_options.c) ---- */

/* false when there is no method of the name. */
extern bool m1pg_training_find_method(const char *name, M1Method *method);
/* From what the table holds, which has been checked. */
extern void m1pg_training_read_options(Jsonb *json, M1TrainingOptions *options);
/* A request for an answer to an example, but for its seed and adapter. */
extern void m1pg_training_request(const M1TrainingOptions *options, const M1Example *example, m1w_generate *g);

/* ---- answers ---- */

typedef struct M1Answer
{
	int			row;			/* of the examples, from 0 */
	int			sample;			/* from 0 */
	bool		ended;			/* it was asked for, and will not be again */
	bool		there;			/* there is an answer; else *error */
	m1w_done	done;
	text	   *content;		/* as the next two in the server's encoding; NULL = none */
	text	   *reasoning;
	text	   *tool_calls;
	text	   *error;			/* why there is no answer, or no reward */
	bool		graded;
	bool		reward_failed;
	double		reward;			/* NaN = no opinion */
	double		shaped;			/* with what its length takes; NaN as the reward */
	float		advantage;
} M1Answer;

/* The answers to one example: consecutive ones. */
typedef struct M1Group
{
	M1Answer   *answers;
	int			n;
	bool		useful;			/* rewards differ */
	bool		solved;			/* all are right */
	bool		hopeless;		/* none is worth anything */
	bool		silent;			/* none has a reward */
} M1Group;

/* (training_advantage.c) How far apart rewards, or shaped ones, are: of those that are numbers. */
typedef struct M1Spread
{
	int			n;
	double		mean;			/* NaN = of none */
	double		deviation;		/* of a sample of them; NaN = of fewer than two */
	double		least;
	double		most;
} M1Spread;

extern M1Spread m1pg_spread_of_rewards(const M1Answer *answers, int n);
/* Rewards as they count, advantages, and what a group is worth. */
extern void m1pg_training_shape(const M1TrainingOptions *options, M1Answer *answer);
extern void m1pg_training_advantages(M1Method method, M1Group *group);

/* A right answer as tokens; it has no reply where that was not asked for yet. */
typedef struct M1Shown
{
	m1w_id_slice prompt;
	m1w_id_slice reply;
} M1Shown;

/*
 * Zero at first. A step may take several tries: what the model was asked for, and what the rewards said, is kept from
 * one to the next.
 */
typedef struct M1StepResult
{
	int			step;
	MemoryContext context;		/* of what is kept */
	bool		sampled;		/* groups are filled */
	bool		nothing;		/* there is nothing left to learn from: this is a look at what the step before left */
	M1Shown    *shown;			/* NULL until they are asked for, as the next: of the step's rows, of held-out ones */
	M1Shown    *heldout_shown;
	int64		shown_tokens;	/* that were learnt from */
	M1Answer   *answers;		/* [n_answers] of training examples, by groups */
	int			n_answers;
	M1Group    *groups;
	int			n_groups;
	M1Answer   *heldout;		/* [n_heldout]; none where they were not asked */
	int			n_heldout;
	double		heldout_loss;	/* NaN = none, as the next */
	double		loss;
	double		entropy;
	double		kl;				/* from the reference, before anything was learnt; NaN = none */
	double		clipped;
	double		gradient_norm;
	double		router_load;
	double		mismatch;
	int64		rerouted;
	int64		tokens;
	int			updates;
	int			dropped;
	double		sampling_ms;
	double		reward_ms;
	double		training_ms;
	m1_slice	state;
	m1_slice	best;			/* the adapter's files, if it is the best so far; else empty */
} M1StepResult;

/*
 * (training_sampling.c) Asks for `samples` answers to each of the rows, for those that have not ended: zero at first.
 * false when one of them is still to be asked for: *error. No transaction is open.
 */
extern bool m1pg_training_sample(M1Training *t, const M1StepResult *r, const M1Examples *examples, const int *rows,
								 int n, int samples, M1Answer *answers, m1_error *error);
/* Asks the reward, in transactions of its own, of those that were not graded yet. */
extern void m1pg_training_grade(M1Training *t, const M1Examples *examples, M1Answer *answers, int n);
/* How likely it is that this failure is gone later, with nothing to be said against the training. */
extern bool m1pg_training_is_passing(const M1Training *t, const m1_error *error);

/* (training_lessons.c) Learns from the useful groups; and what both ways of learning share: a lesson of each batch. */
extern bool m1pg_training_learn(M1Training *t, M1StepResult *r, m1_error *error);
struct M1LessonBatch;
extern bool m1pg_training_teach(M1Training *t, struct M1LessonBatch *batches, int n, M1StepResult *r,
								m1_error *error);
/* Raises that a batch of what is learnt at once is more than a message holds. */
extern void m1pg_training_check_size(const M1Training *t, const struct M1LessonBatch *b);
/* A lesson to its end. What it is too large for is told with how it becomes `smaller`. */
extern bool m1pg_training_lesson(M1Training *t, const m1w_lesson *l, const char *smaller, m1w_learned *learned,
								 m1_error *error);

/* (training_sft.c) Learns from right answers, and the loss of the held-out ones. */
extern bool m1pg_training_learn_answers(M1Training *t, M1StepResult *r, const int *rows, int n, m1_error *error);
extern bool m1pg_training_heldout_loss(M1Training *t, M1StepResult *r, m1_error *error);

/* (training_engine.c) Sees to it that the engine has the training, as it was after the last step that ended. */
extern bool m1pg_training_ensure(M1Training *t, m1_error *error);
/* Has the training's adapter served for the step that comes next. */
extern bool m1pg_training_serve(M1Training *t, int step, m1_error *error);
extern char *m1pg_training_engine_name(const M1Training *t);
/* Of what it began with, which stays as it was; there with kl_coef only. */
extern char *m1pg_training_reference_name(const M1Training *t);
extern char *m1pg_training_adapter_name(const M1Training *t, int step);
/* The digest of the model that a state was made with. What names none is raised. */
extern m1_slice m1pg_training_base(m1_slice state);
/* Nothing of it is left there. */
extern void m1pg_training_leave_engine(M1Training *t);

/* (training_step.c) A step: 0 is the look at the held-out rows before the first. */
typedef enum M1StepEnd
{
	M1_STEP_DONE,
	M1_STEP_AGAIN,				/* not done: *error */
	M1_STEP_NOTHING				/* there is nothing to learn from any more */
} M1StepEnd;

/* The result of the step that is next, before the first try. */
extern void m1pg_training_begin_step(M1Training *t, MemoryContext context, M1StepResult *r);
/* A try, which goes on with what those before it have of the result. */
extern M1StepEnd m1pg_training_step(M1Training *t, M1StepResult *r, m1_error *error);
/* The mean reward of held-out rows; without a reward, minus their loss. NaN where they were not asked, or have none. */
extern double m1pg_training_heldout(const M1Training *t, const M1StepResult *r);

/*
 * (training_runner.c) After a failure: raises it when there is no use in trying again; else waits. false when something
 * else is wanted by now.
 */
extern bool m1pg_training_wait(M1Training *t, const m1_error *error);

/* (training_runner.c) That this process has claimed; NULL = none. */
extern M1Training *m1pg_training_taken;
/*
 * (training_claim.c) The training that is next, whose runner this is from now on; NULL = there is none. What cannot be
 * read is raised.
 */
extern M1Training *m1pg_training_claim(void);

/* ---- the tables (training_table.c), in transactions of their own ---- */

/* Of what the engine needs to go on; 0 = there is none, it begins. */
extern uint64 m1pg_training_state_bytes(const M1Training *t);
/* Raises that its owner was dropped, if so. */
extern void m1pg_training_check_owner(const M1Training *t);
/* NULL behind the last piece of what the engine needs to go on. */
extern bytea *m1pg_training_read_state(const M1Training *t, int piece);

typedef enum M1Wanted
{
	M1_WANTED_NOTHING,
	M1_WANTED_PAUSE,
	M1_WANTED_CANCEL,
	M1_WANTED_LEAVE				/* the training is somebody else's, or gone */
} M1Wanted;

extern M1Wanted m1pg_training_wanted(const M1Training *t);
/* All of a step, if the training is still this process's. */
extern void m1pg_training_write(M1Training *t, const M1StepResult *r);
/* What a last look has found, when nothing is left to learn from. */
extern void m1pg_training_write_last(M1Training *t, const M1StepResult *r);
/* If that is still wanted; else it is to be claimed again. */
extern void m1pg_training_pause(const M1Training *t);
/* "done" or "cancelled": makes a version of the adapter if one is best. `nothing`: there was none to learn from. */
extern void m1pg_training_finish(const M1Training *t, const char *ending, bool nothing);
extern void m1pg_training_fail(const M1Training *t, const ErrorData *error);

#endif							/* M1PG_TRAINING_H */
