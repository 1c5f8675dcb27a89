/*
 * m1pg.h - what every file of the PostgreSQL side begins with: the server's own
 * header, where its versions differ for all, and how pure C reports failure.
 * README.md lists the rooms.
 */
#ifndef M1PG_H
#define M1PG_H

#include "postgres.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "base/status.h"

#if PG_VERSION_NUM < 140000
#error "minimax_m1 needs PostgreSQL 14 or later"
#endif

/* PostgreSQL 18 writes it before the declaration. */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* ---- settings (module.c) ---- */

typedef enum M1Device
{
	M1_DEVICE_AUTO,
	M1_DEVICE_CPU,
	M1_DEVICE_CUDA
} M1Device;

/* Whose prefix snapshots a request may use. */
typedef enum M1Sharing
{
	M1_SHARE_ROLE,				/* those of the same role in the same database */
	M1_SHARE_DATABASE,
	M1_SHARE_ALL
} M1Sharing;

typedef enum M1WeightFormat
{
	M1_FORMAT_STORED,
	M1_FORMAT_Q8_0,
	M1_FORMAT_FP8,
	M1_FORMAT_Q4
} M1WeightFormat;

extern char *m1pg_model;
extern int	m1pg_weight_format;
extern int	m1pg_device;
extern int	m1pg_gpus;
extern int	m1pg_threads;
extern int	m1pg_max_requests;
extern int	m1pg_max_queue;
extern int	m1pg_max_context;
extern int	m1pg_kv_cache_size;
extern int	m1pg_prefix_cache_size;
extern int	m1pg_prefix_cache_sharing;
extern char *m1pg_engine_path;
extern int	m1pg_max_tokens;
extern int	m1pg_request_timeout;
extern int	m1pg_default_thinking_budget;
extern double m1pg_temperature;
extern double m1pg_top_p;
extern char *m1pg_system_prompt;
extern int	m1pg_max_calls_per_statement;
extern int	m1pg_max_tokens_per_statement;
extern int	m1pg_max_usage_rows;
extern char *m1pg_context_tiers;

/* What a scalar function does when its request fails. */
typedef enum M1OnError
{
	M1_ON_ERROR_RAISE,
	M1_ON_ERROR_NULL
} M1OnError;

extern int	m1pg_on_error;

extern const char *m1pg_device_name(M1Device device);
extern const char *m1pg_weight_format_name(M1WeightFormat format);

#endif							/* M1PG_H */
