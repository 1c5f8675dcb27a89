/*
 * cmd_plan.c - `plan`: what a model takes and how fast it could be, on machines that need not be there. Of a model, its
 * config is read and the headers of its files; of a released one, only the index need be there.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/pages.h"
#include "base/memory.h"
#include "blocks/blocks.h"
#include "commands/cli.h"
#include "model/plan.h"

#define GB 1e9

/* What the options leave open, of hardware of the kind. */
static m1_plan_options
plan_options(const m1_cli *cli, const m1_config *config)
{
	const bool cpu = cli->plan.cpu;
	const double memory = cpu ? (double) m1_machine_memory() / GB : 141;

	return (m1_plan_options){
		.devices = cpu ? 1 : cli->gpus,
		.cpu = cpu,
		.device_bytes = (cli->plan.memory > 0 ? cli->plan.memory : memory) * GB,
		.bandwidth = (cli->plan.bandwidth > 0 ? cli->plan.bandwidth
					  : cpu					  ? 0.3
											  : 4.8) *
					 1e12,
		.flops = (cli->plan.tflops > 0 ? cli->plan.tflops
				  : cpu				   ? 2
									   : 989) *
				 1e12,
		.context = cli->plan.context > 0		  ? cli->plan.context
				   : config->max_context < 131072 ? config->max_context
												  : 131072,
		.requests = cli->max_requests,
	};
}

/* "q4" is what quantizing makes; the name of a type is that type. */
static m1_status
read_format(const char *name, m1_plan_options *o, m1b_dtype *type, m1_error *err)
{
	if (name == NULL || m1_weight_format_parse(name, &o->format))
		return M1_OK;
	if (!m1b_dtype_parse(name, type))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "there is no weight format \"%.40s\"", name);
	o->type = type;
	return M1_OK;
}

/* Of a model whose files are not there, the config tells. */
static m1_status
open_headers(const m1_source *source, m1_checkpoint **out, m1_error *err)
{
	const m1_status status = m1_source_checkpoint(source, out, err);

	return status == M1_E_NOT_FOUND ? M1_OK : status;
}

static void
print_hardware(const m1_plan_options *o, bool cpu)
{
	printf("%d %s of %.0f GB, %.2f TB/s and %.0f TFLOPS%s\n", o->devices,
		   cpu				? "CPU server"
		   : o->devices > 1 ? "GPUs"
							: "GPU",
		   o->device_bytes / GB, o->bandwidth / 1e12, o->flops / 1e12, o->devices > 1 ? " each" : "");
}

/* The index counts what is stored: what the config asks for should be that. */
static m1_status
print_index(const m1_source *source, const m1_config *config, const m1_plan_options *o, m1_error *err)
{
	m1_plan_options as_stored = *o;
	m1_plan plan;
	uint64_t promised = 0;
	m1_status status = M1_OK;

	if (m1_source_dir(source) != NULL)
		status = m1_checkpoint_promised(m1_source_dir(source), &promised, err);
	if (status != M1_OK || promised == 0)
		return status;
	as_stored.format = M1_WEIGHTS_STORED;
	as_stored.type = NULL;
	if ((status = m1_plan_make(config, &as_stored, &plan, err)) != M1_OK)
		return status;
	printf("index             %10.1f GB of tensors", (double) promised / GB);
	if (fabs(plan.weights - (double) promised) > 0.01 * (double) promised)
		printf(", while the config asks for %.1f GB", plan.weights / GB);
	printf("\n");
	return M1_OK;
}

static const char *
cause(m1_plan_bound bound)
{
	return bound.by_arithmetic ? "arithmetic" : "bandwidth";
}

static void
print_plan(const m1_plan *p, const m1_plan_options *o)
{
	printf("parameters        %10.2f B; %.2f B of them for a token, and %.2f B of the head\n", p->parameters / 1e9,
		   p->active_parameters / 1e9, p->head_parameters / 1e9);
	printf("weights           %10.1f GB; %.1f GB on each device, %.1f GB read for a token alone\n", p->weights / GB,
		   p->device_weights / GB, p->active_weights / GB);
	printf("state             %10.4g MiB of a sequence, whatever its length\n", p->state / (1 << 20));
	printf("keys and values   %10.1f KiB of a token, %.2f MiB of a page of %d, %.2f GiB of %d tokens\n",
		   p->kv_token / (1 << 10), p->kv_token * M1B_PAGE_TOKENS / (1 << 20), M1B_PAGE_TOKENS,
		   p->kv_token * o->context / (1 << 30), o->context);
	printf("work space        %10.1f GB of each device, and for the system\n", p->work / GB);
	if (p->room < 0)
		printf("does not fit: %.1f GB are missing\n", -p->room / GB);
	else
		printf("room              %10.1f GB for sequences: %.0f of %d tokens\n", p->room / GB, p->fits, o->context);
	printf("decode            %10.1f tokens/s at most, of %d request%s behind %d tokens (%s)\n", p->decode.speed,
		   o->requests, o->requests > 1 ? "s" : "", o->context, cause(p->decode));
	printf("prefill           %10.0f tokens/s at most, over %d tokens (%s)\n", p->prefill.speed, o->context,
		   cause(p->prefill));
}

static m1_status
run(const m1_cli *cli, const m1_source *source, m1_checkpoint **headers, m1_error *err)
{
	m1_config config;
	m1_plan_options options;
	m1_plan plan;
	m1b_dtype type;
	m1_status status = m1_source_config(source, &config, err);

	if (status != M1_OK || (status = open_headers(source, headers, err)) != M1_OK)
		return status;
	options = plan_options(cli, &config);
	options.checkpoint = *headers;
	if ((status = read_format(cli->plan.format, &options, &type, err)) != M1_OK ||
		(status = m1_plan_make(&config, &options, &plan, err)) != M1_OK)
		return status;
	print_hardware(&options, cli->plan.cpu);
	status = print_index(source, &config, &options, err);
	print_plan(&plan, &options);
	return status;
}

int
m1_cmd_plan(const m1_cli *cli)
{
	m1_source *source = NULL;
	m1_checkpoint *headers = NULL;
	m1_error err;
	m1_status status = m1_source_open(cli->model, &source, &err);

	if (status == M1_OK)
		status = run(cli, source, &headers, &err);
	m1_checkpoint_close(headers);
	m1_source_close(source);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
