/* cmd_plan.c - `plan`: what a model takes and how fast it could be, on machines that need not be there. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
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
		.format = cli->weight_format,
	};
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

static void
print_plan(const m1_plan *p, const m1_plan_options *o)
{
	printf("parameters        %10.2f B; %.2f B of them for a token, and %.2f B of the head\n", p->parameters / 1e9,
		   p->active_parameters / 1e9, p->head_parameters / 1e9);
	printf("weights           %10.1f GB; %.1f GB on each device, %.1f GB read for a token alone\n", p->weights / GB,
		   p->device_weights / GB, p->active_weights / GB);
	printf("state             %10.1f MiB of a sequence, whatever its length\n", p->state / (1 << 20));
	printf("keys and values   %10.1f KiB of a token, %.2f GiB of %d tokens\n", p->kv_token / (1 << 10),
		   p->kv_token * o->context / (1 << 30), o->context);
	if (p->room < 0)
		printf("does not fit: %.1f GB are missing\n", -p->room / GB);
	else
		printf("room              %10.1f GB for sequences: %.0f of %d tokens\n", p->room / GB, p->fits, o->context);
	printf("decode            %10.1f tokens/s at most, of %d request%s behind %d tokens (bandwidth)\n", p->decode,
		   o->requests, o->requests > 1 ? "s" : "", o->context);
	printf("prefill           %10.0f tokens/s at most, over %d tokens (arithmetic)\n", p->prefill, o->context);
}

int
m1_cmd_plan(const m1_cli *cli)
{
	m1_source *source = NULL;
	m1_config config;
	m1_plan_options options;
	m1_plan plan;
	m1_error err;
	m1_status status = m1_source_open(cli->model, &source, &err);

	if (status == M1_OK)
		status = m1_source_config(source, &config, &err);
	if (status == M1_OK)
	{
		options = plan_options(cli, &config);
		plan = m1_plan_make(&config, &options);
		print_hardware(&options, cli->plan.cpu);
		print_plan(&plan, &options);
	}
	m1_source_close(source);
	return status == M1_OK ? 0 : m1_cli_report(&err);
}
